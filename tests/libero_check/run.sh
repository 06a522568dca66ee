#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Checks piserve.libero against LIBERO itself: what tests with a fake simulator
# cannot. Not part of `make test`: installs 2 GB once, below build/libero.
#
# LIBERO_VENV names an environment that has clients/python[libero] already.
set -euo pipefail
cd "$(dirname "$0")/../.."

venv=${LIBERO_VENV:-build/libero/venv}
if ! ldconfig -p | grep -q libOSMesa; then
  echo 'LIBERO renders by libOSMesa: apt-get install libosmesa6 libegl1' \
    'libgl1 libgles2 libegl-mesa0' >&2
  exit 1
fi
if [ ! -e "$venv/bin/piserve-libero" ]; then
  echo "installing LIBERO in $venv (0.9 GB to download)" >&2
  python3 -m venv "$venv"
  copy=$(mktemp -d)
  cp -r clients/python "$copy"  # setuptools builds beside the sources
  "$venv/bin/python" -m pip -q install "$copy/python[libero]"
  rm -rf "$copy"
fi
"$venv/bin/python" -c 'import pytest' 2>/dev/null ||
  "$venv/bin/python" -m pip -q install "$(grep ^pytest== tests/requirements.txt)"
export MUJOCO_GL=${MUJOCO_GL:-osmesa}
export PYOPENGL_PLATFORM=${PYOPENGL_PLATFORM:-$MUJOCO_GL}
exec "$venv/bin/python" -m pytest -c tests/pytest.ini -v --durations=0 \
  tests/libero_check/simulator_check.py "$@"
