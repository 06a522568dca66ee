# SPDX-License-Identifier: Apache-2.0
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
