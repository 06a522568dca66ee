#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs every libFuzzer target for some seconds, starting from its kept corpus:
# run.sh BUILD_FOLDER SECONDS. New inputs go to BUILD_FOLDER/corpus, findings to
# BUILD_FOLDER/findings.
set -euo pipefail
cd "$(dirname "$0")/../.."
readonly build=$1 seconds=$2
mkdir -p "$build/corpus" "$build/findings"

fuzz_one() {
  local target=$1 name log
  name=$(basename "$target")
  log="$build/findings/$name.log"
  mkdir -p "$build/corpus/$name"
  if "$target" -max_total_time="$seconds" -rss_limit_mb=4096 -timeout=10 \
      -max_len=65536 -print_final_stats=1 \
      -artifact_prefix="$build/findings/$name-" \
      "$build/corpus/$name" "tests/fuzz/corpus/$name" >"$log" 2>&1; then
    printf '%-22s ok     %s runs\n' "$name" \
      "$(awk '/number_of_executed_units/ {print $2}' "$log")"
  else
    printf '%-22s FAILED (%s)\n' "$name" "$log"
    tail -n 40 "$log"
    return 1
  fi
}
export -f fuzz_one
export build seconds

echo "Fuzzing for $seconds s a target, two at a time"
ls "$build"/fuzz/* | xargs -P2 -I{} bash -c 'fuzz_one {}'
