#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs a sanitizer build's tests: sanitize.sh address|thread BUILD_FOLDER.
set -euo pipefail
cd "$(dirname "$0")/.."
readonly kind=$1 build=$2
# A folder that once had another compiler has lost its settings.
if ! grep -q "^PISERVE_SANITIZE:.*=$kind$" "$build/CMakeCache.txt"; then
  echo "$0: $build is not built with -fsanitize=$kind; remove it" >&2
  exit 2
fi
case $kind in
  address)
    export ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1:allow_addr2line=1
    export UBSAN_OPTIONS=print_stacktrace=1
    ctest --test-dir "$build" -j2 --output-on-failure --no-tests=error \
      --label-exclude '^gpu$' ;;
  thread)
    # The packaged Abseil is not instrumented: what its Mutex orders, as gRPC does
    # with all of its own, would look like races. So the suite leaves gRPC out and
    # uses no lock of Abseil's, but links its values (status, time, strings). A
    # Status counts its references unseen: who drops the last one must be clear.
    export OMP_NUM_THREADS=1
    export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1
    ctest --test-dir "$build" -j2 --output-on-failure --no-tests=error \
      --label-regex '^tsan$' ;;
  *) echo "usage: $0 address|thread BUILD_FOLDER" >&2; exit 2 ;;
esac
