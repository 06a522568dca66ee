# SPDX-License-Identifier: Apache-2.0
"""Tries the wheel on the oldest, a middle and the newest protobuf.

Usage: compat.py [--server build/dev/bin/piserve_test_server]

Builds the wheel once, installs it in an environment for each row of PINS (made
below .deps/client-compat at the first run, half a minute each) and lets
compat_probe.py ask a running server there. Exits non-zero if one fails.
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
ENVIRONMENTS = ROOT / ".deps" / "client-compat"
sys.path.insert(0, str(ROOT / "deploy" / "demo"))

from server_process import ServerProcess  # noqa: E402

PINS = (
    ("protobuf==3.20.3", "grpcio==1.49.1", "numpy==1.23.5"),
    ("protobuf==5.29.6", "grpcio==1.71.2", "numpy==1.26.4"),
    ("protobuf==7.36.2", "grpcio==1.85.1", "numpy==2.4.6"),
)


def pip(python, *arguments):
    subprocess.run(
        [python, "-m", "pip", "-q", "--disable-pip-version-check", *arguments],
        check=True,
    )


def build_wheel(folder):
    """The wheel, built from a copy, so that the checkout stays clean."""
    source = folder / "source"
    shutil.copytree(
        ROOT / "clients" / "python",
        source,
        ignore=shutil.ignore_patterns("__pycache__", ".*"),
    )
    pip(
        sys.executable,
        *("wheel", "--no-deps", "--no-build-isolation"),
        *("--wheel-dir", folder, source),
    )
    (wheel,) = folder.glob("piserve-*-py3-none-any.whl")
    return wheel


def environment(pins, wheel):
    """The Python of an environment with these pins and the wheel."""
    folder = ENVIRONMENTS / pins[0].replace("==", "-")
    python = folder / "bin" / "python"
    stamp = folder / "pins.json"
    if not stamp.exists() or json.loads(stamp.read_text()) != list(pins):
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip(python, "install", *pins)
        stamp.write_text(json.dumps(pins))
    pip(python, "install", "--no-deps", "--force-reinstall", wheel)
    pip(python, "check")
    return python


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--server",
        type=pathlib.Path,
        default=ROOT / "build" / "dev" / "bin" / "piserve_test_server",
    )
    server_binary = parser.parse_args().server
    failed = []
    with tempfile.TemporaryDirectory() as scratch:
        wheel = build_wheel(pathlib.Path(scratch))
        print(f"built {wheel.name}", flush=True)
        with ServerProcess(server_binary, ["--policy=blind"]) as server:
            server.wait_until_ready()
            for pins in PINS:
                python = environment(pins, wheel)
                done = subprocess.run(
                    [
                        *(python, "-I", "-W", "error::DeprecationWarning"),
                        *(HERE / "compat_probe.py", server.addresses.public),
                    ],
                    cwd=scratch,
                    check=False,
                )
                if done.returncode != 0:
                    failed.append(" ".join(pins))
            server.stop()
    for pins in failed:
        print(f"FAILED with {pins}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
