# SPDX-License-Identifier: Apache-2.0
"""What a robot must have installed to run a program made with the client."""

import subprocess

import pytest
from serving import binary


def libraries(program):
    done = subprocess.run(
        ["ldd", binary(program)], capture_output=True, text=True, check=True
    )
    return [line.split()[0] for line in done.stdout.splitlines()]


@pytest.mark.parametrize("program", ["policy_cli", "policy_load"])
def test_a_client_needs_grpc_and_no_torch(program):
    names = libraries(program)
    assert any("libgrpc" in name for name in names), names
    for heavy in ("torch", "c10", "cuda", "nvidia", "boost", "sentencepiece"):
        assert not [name for name in names if heavy in name], names


def test_the_server_shows_that_torch_would_be_seen():
    assert any("torch" in name for name in libraries("policy_server"))
