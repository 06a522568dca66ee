#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs what a bundle holds on a machine with an NVIDIA GPU, libtorch and CUDA,
# and prints a summary: run.sh [tests] [sanitize] [bench] [serve] [tabletop];
# tests, bench and serve by default. One program of its own:
# run.sh -- bin/model_bench --help.
#
#   TORCH_LIB         libtorch's lib folder; default: that of python3's torch
#   RESULTS           folder for JSON files and logs; default: results
#   SANITIZE_SECONDS  for each program under each sanitizer; default: 300
#   RATE              serve: requests a second of each robot; default: 2
#   DURATION          serve, tabletop: of each load; default: 5s
#   REPOSITORY        tabletop: a checkout, whose policies, configuration and
#                     recordings it reads; default: ../.. of this file
#   CONFIG            tabletop: a configuration there; default:
#                     deploy/config/tabletop_engine.textproto. With
#                     deploy/config/tabletop.textproto no GPU is needed.
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
                 engine_accuracy_test engine_fault_test; do
    step $program 300 "bin/$program" --gtest_brief=1
  done
}

# One program under one tool of compute-sanitizer; its line of the summary goes
# to a file, since it runs beside others.
sanitized() {
  local name=$1 tool=$2 program=$3 start=$SECONDS verdict=ok code options=() filter='*'
  # More than a block of any kernel has: left to count them itself, it misses
  # some and makes kernels that use them fail.
  [ "$tool" = synccheck ] && options=(--num-cuda-barriers 64)
  # What takes longest there, with kernels that other tests run too: replays by
  # the hundred, the twin's sums in double; under racecheck more than two rows.
  case $program/$tool in
    kernels_test/racecheck) filter='-*Replay*' ;;
    expert_test/racecheck)
      filter='-*Replay*:*NoLessAccurate*:*RowsTest*/3:*RowsTest*/4' ;;
    expert_test/*) filter='-*Replay*:*NoLessAccurate*' ;;
  esac
  timeout "${SANITIZE_SECONDS:-300}" "$sanitizer" --tool "$tool" \
    "${options[@]}" --error-exitcode 86 "bin/$program" --gtest_brief=1 \
    --gtest_filter="$filter" >"$results/$name.log" 2>&1
  code=$?
  [ $code = 0 ] || verdict=FAILED
  [ $code = 124 ] && verdict=LATE
  printf '%-24s %-7s %4d s  %s\n' "$name" $verdict $((SECONDS - start)) \
    "$(grep -o "[A-Z]* SUMMARY.*" "$results/$name.log" | tail -n 1)" >"$results/$name.line"
  return $code
}

sanitize() {
  local sanitizer name tool tools shard shards pids names
  sanitizer=$(PATH=$PATH:/usr/local/cuda/bin command -v compute-sanitizer) || {
    printf '\n!!! SKIPPED: compute-sanitizer is not installed here\n'
    summary+=('sanitize                 SKIPPED: no compute-sanitizer')
    return
  }
  printf '\n=== sanitize\n'
  # A few side by side: sixteen at once are all late, and what the tools track
  # must fit the device's memory together. Racecheck is by far the slowest.
  for tools in 'memcheck initcheck synccheck' racecheck; do
    pids=() names=()
    for tool in $tools; do
      for program in kernels_test expert_test; do
        shards=1
        [ $tool/$program = racecheck/kernels_test ] && shards=3
        for ((shard = 0; shard < shards; ++shard)); do
          name=${tool}_${program}_$shard
          GTEST_TOTAL_SHARDS=$shards GTEST_SHARD_INDEX=$shard \
            sanitized "$name" $tool $program &
          pids+=($!)
          names+=("$name")
        done
      done
    done
    for i in "${!pids[@]}"; do
      wait "${pids[$i]}" || failed=1
      tail -n 3 "$results/${names[$i]}.log"
      summary+=("$(cat "$results/${names[$i]}.line")")
    done
  done
}

# Back to back, and at the pace of a robot that asks thirty times a second: a
# card at its power limit lowers its clock.
bench() {
  local LINES_SHOWN=24 calls=300 pace=33ms
  step pi0 240 bin/model_bench --batch_sizes=1 --calls=10000 \
    --json="$results/pi0.json"
  LINES_SHOWN=30 step pi0_trace 60 bin/model_bench --batch_sizes=1 --calls=20 \
    --trace="$results/pi0_trace.json"
  step pi0_paced 60 bin/model_bench --batch_sizes=1 --cameras=3,2 \
    --calls=$calls --period=$pace --json="$results/pi0_paced.json"
  step pi0_two_cameras 60 bin/model_bench --batch_sizes=1 --cameras=2 \
    --calls=$calls --json="$results/pi0_two_cameras.json"
  # 788 tokens of prefix, 10 actions.
  step pi0_788 60 bin/model_bench --batch_sizes=1 --horizon=10 \
    --prompt_tokens=20 --calls=$calls --json="$results/pi0_788.json"
  # On both sides of where a kernel for all steps stops paying.
  step pi0_small 60 bin/model_bench --batch_sizes=2,3,4 --calls=$calls \
    --json="$results/pi0_small.json"
  step pi0_steps 60 bin/model_bench --batch_sizes=1 --steps=10,5,3,2 \
    --json="$results/pi0_steps.json"
  step pi0_alone 120 bin/model_bench --batch_sizes=1,8,64 --stages_alone \
    --json="$results/pi0_alone.json"
  # A minute of each, the next wave submitted while one runs, as the server
  # does; then what GEMMs reach on the device as it is then.
  step pi0_loaded 240 bin/model_bench --batch_sizes=8,64 --calls=8300 \
    --roof=10s --waves_in_flight=2 --json="$results/pi0_loaded.json"
  step pi05 60 bin/model_bench --variant=pi05 --seed=4 --batch_sizes=1 \
    --prompt_tokens=200,60 --calls=$calls --json="$results/pi05.json"
  step pi05_paced 60 bin/model_bench --variant=pi05 --seed=4 --batch_sizes=1 \
    --prompt_tokens=200,60 --calls=$calls --period=$pace \
    --json="$results/pi05_paced.json"
  step pi0_ladder 120 bin/model_bench --ladder --json="$results/pi0_ladder.json"
}

milliseconds() { echo $(($(date +%s%N) / 1000000)); }

# start_server WHICH CONFIG: returns once it is ready, with a line of the
# summary.
start_server() {
  local start memory
  start=$(milliseconds)
  bin/policy_server --config="$2" >"$results/server_$1.log" 2>&1 &
  server=$!
  trap 'kill "$server" 2>/dev/null' EXIT
  until bin/policy_cli health >"$results/health.log" 2>&1; do
    if ! kill -0 $server 2>/dev/null ||
       [ $(($(milliseconds) - start)) -gt 300000 ]; then
      tail -n 5 "$results/server_$1.log"
      failed=1
      summary+=("$(printf '%-24s FAILED' "server, $1")")
      return 1
    fi
    sleep 0.1
  done
  memory=$(nvidia-smi --query-gpu=memory.used --format=csv,noheader \
             2>/dev/null | head -n 1)
  summary+=("$(printf '%-24s ready   %6d ms, %s of the device' "server, $1" \
    $(($(milliseconds) - start)) "${memory:-nothing}")")
}

stop_server() {
  local code
  kill -TERM $server
  wait $server
  code=$?
  [ $code = 0 ] || failed=1
  summary+=("$(printf '%-24s exit %s' server $code)")
  trap - EXIT
}

# The server by its configuration, started without and with a plan, and robots
# that ask it.
serve() {
  rm -f deploy/config/pi0_engine.plan
  start_server new_plan deploy/config/pi0_engine.textproto || return
  stop_server
  start_server saved_plan deploy/config/pi0_engine.textproto || return
  for robots in 1 8 32 64; do
    LINES_SHOWN=30 step "load_$robots" 60 bin/policy_load --robots=$robots \
      --rate="${RATE:-2}" --duration="${DURATION:-5s}" \
      --json="$results/load_$robots.json"
  done
  stop_server
}

# What the float32 reference answered to two small policies' robots, asked again:
# one request at a time, then several robots' at once.
tabletop() {
  local repository=${REPOSITORY:-../..} policy recordings
  local tolerance=0.1  # tests/golden/MANIFEST.md, Tabletop
  start_server tabletop \
    "$repository/${CONFIG:-deploy/config/tabletop_engine.textproto}" || return
  for policy in pi0_tabletop pi05_tabletop; do
    recordings=$repository/tests/golden/tabletop/$policy
    step "replay_$policy" 120 bin/policy_cli replay "$recordings" \
      --tolerance=$tolerance
    summary+=("$(printf '%26slargest difference %s of %s' '' \
      "$(grep -o 'difference [^,]*' "$results/replay_$policy.log" |
         cut -d ' ' -f 2 | sort -g | tail -n 1)" $tolerance)")
    step "load_$policy" 60 bin/policy_load --policy=$policy --robots=16 \
      --loop=closed --rate=0 --duration="${DURATION:-5s}" \
      --recording="$recordings" --tolerance=$tolerance \
      --json="$results/load_$policy.json"
  done
  stop_server
}

[ $# = 0 ] && set -- tests bench serve
for part in "$@"; do
  case $part in
    tests | sanitize | bench | serve | tabletop) $part ;;
    *)
      echo "usage: $0 [tests] [sanitize] [bench] [serve] [tabletop]" >&2
      exit 2
      ;;
  esac
done
printf '\n=== summary\n'
printf '%s\n' "${summary[@]}"
exit $failed
