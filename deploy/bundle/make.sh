#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes a bundle from a CUDA build: make.sh BUILD_FOLDER OUT_FOLDER. It holds
# server, clients, benchmarks, GPU tests and what these read; run.sh runs them.
# An archive over 24 MiB is an error.
set -euo pipefail
readonly build=$1 out=$2
here=$(cd "$(dirname "$0")" && pwd)
readonly here root=${here%/deploy/bundle}
readonly max_bytes=$((24 << 20))

rm -rf "$out"
"$here/collect.sh" "$out" \
  "$build"/bin/{policy_server,policy_cli,policy_load,model_bench,kernel_benchmark} \
  "$build"/tests/model/kernels/kernels_test \
  "$build"/tests/model/kernels/expert/expert_test \
  "$build"/tests/model/engine/engine_{network,accuracy,fault}_test
cp "$here/run.sh" "$out/"
for path in tests/golden/{tiny_pi0,tiny_pi05,tokenizer,full,images.safetensors} \
            deploy/config/pi0_engine.textproto; do
  mkdir -p "$out/$(dirname "$path")"
  cp -r "$root/$path" "$out/$path"
done
rm -rf "$out"/tests/golden/tiny_pi0/float32
# Programs share much of their code: so large a dictionary finds it again.
XZ_OPT=-9 tar -C "$(dirname "$out")" -cJf "$out.tar.xz" "$(basename "$out")"
bytes=$(stat -c %s "$out.tar.xz")
readonly bytes
if ((bytes > max_bytes)); then
  echo "bundle: $out.tar.xz: got $bytes bytes, want at most $max_bytes (24 MiB)" >&2
  exit 1
fi
printf '%s: %s MiB\n' "$out.tar.xz" \
  "$(du -m --apparent-size "$out.tar.xz" | cut -f1)"
