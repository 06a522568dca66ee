# SPDX-License-Identifier: Apache-2.0
"""Clients that lie, lag, leave or say nothing, beside robots that work.

The clients get a clear error, no slot is lost, and no other robot is hurt: one
on each wire is served all the while, and each of its answers is held against
the one that it got before.
"""

import contextlib
import hashlib
import socket
import threading

import grpc
import images
import numpy as np
import piserve
import pytest
from openpi_client import msgpack_numpy
from piserve import PolicyClient
from piserve._proto import policy_pb2
from piserve.observations import observation_request
from serving import SERVICE, RawClient, Refusal, serving, total, wait_until
from websocket_front import connect_raw

INVALID = grpc.StatusCode.INVALID_ARGUMENT
SILENT = 20  # connections


def observation(seed):
    random = np.random.default_rng(seed)
    return {
        "observation/image": random.integers(0, 256, (48, 64, 3), np.uint8),
        "observation/wrist_image": random.integers(0, 256, (9, 7, 3), np.uint8),
        "observation/state": random.random(8),
        "prompt": "put the red block on the pad",
    }


class Robot:
    """Asks again and again, and notes what is wrong with an answer."""

    def __init__(self, infer):
        self._infer = infer
        self._grid = [observation(seed) for seed in range(4)]
        self._want = [self._infer(obs) for obs in self._grid]
        assert len({want.tobytes() for want in self._want}) == len(self._want)
        self.answers = 0
        self.faults = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self):
        while not self._over.is_set() and not self.faults:
            index = self.answers % len(self._grid)
            try:
                got = self._infer(self._grid[index])
            except Exception as error:
                self.faults.append(repr(error))
                return
            if not np.array_equal(got, self._want[index]):
                self.faults.append(f"answer {self.answers} is not its own")
            self.answers += 1

    def stop(self):
        self._over.set()
        self._thread.join()


class Relay:
    """Passes bytes on to an address until it is cut, as a network may be."""

    def __init__(self, address):
        host, port = address.split(":")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._there = socket.create_connection((host, int(port)))
        self._here = None
        threading.Thread(target=self._serve, daemon=True).start()

    def cut(self):
        for end in filter(None, (self._listener, self._there, self._here)):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _serve(self):
        try:
            self._here, _ = self._listener.accept()
        except OSError:
            return  # cut before anybody came
        threading.Thread(
            target=self._pump, args=(self._there, self._here), daemon=True
        ).start()
        self._pump(self._here, self._there)

    @staticmethod
    def _pump(source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)


def assert_nothing_left(server):
    """Every request has its answer, and no row or byte is held."""
    wait_until(lambda: total(server, "piserve_inflight_requests") == 0)
    received = total(server, "piserve_requests_received_total")
    assert received == total(server, "piserve_requests_completed_total")
    assert total(server, "piserve_queue_rows") == 0
    assert total(server, "piserve_queue_bytes") == 0


@pytest.fixture(scope="module")
def server():
    with serving(
        "--websocket_address=127.0.0.1:0",
        "--policy=blind",
        "--predicted_limit=30s",
        program="piserve_test_server",
    ) as process:
        yield process


@pytest.fixture
def robots(server):
    """One on each wire; both must go on and be served right to the end."""
    with (
        PolicyClient(
            server.addresses.public, robot_id="good", timeout=30
        ) as client,
        connect_raw(server, timeout=20) as wire,
    ):

        def over_websocket(obs):
            wire.send(msgpack_numpy.packb(obs))
            answer = wire.recv(timeout=30)
            assert not isinstance(answer, str), answer
            return msgpack_numpy.unpackb(answer)["actions"]

        working = [
            Robot(lambda obs: client.infer(obs)["actions"]),
            Robot(over_websocket),
        ]
        try:
            yield working
            before = [robot.answers for robot in working]
            wait_until(
                lambda: all(
                    robot.faults or robot.answers > then + 3
                    for robot, then in zip(working, before, strict=True)
                )
            )
        finally:
            for robot in working:
                robot.stop()
    assert [robot.faults for robot in working] == [[], []]
    assert_nothing_left(server)


