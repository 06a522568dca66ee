#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Line coverage of our parsers by the kept fuzz corpora alone; fails under 80 %:
# coverage.sh BUILD_FOLDER.
set -euo pipefail
cd "$(dirname "$0")/../.."
readonly build=$1
find "$build" -name '*.gcda' -delete
ctest --test-dir "$build" -L '^corpus$' --output-on-failure --no-tests=error
filters=()
while read -r file; do
  filters+=(--filter "$file")
done < <(grep -v '^#' tests/fuzz/parsers.txt)
.venv/bin/gcovr --root . "${filters[@]}" --fail-under-line 80 "$build"
