# SPDX-License-Identifier: Apache-2.0
"""openpi's own client, unchanged, against the websocket front."""

import hashlib
import subprocess
import threading
import time
import urllib.error
import urllib.request
from socket import SHUT_RDWR

import msgpack
import numpy as np
import piserve
import pytest
import recorded
import websockets.exceptions
import websockets.sync.client
from openpi_client import msgpack_numpy
from openpi_client.action_chunk_broker import ActionChunkBroker
from openpi_client.websocket_client_policy import WebsocketClientPolicy
from piserve import PolicyClient
from piserve import websocket_client_policy as drop_in
from server_process import LISTENERS, metrics
from serving import (
    binary,
    config_text,
    in_threads,
    serving,
    write_config,
)

# For config_text: this wire names no deadline, and the cores may be busy.
SLOW = {
    "predicted_ms: 2000": "predicted_ms: 30000 default_deadline_ms: 30000",
}
ON = "--websocket_address=127.0.0.1:0"
RANDOM = np.random.default_rng(7)
ANSWERED = 'piserve_requests_completed_total{code="OK",method="WebsocketInfer"}'


def image(*shape):
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


def libero(state=None):
    return {
        "observation/image": image(256, 256, 3),
        "observation/wrist_image": image(256, 256, 3),
        "observation/state": RANDOM.random(8) if state is None else state,
        "prompt": "do something",
    }


def droid():
    return {
        "observation/exterior_image_1_left": image(180, 320, 3),
        "observation/wrist_image_left": image(224, 224, 3),
        "observation/joint_position": RANDOM.random(7),
        "observation/gripper_position": RANDOM.random(1),
        "prompt": "do something",
    }


def aloha():
    return {
        "state": np.ones(14),
        "images": {
            name: image(3, 224, 224)
            for name in (
                "cam_high",
                "cam_low",
                "cam_left_wrist",
                "cam_right_wrist",
            )
        },
        "prompt": "do something",
    }


def connect(server, **kwargs):
    """As openpi's examples connect: a host and a port."""
    host, port = server.addresses.websocket.split(":")
    return WebsocketClientPolicy(host, int(port), **kwargs)


def connect_raw(server):
    """A connection without openpi's client, the metadata read."""
    socket = websockets.sync.client.connect(
        f"ws://{server.addresses.websocket}", compression=None, max_size=None
    )
    socket.recv(timeout=10)
    return socket


def total(server, name, label=""):
    return sum(
        value
        for sample, value in metrics(server.get("/metrics")).items()
        if sample.split("{")[0] == name and label in sample
    )


def wait_until(condition, timeout=20.0):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "did not come about in time"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def blind_server():
    """Answers a hash of the observation, whatever the noise."""
    with serving(ON, "--policy=blind", program="piserve_test_server") as server:
        yield server


# -------------------------------------------------------------------- answers


def observations(config):
    if config == "pi05_droid":
        scalar = droid()
        scalar["observation/gripper_position"] = np.float32(0.25)
        numbers = droid()
        numbers["observation/gripper_position"] = np.array(0.5)
        numbers["observation/joint_position"] = np.arange(7, dtype=np.float32)
        text = droid()
        text["prompt"] = "caf\u00e9".encode()
        return [droid(), scalar, numbers, text]
    if config == "pi05_aloha":
        alone = aloha()
        alone["images"] = {"cam_high": image(3, 480, 640)}
        floats = aloha()
        floats["images"]["cam_high"] = RANDOM.random((3, 224, 224))
        floats["images"]["cam_left_wrist"] = RANDOM.random(
            (3, 224, 224), dtype=np.float32
        )
        return [aloha(), alone, floats]
    planes = libero()
    planes["observation/image"] = image(3, 224, 224)
    floats = libero()
    floats["observation/image"] = RANDOM.random((224, 224, 3))
    floats["observation/wrist_image"] = RANDOM.random((9, 7, 3)).astype("f2")
    lists = libero([0, 0.5, -1, 0, 0, 0, 0, 1])
    strided = libero(np.arange(16.0)[::2] / 16)
    strided["observation/image"] = image(128, 256, 3)[::-1, ::-2]
    words = libero()
    words["prompt"] = np.array("put the red block on the pad")
    return [libero(), planes, floats, lists, strided, words]


ROBOTS = {
    "pi05_libero": piserve.LIBERO,
    "pi05_droid": piserve.DROID,
    "pi05_aloha": piserve.ALOHA,
}


@pytest.mark.parametrize("config", ROBOTS)
def test_answers_are_those_of_grpc(config):
    """For a policy to which equal observations are equal. The robot's profile
    is what the server tells of it, and no other robot is served."""
    with serving(
        ON,
        "--policy=blind",
        f"--policy_config={config}",
        program="piserve_test_server",
    ) as server:
        policy = connect(server)
        seen = []
        address = server.addresses.public
        with PolicyClient(address, timeout=30, robot=ROBOTS[config]) as client:
            for observation in observations(config):
                actions = policy.infer(observation)["actions"]
                want = client.infer(observation)["actions"]
                assert actions.dtype == np.float64
                np.testing.assert_array_equal(actions, want)
                seen.append(actions.tobytes())
        assert len(set(seen)) == len(seen), "the policy tells none apart"
        for other in ROBOTS.values():
            if other is not ROBOTS[config]:
                with (
                    PolicyClient(address, timeout=30, robot=other) as client,
                    pytest.raises(piserve.PolicyMismatch),
                ):
                    client.infer(observation)