@pytest.fixture
def raw(server):
    with RawClient(server.addresses.public) as client:
        yield client


@pytest.fixture
def request_message(raw):
    return observation_request(observation(9), raw.info().policies[0])


# ---------------------------------------------------------------------- liars

PICTURE = np.zeros((48, 64, 3), np.uint8)


def renamed(request):
    request.images[1].name = "observation/exterior_image_1_left"


def doubled(request):
    request.images[1].name = request.images[0].name


def left_out(request):
    del request.images[1]


def larger_than_sent(request):
    request.images[0].width *= 2


def another_format(request):
    request.images[0].encoding = policy_pb2.IMAGE_ENCODING_PNG


def lying_header(request):
    first = request.images[0]
    first.encoding = policy_pb2.IMAGE_ENCODING_JPEG
    first.width = first.height = 0
    first.data = images.jpeg_resized(images.jpeg(PICTURE), 640, 480)


LIES = [
    renamed,
    doubled,
    left_out,
    larger_than_sent,
    another_format,
    lying_header,
]


def test_lies_about_cameras_are_told_over_grpc(robots, raw, request_message):
    for lie in LIES * 5:
        spoiled = policy_pb2.ObservationRequest()
        spoiled.CopyFrom(request_message)
        lie(spoiled)
        answer = raw.infer(spoiled)
        assert isinstance(answer, Refusal), f"{lie.__name__}: actions came"
        assert answer.code == INVALID, answer
        assert "images" in answer.field, answer


def without(key):
    obs = observation(9)
    del obs[key]
    return obs


def lying_array(shape):
    """An array that says another shape than its bytes have."""
    packed = msgpack_numpy.packb(observation(9))
    true = msgpack_numpy.packb([48, 64, 3])
    assert packed.count(true) == 1
    return packed.replace(true, msgpack_numpy.packb(shape))


def test_lies_about_cameras_are_told_over_the_websocket(robots, server):
    jpeg = images.jpeg_resized(images.jpeg(PICTURE), 640, 480)
    lies = {
        "CAMERA_MISSING": msgpack_numpy.packb(
            without("observation/wrist_image")
        ),
        "BAD_ARRAY": lying_array([96, 64, 3]),
        "IMAGE": msgpack_numpy.packb(
            {**observation(9), "observation/image": jpeg}
        ),
    }
    with connect_raw(server, timeout=20) as wire:
        for reason, frame in list(lies.items()) * 5:
            wire.send(frame)
            answer = wire.recv(timeout=20)
            assert isinstance(answer, str), f"{reason}: actions came"
            assert answer.startswith("INVALID_ARGUMENT ("), answer
            assert reason in answer.split(":")[0], answer
        # openpi drops keys that its policy does not use; so do we.
        more = {**observation(9), "observation/back_image": PICTURE}
        wire.send(msgpack_numpy.packb(more))
        assert "actions" in msgpack_numpy.unpackb(wire.recv(timeout=20))


# -------------------------------------------------------------------- laggards


def test_stale_observations_are_told(robots, raw, request_message):
    """openpi's wire carries no age, so this is of gRPC alone."""
    request_message.age_us = 300_000
    request_message.max_age_us = 200_000
    for _ in range(10):
        answer = raw.infer(request_message)
        assert answer.code == grpc.StatusCode.ABORTED, answer
        assert answer.reason == "TOO_OLD"


# --------------------------------------------------------------------- leavers


def test_clients_that_leave_hurt_nobody(robots, server, request_message):
    """Channels that are closed, and connections that are cut, both with a
    request under way."""
    message = policy_pb2.InferRequest(observation=request_message)
    frame = msgpack_numpy.packb(observation(9))
    for _ in range(10):
        relay = Relay(server.addresses.public)
        for address, leave in (
            (server.addresses.public, lambda: None),
            (relay.address, relay.cut),
        ):
            channel = grpc.insecure_channel(address)
            infer = channel.unary_unary(f"{SERVICE}Infer")
            call = infer.future(message.SerializeToString(), timeout=30)
            leave()
            call.cancel()
            channel.close()
        wire = connect_raw(server, timeout=20)
        wire.send(frame)
        wire.socket.shutdown(socket.SHUT_RDWR)


