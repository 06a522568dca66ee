# SPDX-License-Identifier: Apache-2.0
"""How PolicyClient connects: servers that are away, slow, or several."""

import concurrent.futures
import contextlib
import socket
import threading
import time

import grpc
import piserve
import pytest
from fake_server import FakeServer, Held, libero_info, observation
from fake_server import serving as serve
from piserve import PolicyClient


def _free_address():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def test_no_server_is_unavailable_and_soon_said():
    start = time.monotonic()
    with (
        PolicyClient(_free_address(), timeout=5) as client,
        pytest.raises(piserve.PolicyUnavailable) as caught,
    ):
        client.infer(observation())
    assert time.monotonic() - start < 4
    assert isinstance(caught.value, ConnectionError)


def test_reconnects_after_the_server_was_away(server):
    with serve(server) as address, PolicyClient(address) as client:
        client.infer(observation())
        away = PolicyClient(address)
        away.infer(observation())
    with pytest.raises(piserve.PolicyUnavailable):
        away.infer(observation(), timeout=5.0)
    with serve(server, address):
        deadline = time.monotonic() + 30
        while True:
            try:
                away.infer(observation(), timeout=1.0)
                break
            except (piserve.PolicyUnavailable, piserve.DeadlineExceeded):
                assert time.monotonic() < deadline
    away.close()


def test_a_closed_client_says_so(client):
    client.infer(observation())
    client.close()
    for call in (
        lambda: client.infer(observation()),
        client.policy_info,
        lambda: client.wait_until_ready(timeout=1.0),
    ):
        with pytest.raises(piserve.PolicyFailure) as caught:
            call()
        assert caught.value.reason == "CLOSED"


def test_closing_ends_what_is_awaited_as_an_error(server):
    held = Held()
    server.script = [held]
    with serve(server) as address:
        client = PolicyClient(address)

        def close():
            held.arrived.wait(10)
            client.close()

        closing = threading.Thread(target=close)
        closing.start()
        with pytest.raises(piserve.PolicyFailure) as caught:
            client.infer(observation())
        closing.join()
        held.release.set()
    assert caught.value.reason == "CLOSED"


def test_closing_ends_a_wait_for_the_server(server):
    server.ready = False
    with serve(server) as address, PolicyClient(address) as client:
        closing = threading.Timer(0.3, client.close)
        closing.start()
        start = time.monotonic()
        with pytest.raises(piserve.PolicyFailure) as caught:
            client.wait_until_ready(timeout=20.0)
        closing.join()
    assert caught.value.reason == "CLOSED"
    assert time.monotonic() - start < 10


def test_a_network_that_is_slow_to_connect_is_waited_for(server):
    """A TLS handshake over a wireless link takes some hundred milliseconds."""
    with serve(server) as address, socket.create_server(("127.0.0.1", 0)) as on:
        host, port = address.split(":")

        def pump(source, sink, wait):
            time.sleep(wait)  # part of the scenario
            with contextlib.suppress(OSError):
                while data := source.recv(1 << 16):
                    sink.sendall(data)

        def relay():
            here, _ = on.accept()
            there = socket.create_connection((host, int(port)))
            for way in ((here, there, 0), (there, here, 0.4)):
                threading.Thread(target=pump, args=way, daemon=True).start()

        threading.Thread(target=relay, daemon=True).start()
        slow = f"127.0.0.1:{on.getsockname()[1]}"
        with PolicyClient(slow, timeout=20) as client:
            reply = client.infer(observation())
    assert reply["client_timing"]["attempts"] == 1


def test_a_server_on_this_machine_is_asked_past_a_proxy(server, proxy):
    with (
        serve(server) as address,
        PolicyClient(address, api_key="k-1", timeout=2.0) as client,
    ):
        client.infer(observation())
    with pytest.raises(BlockingIOError):  # nobody called
        proxy.accept()


def test_wait_until_ready_gives_up_in_time(server):
    start = time.monotonic()
    with (
        serve(server) as address,  # has no health service: never ready
        PolicyClient(address) as client,
        pytest.raises(piserve.PolicyUnavailable) as caught,
    ):
        client.wait_until_ready(timeout=0.5)
    assert caught.value.reason == "NOT_READY"
    assert time.monotonic() - start < 3


def test_a_port_without_the_service_is_said_to_be_one():
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    with (
        PolicyClient(address) as client,
        pytest.raises(piserve.PolicyFailure) as caught,
    ):
        client.infer(observation())
    server.stop(None).wait()
    want = f"there is no piserve.v1.PolicyService at {address}: is this the "
    assert str(caught.value).startswith(want + "public port")


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INTERNAL]
)
def test_an_error_never_says_nothing(client, server, code):
    server.script = [lambda self, request, context: context.abort(code, "")]
    with pytest.raises(piserve.PolicyFailure, match="PolicyService at 127") as (
        caught
    ):
        client.infer(observation())
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("policy", "want"),
    [
        ("", "no policy here that this credential may use"),
        ("a", "no policy 'a' here that this credential may use"),
    ],
)
def test_a_credential_that_may_use_no_policy_is_told_so(policy, want):
    with (
        serve(FakeServer([])) as address,
        PolicyClient(address, policy=policy) as client,
        pytest.raises(piserve.PolicyMismatch, match=want),
    ):
        client.infer(observation())


def test_several_policies_need_a_name():
    server = FakeServer([libero_info("a"), libero_info("b")])
    with serve(server) as address:
        with (
            PolicyClient(address) as client,
            pytest.raises(piserve.PolicyMismatch, match="name one of them"),
        ):
            client.infer(observation())
        with PolicyClient(address, policy="b") as client:
            assert client.infer(observation())["policy"] == "b"
