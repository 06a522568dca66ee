# SPDX-License-Identifier: Apache-2.0
"""The class that stands in for openpi's; the two side by side are in
tests/end_to_end/openpi_client_test.py."""

import inspect
import logging
import math

import piserve
import pytest
from fake_server import (
    FakeServer,
    aloha_info,
    libero_info,
    observation,
    serving,
)
from openpi_client import websocket_client_policy as openpis
from piserve import ActionChunkBroker, websocket_client_policy
from piserve.websocket_client_policy import WebsocketClientPolicy, _place_of


@pytest.fixture
def server():
    made = FakeServer([libero_info()])
    made.ready = True
    return made


def connect(address, **options):
    host, port = address.split(":")
    return WebsocketClientPolicy(host, int(port), **options)


def test_constructor_and_methods_are_openpis():
    theirs = openpis.WebsocketClientPolicy
    ours = websocket_client_policy.WebsocketClientPolicy
    want = list(inspect.signature(theirs).parameters.values())
    got = list(inspect.signature(ours).parameters.values())
    for one, other in zip(got[: len(want)], want, strict=True):
        assert (one.name, one.default) == (other.name, other.default)
    for more in got[len(want) :]:
        assert more.kind in (more.KEYWORD_ONLY, more.VAR_KEYWORD)
    for name in ("infer", "reset", "get_server_metadata"):
        assert len(inspect.signature(getattr(ours, name)).parameters) == len(
            inspect.signature(getattr(theirs, name)).parameters
        )


def test_answers_hold_what_openpis_server_gives_and_no_more(server):
    with serving(server) as address:
        policy = connect(address)
        first, second = policy.infer(observation()), policy.infer(observation())
        policy.reset()
        policy.close()
    assert set(first) == {"actions", "policy_timing", "server_timing"}
    assert first["policy_timing"] == {"infer_ms": 4.0}
    assert first["server_timing"] == {"infer_ms": 5.5}
    assert set(second["server_timing"]) == {"infer_ms", "prev_total_ms"}
    assert second["server_timing"]["prev_total_ms"] > 0


def test_a_broker_takes_it(server):
    with serving(server) as address:
        policy = connect(address)
        broker = ActionChunkBroker(policy=policy, action_horizon=3)
        steps = [broker.infer(observation())["actions"][0] for _ in range(4)]
        policy.close()
    assert steps == [0, 1, 2, 0]
    assert len(server.requests) == 2


def test_metadata_are_plain_values():
    info = aloha_info()
    info.metadata.update(
        {"reset_pose": [0, -1.5], "arm": {"left": True, "tool": None}}
    )
    server = FakeServer([info])
    server.ready = True
    with serving(server) as address:
        policy = connect(address)
        policy.close()
    assert policy.get_server_metadata() == {
        "reset_pose": [0, -1.5],
        "arm": {"left": True, "tool": None},
    }


def test_a_url_names_host_port_and_policy():
    server = FakeServer([libero_info("a"), libero_info("b")])
    server.ready = True
    with serving(server) as address:
        policy = WebsocketClientPolicy(f"ws://{address}/b")
        policy.infer(observation())
        policy.close()
    assert server.requests[0].policy == "b"


@pytest.mark.parametrize(
    ("host", "port", "place"),
    [
        ("0.0.0.0", None, ("127.0.0.1:50051", "", False)),
        ("0.0.0.0", 8000, ("127.0.0.1:8000", "", False)),
        ("robots.example", 9, ("robots.example:9", "", False)),
        ("ws://h:7", None, ("h:7", "", False)),
        ("ws://h/pi0", 8, ("h:8", "pi0", False)),
        ("wss://h:7/pi0", None, ("h:7", "pi0", True)),
        ("ws://[::1]:7", None, ("[::1]:7", "", False)),
    ],
)
def test_places_are_read_as_openpi_reads_them(host, port, place):
    assert _place_of(host, port) == place


def test_errors_are_those_that_scripts_for_openpi_catch(server):
    bad = observation(**{"observation/state": [1.0]})
    with serving(server) as address:
        policy = connect(address)
        with pytest.raises(RuntimeError, match="observation/state") as caught:
            policy.infer(bad)
        policy.infer(observation())
        policy.close()
    assert isinstance(caught.value, piserve.InvalidObservation)


def test_a_policy_for_another_robot_is_refused_when_connecting(server):
    with serving(server) as address, pytest.raises(piserve.PolicyMismatch):
        connect(address, robot=piserve.ALOHA)


def test_it_waits_for_the_server_as_long_as_told(server, caplog):
    server.ready = False
    with (
        serving(server) as address,
        caplog.at_level(logging.INFO, "piserve"),
        pytest.raises(piserve.PolicyUnavailable),
    ):
        connect(address, wait=0.3)
    assert f"Waiting for server at {address}" in caplog.text


@pytest.mark.parametrize("wait", [0, -1.0, math.inf, math.nan, 1e12])
def test_a_wait_that_is_no_time_is_refused(server, wait):
    want = "wait: got .* want a finite time above 0"
    with serving(server) as address, pytest.raises(ValueError, match=want):
        connect(address, wait=wait)


def test_a_key_does_not_cross_the_network_in_the_clear():
    with pytest.raises(ValueError, match="in the clear"):
        WebsocketClientPolicy("robots.example", 50051, "key", wait=0.1)
