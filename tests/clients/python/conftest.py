# SPDX-License-Identifier: Apache-2.0
import socket

import pytest
from fake_server import FakeServer, libero_info, serving
from piserve import PolicyClient


@pytest.fixture
def server():
    return FakeServer([libero_info()])


@pytest.fixture
def client(server):
    with serving(server) as address, PolicyClient(address) as client:
        yield client


@pytest.fixture
def proxy(monkeypatch):
    """The listener that the environment names as its proxy; never answers."""
    for name in ("no_grpc_proxy", "no_proxy", "grpc_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        monkeypatch.setenv("http_proxy", address)
        yield listener