def test_clients_that_leave_lose_no_slot_over_grpc(tmp_path):
    """More of them than a client may have rows waiting, while none is served;
    tests/end_to_end/websocket_front_test.py has the same for the websocket. One
    half cancels, of the other the connection is cut."""
    stall = tmp_path / "stall"
    with serving(
        "--policy=blind",
        "--rows_per_client=8",
        "--max_rows=1",
        "--predicted_limit=10m",
        f"--stall_file={stall}",
        program="piserve_test_server",
    ) as server:
        address = server.addresses.public
        with RawClient(address) as client:
            info = client.info().policies[0]
        message = policy_pb2.InferRequest(
            observation=observation_request(observation(9), info)
        )
        received = "piserve_requests_received_total"
        stall.touch()
        for sent in range(1, 17):
            relay = Relay(address)
            channel = grpc.insecure_channel(relay.address)
            infer = channel.unary_unary(f"{SERVICE}Infer")
            call = infer.future(message.SerializeToString(), timeout=30)
            wait_until(
                lambda sent=sent: (
                    total(server, received, 'method="Infer"') == sent
                )
            )
            if sent % 2:
                relay.cut()
            call.cancel()
            channel.close()
            relay.cut()
            # Two waves are being computed: their rows cannot be cancelled.
            wait_until(lambda: total(server, "piserve_inflight_requests") <= 2)
        stall.unlink()
        assert_nothing_left(server)
        completed = "piserve_requests_completed_total"
        assert total(server, completed, 'code="CANCELLED"') >= 14
        assert total(server, "piserve_requests_rejected_total") == 0
        with PolicyClient(address, timeout=30) as client:
            assert client.infer(observation(9))["actions"].shape == (10, 7)


# -------------------------------------------------------------- silent clients


def connect_socket(address):
    host, port = address.split(":")
    return socket.create_connection((host, int(port)))


def test_clients_that_send_nothing_hurt_nobody(robots, server):
    """Connections without a byte on both wires; streams without a message;
    websockets without a frame."""
    with contextlib.ExitStack() as held:
        for _ in range(SILENT):
            for name in ("public", "websocket"):
                address = getattr(server.addresses, name)
                held.enter_context(connect_socket(address))
            held.enter_context(connect_raw(server, timeout=20))
            channel = held.enter_context(
                grpc.insecure_channel(server.addresses.public)
            )
            stream = channel.stream_stream(f"{SERVICE}InferStream")
            wait = threading.Event()
            held.callback(wait.set)
            stream((_ for _ in iter(wait.wait, True)), timeout=60)
        wait_until(
            lambda: total(server, "piserve_websocket_connections") > SILENT
        )
        before = [robot.answers for robot in robots]
        wait_until(
            lambda: all(
                robot.answers > then + 5 or robot.faults
                for robot, then in zip(robots, before, strict=True)
            )
        )
    wait_until(lambda: total(server, "piserve_websocket_connections") <= 1)


def test_a_stream_that_says_nothing_ends_well(robots, raw):
    assert raw.stream([]) == {}


def test_empty_requests_are_told_on_both_wires(robots, raw, server):
    for _ in range(5):
        answer = raw.infer(b"")
        assert (answer.code, bool(answer.field)) == (INVALID, True), answer
    with connect_raw(server, timeout=20) as wire:
        for _ in range(5):
            wire.send(b"")
            assert wire.recv(timeout=20).startswith("INVALID_ARGUMENT (")


# -------------------------------------------------------- the robot's own side


def test_a_pinned_normalisation_is_compared_with_the_servers(server):
    address = server.addresses.public
    with PolicyClient(address) as client:
        checksum = client.policy_info().preprocessing_checksum
    assert len(checksum) == 64
    with PolicyClient(address, preprocessing_checksum=checksum) as client:
        client.policy_info()
    other = hashlib.sha256(b"other statistics").hexdigest()
    with (
        PolicyClient(address, preprocessing_checksum=other) as client,
        pytest.raises(piserve.PolicyMismatch, match="normalises by"),
    ):
        client.infer(observation(9))
