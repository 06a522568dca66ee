#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes piserve/_proto/*_pb2*.py from the .proto files.

Needs protoc and grpc_python_plugin of Debian 12 (protobuf 3.21, gRPC 1.51):
what they write loads on protobuf 3.20 and every later version, while stubs from
a newer generator refuse an older runtime. `tests/clients/python` checks that
the committed files are what this script writes.

Usage: generate_stubs.py [--out DIR]
"""

import argparse
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

PACKAGE = pathlib.Path(__file__).resolve().parents[1]
REPOSITORY = PACKAGE.parents[1]
STUBS = PACKAGE / "piserve" / "_proto"

# (include root, file below it)
SOURCES = (
    (REPOSITORY / "proto", "piserve/v1/policy.proto"),
    (PACKAGE, "piserve/_proto/rpc.proto"),
)
HEADER = "# SPDX-License-Identifier: Apache-2.0\n"


def namespaced(text: str) -> str:
    """Imports between the stubs made relative to this package."""
    text = re.sub(
        r"^from piserve\.v1 import (\w+) as (\w+)$",
        r"from piserve._proto import \1 as \2",
        text,
        flags=re.MULTILINE,
    )
    return HEADER + text


def generate(out: pathlib.Path) -> None:
    plugin = shutil.which("grpc_python_plugin")
    if plugin is None or shutil.which("protoc") is None:
        sys.exit("protoc and grpc_python_plugin are needed to make the stubs")
    with tempfile.TemporaryDirectory() as scratch:
        for root, name in SOURCES:
            command = [
                "protoc",
                f"-I{root}",
                f"--python_out={scratch}",
                f"--pyi_out={scratch}",
                name,
            ]
            if name.endswith("policy.proto"):
                command += [
                    f"--plugin=protoc-gen-grpc={plugin}",
                    f"--grpc_out={scratch}",
                ]
            subprocess.run(command, check=True, cwd=root)
        for made in sorted(pathlib.Path(scratch).rglob("*_pb2*.py*")):
            (out / made.name).write_text(namespaced(made.read_text()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=STUBS)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    generate(arguments.out)


if __name__ == "__main__":
    main()