def shape_of(value):
    """The value with its numbers taken out."""
    if isinstance(value, dict):
        return {key: shape_of(item) for key, item in value.items()}
    return (value.dtype, value.shape) if hasattr(value, "dtype") else "number"


def test_the_class_that_stands_in_for_openpis_gives_the_same_dicts(
    blind_server,
):
    """A robot that changes its import sees no difference but the wire."""
    theirs = connect(blind_server)
    host, port = blind_server.addresses.public.split(":")
    ours = drop_in.WebsocketClientPolicy(host, int(port), timeout=30)
    assert ours.get_server_metadata() == theirs.get_server_metadata()
    for observation in observations("pi05_libero"):
        got, want = ours.infer(observation), theirs.infer(observation)
        assert shape_of(got) == shape_of(want)
        np.testing.assert_array_equal(got["actions"], want["actions"])
    ours.close()


def test_real_policies_answer_for_every_robot(tmp_path):
    """Their noise is random, so that shapes and ranges are what is known."""
    flag = write_config(tmp_path, config_text("all_tiny", **SLOW))
    shapes = {
        "pi0_libero": (libero, 7),
        "pi05_libero": (libero, 7),
        "pi0_aloha_towel": (aloha, 14),
        "pi05_droid": (droid, 8),
    }
    with serving(flag, ON) as server:
        for name, (observe, size) in shapes.items():
            policy = WebsocketClientPolicy(
                f"ws://{server.addresses.websocket}/{name}"
            )
            metadata = policy.get_server_metadata()
            if name == "pi0_aloha_towel":
                assert metadata == {"reset_pose": [0, -1.5, 1.5, 0, 0, 0]}
            else:
                assert metadata == {}
            address = server.addresses.public
            with PolicyClient(address, policy=name) as client:
                horizon = client.policy_info().action_horizon
            observation = observe()
            first = policy.infer(observation)
            second = policy.infer(observation)
            assert set(first) == {"actions", "policy_timing", "server_timing"}
            assert first["actions"].shape == (horizon, size)
            assert np.isfinite(first["actions"]).all()
            assert not np.array_equal(first["actions"], second["actions"])
            assert first["policy_timing"]["infer_ms"] > 0
            assert (
                first["policy_timing"]["infer_ms"]
                < first["server_timing"]["infer_ms"]
            )
            assert "prev_total_ms" not in first["server_timing"]
            assert (
                second["server_timing"]["prev_total_ms"]
                > first["server_timing"]["infer_ms"]
            )
        with pytest.raises(websockets.exceptions.InvalidStatus) as caught:
            connect(server)  # several are hosted, none is named
        assert caught.value.response.status_code == 404
        assert b"POLICY_REQUIRED" in caught.value.response.body


def test_the_default_prompt_is_used_where_none_is_sent(tmp_path):
    text = config_text("pi0_aloha_towel_tiny", **SLOW)
    observation = aloha()
    del observation["prompt"]
    with serving(write_config(tmp_path, text), ON) as server:
        assert connect(server).infer(observation)["actions"].shape[1] == 14


def test_openpis_broker_hands_out_the_chunk_step_by_step(blind_server):
    observation = libero()
    policy = connect(blind_server)
    chunk = policy.infer(observation)["actions"]
    broker = ActionChunkBroker(policy, action_horizon=5)
    for step in (0, 1, 2, 3, 4, 0):
        action = broker.infer(observation)["actions"]
        np.testing.assert_array_equal(action, chunk[step])


def test_each_of_many_clients_gets_its_own_answers(blind_server):
    grid = [libero(np.full(8, k / 64)) for k in range(24)]
    alone = connect(blind_server)
    want = [alone.infer(observation)["actions"] for observation in grid]
    assert len({chunk.tobytes() for chunk in want}) == len(grid)
    waves = total(blind_server, "piserve_batch_rows_count")
    rows = total(blind_server, "piserve_batch_rows_sum")

    def robot(index):
        policy = connect(blind_server)
        for turn in range(10):
            k = (5 * index + 7 * turn) % len(grid)
            actions = policy.infer(grid[k])["actions"]
            np.testing.assert_array_equal(actions, want[k])

    in_threads(12, robot)
    rows = total(blind_server, "piserve_batch_rows_sum") - rows
    waves = total(blind_server, "piserve_batch_rows_count") - waves
    assert rows == 120
    assert waves < rows, "no two connections shared a wave"


def test_requests_count_beside_grpcs(blind_server):
    before = metrics(blind_server.get("/metrics"))[ANSWERED]
    policy = connect(blind_server)
    policy.infer(libero())
    with PolicyClient(blind_server.addresses.public) as client:
        client.infer(libero())
    wait_until(
        lambda: metrics(blind_server.get("/metrics"))[ANSWERED] == before + 1
    )
    assert total(blind_server, "piserve_websocket_connections") >= 1
    assert total(blind_server, "piserve_inflight_requests") == 0


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


def test_recorded_observations_are_taken(blind_server):
    """What openpi's own client sent when the goldens were recorded."""
    policy = connect(blind_server)
    for recording in recorded.load("pi05_libero").recordings:
        actions = policy.infer(recording.observation)["actions"]
        assert actions.shape == (10, 7)
