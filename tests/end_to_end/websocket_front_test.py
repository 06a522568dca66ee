# SPDX-License-Identifier: Apache-2.0
"""The websocket front where clients, frames and waves are not as they should
be; openpi_client_test.py has what they are when all is well."""

import hashlib
import subprocess
import threading
import urllib.error
import urllib.request
from socket import SHUT_RDWR

import msgpack
import numpy as np
import pytest
import websockets.exceptions
import websockets.sync.client
from openpi_client import msgpack_numpy
from server_process import LISTENERS
from serving import (
    binary,
    config_text,
    in_threads,
    serving,
    total,
    wait_until,
    write_config,
)
from websocket_front import (
    ON,
    SLOW,
    connect,
    connect_raw,
    libero,
)

# ------------------------------------------------------------------ bad input


def spoiled(**changes):
    return {**libero(), **{k.replace("__", "/"): v for k, v in changes.items()}}


@pytest.mark.parametrize(
    ("observation", "text"),
    [
        (spoiled(observation__state=np.zeros(7)), "observation/state: got"),
        (spoiled(observation__state=np.full(8, np.nan)), "STATE_NOT_FINITE"),
        (spoiled(observation__state="up"), "got a str, want real numbers"),
        (spoiled(observation__image=np.zeros((8, 8))), "IMAGE_SHAPE"),
        (spoiled(observation__image=np.zeros((8, 8, 3), int)), "int64"),
        (spoiled(observation__image=b"\xff\xd8\xff no"), "images[0]"),
        (spoiled(observation__image=np.full((8, 8, 3), 2.0)), "IMAGE_RANGE"),
        (spoiled(prompt=None), "PROMPT_TYPE"),
        (spoiled(prompt="x" * 2000), "PROMPT"),
        ({"prompt": "go"}, "CAMERA_MISSING"),
        ({}, "CAMERA_MISSING"),
    ],
)
def test_a_bad_observation_is_told_and_the_connection_stays(
    blind_server, observation, text
):
    policy = connect(blind_server)
    with pytest.raises(RuntimeError) as caught:
        policy.infer(observation)
    message = str(caught.value).split("\n", 1)[1]
    assert message.startswith("INVALID_ARGUMENT (")
    assert text in message
    for trace in ("Traceback", ".cc", "/work", "/usr", "piserve::", "0x"):
        assert trace not in message
    assert policy.infer(libero())["actions"].shape == (10, 7)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xc1",
        b"\x80",
        msgpack.packb([1, 2]),
        msgpack_numpy.packb(libero())[:-100],
        msgpack_numpy.packb(libero()) + b"\x00",
        b"\xdf\xff\xff\xff\xff",
        b"\x81\xa1k" + b"\x91" * 100_000,
        b"\x81\xa1k\xc7\x02\x01ab",
        msgpack.packb(
            {
                "observation/image": {
                    b"__ndarray__": True,
                    b"data": b"12345678",
                    b"dtype": "|O",
                    b"shape": [1],
                }
            }
        ),
        "a text frame",
    ],
)
def test_a_malformed_frame_is_told_and_the_connection_stays(
    blind_server, frame
):
    with connect_raw(blind_server) as socket:
        socket.send(frame)
        answer = socket.recv(timeout=10)
        assert isinstance(answer, str)
        assert answer.startswith("INVALID_ARGUMENT (")
        socket.send(msgpack_numpy.packb(libero()))
        assert "actions" in msgpack_numpy.unpackb(socket.recv(timeout=10))


def test_an_oversize_frame_ends_its_connection_alone(blind_server):
    other = connect(blind_server)
    before = total(blind_server, "piserve_requests_received_total")
    with connect_raw(blind_server) as socket:
        with pytest.raises(websockets.exceptions.ConnectionClosed) as caught:
            socket.send(b"\x00" * (9 << 20))
            socket.recv(timeout=10)
        assert caught.value.rcvd is None or caught.value.rcvd.code == 1009
    assert total(blind_server, "piserve_requests_received_total") == before
    other.infer(libero())


def test_a_page_in_a_browser_is_refused(blind_server):
    with pytest.raises(websockets.exceptions.InvalidStatus) as caught:
        websockets.sync.client.connect(
            f"ws://{blind_server.addresses.websocket}",
            origin="http://page.example",
        )
    assert caught.value.response.status_code == 403


def test_plain_http_is_health_or_a_refusal(blind_server):
    url = f"http://{blind_server.addresses.websocket}"
    with urllib.request.urlopen(f"{url}/healthz", timeout=10) as page:
        assert page.read() == b"OK\n"
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(url, timeout=10)
    assert caught.value.code == 426


