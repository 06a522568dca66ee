# SPDX-License-Identifier: Apache-2.0
import pytest
import recorded
from serving import RawClient, serving, serving_config
from websocket_front import ON


@pytest.fixture(scope="module")
def libero():
    return recorded.load("pi0_libero")


@pytest.fixture(scope="module")
def libero_server():
    with serving_config("pi0_libero_tiny") as server:
        yield server


@pytest.fixture(scope="module")
def libero_info(libero_server):
    with RawClient(libero_server.addresses.public) as client:
        return client.info().policies[0]


@pytest.fixture
def raw(libero_server):
    with RawClient(libero_server.addresses.public) as client:
        yield client


@pytest.fixture(scope="module")
def blind_server():
    """Answers a hash of the observation, whatever the noise."""
    with serving(ON, "--policy=blind", program="piserve_test_server") as server:
        yield server
