#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs what a bundle holds on a machine with an NVIDIA GPU, libtorch and CUDA,
# and prints a summary: run.sh [tests] [bench] [serve]; all three by default.
# One program of its own: run.sh -- bin/model_bench --help.
#
#   TORCH_LIB  libtorch's lib folder; default: that of python3's torch
#   RESULTS    folder for JSON files and logs; default: results
set -uo pipefail
cd "$(dirname "$0")" || exit 2
readonly results=${RESULTS:-results}
mkdir -p "$results"

torch_lib=${TORCH_LIB:-$(python3 -c \
  'import os, torch; print(os.path.join(torch.__path__[0], "lib"))')} || {
  echo 'run.sh: no libtorch; TORCH_LIB names its lib folder' >&2
  exit 2
}
nvidia=$(dirname "$torch_lib")/../nvidia
LD_LIBRARY_PATH=$torch_lib:$(printf '%s:' "$nvidia"/*/lib)/usr/local/cuda/lib64
export LD_LIBRARY_PATH
if [ "${1:-}" = -- ]; then
  shift
  exec "$@"
fi
summary=()
failed=0

# step NAME SECONDS COMMAND...: one line of the summary.
step() {
  local name=$1 limit=$2 start=$SECONDS verdict=ok
  shift 2
  printf '\n=== %s\n' "$name"
  timeout "$limit" "$@" 2>&1 | tee "$results/$name.log" | tail -n "${LINES_SHOWN:-12}"
  if [ "${PIPESTATUS[0]}" != 0 ]; then
    verdict=FAILED
    failed=1
  fi
  summary+=("$(printf '%-24s %-7s %4d s' "$name" $verdict $((SECONDS - start)))")
}

tests() {
  for program in kernels_test expert_test engine_network_test \
                 engine_accuracy_test; do
    step $program 300 "bin/$program" --gtest_brief=1
  done
}

bench() {
  step pi0 120 bin/model_bench --batch_sizes=1 --cameras=3,2 --calls=1000 \
    --json="$results/pi0.json" --trace="$results/pi0_trace.json"
  step pi0_batched 120 bin/model_bench --batch_sizes=8,64 \
    --json="$results/pi0_batched.json"
  step pi05 120 bin/model_bench --variant=pi05 --seed=4 --batch_sizes=1 \
    --prompt_tokens=200,60 --json="$results/pi05.json"
}

# The server by its configuration, and robots that ask it.
serve() {
  local start=$SECONDS
  bin/policy_server --config=deploy/config/pi0_engine.textproto \
    >"$results/server.log" 2>&1 &
  server=$!
  trap 'kill "$server" 2>/dev/null' EXIT
  until bin/policy_cli health >"$results/health.log" 2>&1; do
    if ! kill -0 $server 2>/dev/null || [ $((SECONDS - start)) -gt 300 ]; then
      tail -n 5 "$results/server.log"
      failed=1
      summary+=('policy_server            FAILED')
      return
    fi
    sleep 0.5
  done
  summary+=("$(printf '%-24s ready   %4d s' policy_server $((SECONDS - start)))")
  for robots in 1 8 32 64; do
    LINES_SHOWN=30 step "load_$robots" 60 bin/policy_load --robots=$robots \
      --rate="${RATE:-2}" --duration="${DURATION:-5s}" \
      --json="$results/load_$robots.json"
  done
  kill -TERM $server
  wait $server
  summary+=("$(printf '%-24s exit %s' policy_server $?)")
  trap - EXIT
}

[ $# = 0 ] && set -- tests bench serve
for part in "$@"; do
  case $part in
    tests | bench | serve) $part ;;
    *) echo "usage: $0 [tests] [bench] [serve]" >&2; exit 2 ;;
  esac
done
printf '\n=== summary\n'
printf '%s\n' "${summary[@]}"
exit $failed