def test_a_credential_decides_who_may_connect(tmp_path):
    key = hashlib.sha256(b"open").hexdigest()
    keys = f'api_keys {{ identity: "arm" key_sha256: "{key}" }}'
    text = config_text("pi0_libero_tiny", keys, **SLOW)
    with serving(write_config(tmp_path, text), ON) as server:
        for wrong in (None, "shut"):
            with pytest.raises(websockets.exceptions.InvalidStatus) as caught:
                connect(server, api_key=wrong)
            assert caught.value.response.status_code == 401
        connect(server, api_key="open").infer(libero())


# ----------------------------------------------------- slow waves and the end


@pytest.fixture
def stalling(tmp_path):
    """A server whose waves do not end while the file exists."""
    stall = tmp_path / "stall"
    with serving(
        ON,
        "--policy=blind",
        "--rows_per_client=16",
        "--max_rows=1",
        "--predicted_limit=10m",
        f"--stall_file={stall}",
        program="piserve_test_server",
    ) as server:
        yield server, stall
        stall.unlink(missing_ok=True)


def test_pings_are_answered_during_inference(stalling):
    server, stall = stalling
    frame = msgpack_numpy.packb(libero())
    with connect_raw(server) as socket:
        stall.touch()
        socket.send(frame)
        wait_until(lambda: total(server, "piserve_inflight_requests") == 1)
        for _ in range(3):
            assert socket.ping().wait(10), "no pong"
        assert total(server, "piserve_inflight_requests") == 1
        stall.unlink()
        assert "actions" in msgpack_numpy.unpackb(socket.recv(timeout=10))


def test_clients_that_leave_lose_no_slot(stalling):
    """More of them than a client may have rows waiting."""
    server, stall = stalling
    frame = msgpack_numpy.packb(libero())
    stall.touch()
    for index in range(40):
        socket = connect_raw(server)
        socket.send(frame)
        wait_until(
            lambda sent=index + 1: (
                total(server, "piserve_requests_received_total") == sent
            )
        )
        socket.socket.shutdown(SHUT_RDWR)
        # Two waves are being computed: their rows cannot be cancelled.
        wait_until(lambda: total(server, "piserve_websocket_connections") <= 2)
    stall.unlink()
    wait_until(lambda: total(server, "piserve_inflight_requests") == 0)
    received = total(server, "piserve_requests_received_total")
    completed = total(server, "piserve_requests_completed_total")
    cancelled = total(
        server, "piserve_requests_completed_total", 'code="CANCELLED"'
    )
    assert received == completed == 40
    assert cancelled >= 38
    assert total(server, "piserve_queue_rows") == 0
    assert total(server, "piserve_queue_bytes") == 0
    policies = [connect(server) for _ in range(16)]
    in_threads(16, lambda index: policies[index].infer(libero()))
    assert total(server, "piserve_requests_rejected_total") == 0


def test_sigterm_answers_what_was_accepted_and_says_goodbye(stalling):
    server, stall = stalling
    idle = connect_raw(server)
    busy = connect_raw(server)
    stall.touch()
    busy.send(msgpack_numpy.packb(libero()))
    wait_until(lambda: total(server, "piserve_inflight_requests") == 1)
    server.terminate()
    with pytest.raises(websockets.exceptions.ConnectionClosedOK) as caught:
        idle.recv(timeout=10)
    assert caught.value.rcvd.code == 1001
    with pytest.raises(ConnectionRefusedError):
        connect(server)
    busy.send(msgpack_numpy.packb(libero()))  # too late: in its turn
    threading.Timer(0.1, stall.unlink).start()
    assert "actions" in msgpack_numpy.unpackb(busy.recv(timeout=10))
    refused = busy.recv(timeout=10)
    assert refused.startswith("UNAVAILABLE (DRAINING)")
    with pytest.raises(websockets.exceptions.ConnectionClosedOK):
        busy.recv(timeout=10)
    assert server.wait(30) == 0


def test_the_front_is_off_unless_asked_for(tmp_path):
    with serving("--policy=noop", program="piserve_test_server") as server:
        assert server.addresses.websocket == ""
        assert "websocket=" not in server.log


def test_an_address_that_others_reach_needs_a_word():
    listen = dict.fromkeys(LISTENERS, "127.0.0.1:0")
    done = subprocess.run(
        [
            binary("piserve_test_server"),
            *(f"--{name}_address={at}" for name, at in listen.items()),
            "--websocket_address=0.0.0.0:0",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "allow_insecure" in done.stderr
