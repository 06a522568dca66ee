#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs all that building, testing and running need on Debian 12: system
# packages, libtorch and three sources below .deps, a Python environment in
# .venv. Does only what is missing; each step says what it does and how long it
# took. PISERVE_CUDA=1 keeps libtorch's CUDA half.
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly here=deploy/setup deps=.deps
readonly torch=2.11.0 sentencepiece=0.2.0 googleapis=1.76.0
readonly openpi_client=0.1.2
readonly cutlass=4.2.0.0
readonly cupti=13.0.85 cudart=13.0.96
step=0
readonly steps=7

log() { printf '%s\n' "$*" >&2; }

# run TITLE COMMAND...: one numbered step; its output is shown if it fails.
run() {
  local title=$1 start=$SECONDS out status
  shift
  step=$((step + 1))
  printf '[%d/%d] %s ...' "$step" "$steps" "$title" >&2
  out=$(mktemp)
  # In a condition bash would go on behind what fails within the step.
  set +e
  (set -e; "$@") >"$out" 2>&1
  status=$?
  set -e
  if [ $status = 0 ]; then
    log " $((SECONDS - start)) s"
  else
    log ' failed'
    cat "$out" >&2
    rm -f "$out"
    exit 1
  fi
  rm -f "$out"
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

packages() {
  local wanted missing=() p
  wanted=$(grep -v '^#' "$here/packages.txt")
  for p in $wanted; do
    dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' ||
      missing+=("$p")
  done
  [ ${#missing[@]} = 0 ] && return
  as_root apt-get update
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y \
    --no-install-recommends "${missing[@]}"
}

# stamp NAME VERSION: true if this version is unpacked already.
stamped() { [ "$(cat "$deps/$1.version" 2>/dev/null)" = "$2" ]; }
stamp() { echo "$2" >"$deps/$1.version"; }

pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }

libtorch() {
  local flavour=cpu
  [ "${PISERVE_CUDA:-0}" = 1 ] && flavour=cuda
  if stamped torch "$torch-cuda" || stamped torch "$torch-$flavour"; then
    return
  fi
  rm -rf "$deps/torch"
  pip install -q --no-deps \
    --target "$deps/torch" "torch==$torch"
  if [ $flavour = cpu ]; then
    rm -f "$deps"/torch/torch/lib/libtorch_{cuda,cuda_linalg,python,nvshmem}.so
  fi
  stamp torch "$torch-$flavour"
}

# Headers of the CUDA build's GEMMs.
cutlass_headers() {
  [ "${PISERVE_CUDA:-0}" = 1 ] || return 0
  stamped cutlass "$cutlass" && return
  rm -rf "$deps/cutlass"
  pip install -q --no-deps --target "$deps/cutlass" "nvidia-cutlass==$cutlass"
  stamp cutlass "$cutlass"
}

# libtorch_cpu needs cudart and cupti at run time, also without a GPU.
cuda_runtime() {
  [ -e /usr/local/cuda/lib64/libcudart.so.13 ] && return
  stamped nvidia "$cudart" && return
  pip install -q --no-deps \
    --target "$deps/nvidia" "nvidia-cuda-cupti==$cupti" \
    "nvidia-cuda-runtime==$cudart"
  stamp nvidia "$cudart"
}

sources() {
  if ! stamped sentencepiece $sentencepiece; then
    # A source archive; pip would try to build it, so take the file only.
    pip download -q --no-deps --no-build-isolation --no-binary :all: \
      -d "$deps" "sentencepiece==$sentencepiece"
    tar -xzf "$deps/sentencepiece-$sentencepiece.tar.gz" -C "$deps"
    stamp sentencepiece $sentencepiece
  fi
  if ! stamped googleapis $googleapis; then
    pip install -q --no-deps --target "$deps/googleapis" \
      "googleapis-common-protos==$googleapis"
    stamp googleapis $googleapis
  fi
}

python_environment() {
  local want
  want=$(sha256sum tests/requirements.txt | cut -d' ' -f1)
  [ -x .venv/bin/python ] || python3 -m venv .venv
  stamped venv "$want" && return
  pip install -q \
    setuptools wheel -r tests/requirements.txt
  pip install -q \
    --no-deps --no-build-isolation -e clients/python
  # It asks for numpy 1 and runs on numpy 2; what it needs is in the list.
  pip install -q --no-deps "openpi-client==$openpi_client"
  stamp venv "$want"
}

# Prometheus and promtool without the package's daemon.
promtool() {
  [ -x "$deps/prometheus/usr/bin/promtool" ] && return
  (cd "$deps" && apt-get download prometheus && dpkg -x prometheus_*.deb \
    prometheus && rm prometheus_*.deb)
}

mkdir -p "$deps"
run 'Debian packages' packages
run 'Python environment (.venv)' python_environment
run "libtorch $torch (530 MB to fetch)" libtorch
run 'CUDA runtime that libtorch asks for' cuda_runtime
run 'CUTLASS (for CUDA builds only)' cutlass_headers
run "SentencePiece $sentencepiece and googleapis protos" sources
run 'Prometheus and promtool' promtool
