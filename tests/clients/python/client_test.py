# SPDX-License-Identifier: Apache-2.0
"""PolicyClient against a server whose answers the test decides."""

import math
import threading
import time

import grpc
import numpy as np
import piserve
import pytest
from fake_server import (
    HORIZON,
    NOISE_DIM,
    Held,
    droid_info,
    libero_info,
    observation,
    refuse,
)
from fake_server import serving as serve
from piserve import LIBERO, PolicyClient

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
OF_THE_FAKE = LIBERO._replace(state=None, action=None)


# ------------------------------------------------------------------ the answer


def test_reply_has_the_keys_of_openpi_and_the_way_it_was_made(client):
    reply = client.infer(observation())
    assert reply["actions"].dtype == np.float64
    np.testing.assert_array_equal(
        reply["actions"], np.repeat(np.arange(HORIZON)[:, None], 7, axis=1)
    )
    assert reply["policy_timing"] == {"infer_ms": 4.0}
    assert reply["server_timing"] == {
        "infer_ms": 5.5,  # denoise is a part of gpu
        "decode_ms": 1.5,
        "gpu_ms": 4.0,
        "denoise_ms": pytest.approx(0.009),
    }
    assert reply["client_timing"]["infer_ms"] > 0
    assert reply["client_timing"]["attempts"] == 1
    assert reply["seed"] == 9
    assert reply["policy"] == "libero"
    assert reply["num_steps"] == 10


def test_policy_info_is_asked_for_once(client, server):
    for _ in range(3):
        client.infer(observation())
    assert server.info_calls == 1


def test_policy_info_is_asked_for_again_after_another_model_answered(
    client, server
):
    client.infer(observation())
    server.infos[0].model_digest = "d1"
    client.infer(observation())
    client.infer(observation())
    client.infer(observation())
    assert server.info_calls == 2


@pytest.mark.parametrize(
    "code", [INVALID, NOT_FOUND, PRECONDITION, UNAVAILABLE]
)
def test_policy_info_is_asked_for_again_after_a_refusal(client, server, code):
    client.infer(observation())
    server.script = [refuse(code, reason="WHY", pushback_ms="-1")]
    with pytest.raises(piserve.PolicyError):
        client.infer(observation())
    for _ in range(2):
        client.infer(observation())
    assert server.info_calls == 2


def test_a_full_queue_is_no_reason_to_ask_for_policy_info(client, server):
    client.infer(observation())
    server.script = [refuse(EXHAUSTED, reason="QUEUE_FULL")]
    with pytest.raises(piserve.QueueFull):
        client.infer(observation())
    client.infer(observation())
    assert server.info_calls == 1


def test_the_same_policy_under_another_name_is_found(client, server):
    client.infer(observation())
    server.infos = [libero_info("renamed")]
    with pytest.raises(piserve.PolicyNotFound):
        client.infer(observation())
    assert client.infer(observation())["policy"] == "renamed"


def test_a_policy_that_fits_is_found_in_the_place_of_one_that_did_not(
    client, server
):
    misfit = droid_info()
    misfit.name = "libero"
    server.infos = [misfit]
    with pytest.raises(piserve.InvalidObservation):
        client.infer(observation())
    server.infos = [libero_info()]
    assert client.infer(observation())["policy"] == "libero"
    assert len(server.requests) == 1


def test_another_robots_policy_in_its_place_is_refused(server):
    with (
        serve(server) as address,
        PolicyClient(address, robot=OF_THE_FAKE) as client,
    ):
        client.infer(observation())
        misfit = droid_info()
        misfit.name = "libero"
        server.infos = [misfit]
        server.script = [refuse(INVALID, reason="CAMERA_UNKNOWN")]
        with pytest.raises(piserve.InvalidObservation):
            client.infer(observation())
        with pytest.raises(piserve.PolicyMismatch):
            client.infer(observation())


def test_a_wrong_observation_is_refused_before_it_is_sent(client, server):
    with pytest.raises(piserve.InvalidObservation) as caught:
        client.infer(observation(**{"observation/state": np.zeros(7)}))
    assert caught.value.field == "observation/state"
    assert "got shape [7], want [8]" in str(caught.value)
    assert server.requests == []


def test_noise_seed_and_steps_travel(client, server):
    noise = np.arange(HORIZON * NOISE_DIM, dtype=np.float32)
    noise = noise.reshape(HORIZON, NOISE_DIM)
    client.infer(observation(), noise=noise, num_steps=3)
    client.infer(observation(), noise=noise[np.newaxis])
    client.infer(observation(), seed=2**64 - 1)
    client.infer(observation())
    sent = server.requests
    assert sent[0].num_steps == 3
    assert list(sent[0].noise.shape) == [HORIZON, NOISE_DIM]
    for request in sent[:2]:
        got = np.frombuffer(request.noise.data, "<f4")
        np.testing.assert_array_equal(got, noise.ravel())
    assert sent[2].seed == 2**64 - 1
    assert sent[3].WhichOneof("start") is None
    assert not sent[3].HasField("num_steps")


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"noise": np.zeros((HORIZON, 5), np.float32)}, "noise"),
        ({"noise": [[0.0], [0.0, 1.0]]}, "noise"),
        ({"noise": np.zeros((HORIZON, NOISE_DIM), np.int32)}, "noise"),
        (
            {"noise": np.zeros((HORIZON, NOISE_DIM), "f4"), "seed": 1},
            "noise",
        ),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"num_steps": 0}, "num_steps"),
    ],
)
def test_wrong_arguments_are_refused(client, server, arguments, field):
    with pytest.raises(piserve.InvalidObservation) as caught:
        client.infer(observation(), **arguments)
    assert caught.value.field == field
    assert server.requests == []


def test_context_travels(server):
    with (
        serve(server) as address,
        PolicyClient(
            address,
            robot_id="arm-1",
            supersede_older=True,
            max_age=0.25,
            api_key="k",
            model_digest="d0",
        ) as client,
    ):
        client.infer(observation(), age=0.05)
        client.infer(observation())
    first, second = server.requests
    assert first.robot_id == "arm-1"
    assert first.supersede_older
    assert first.max_age_us == 250_000
    assert 50_000 <= first.age_us < 1_000_000
    assert first.model_digest == "d0"
    assert first.sequence < second.sequence
    assert first.request_id != second.request_id
    assert server.metadata[0]["authorization"] == "Api-Key k"


def test_a_restarted_robots_observations_are_newer_than_those_before(server):
    with serve(server) as address:
        for _ in range(2):
            with PolicyClient(
                address, robot_id="arm-1", supersede_older=True
            ) as client:
                for _ in range(2):
                    client.infer(observation())
    numbers = [request.sequence for request in server.requests]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize(
    "address", ["robots.example:65536", "127.0.0.1:99999", "[::1]:0"]
)
def test_a_port_that_there_is_not_is_refused(address):
    with pytest.raises(ValueError, match="want a port"):
        PolicyClient(address)


@pytest.mark.parametrize(
    "address", ["robots.example", "[::1]:65535", "unix:/run/s:99999"]
)
def test_any_other_address_is_tried(address):
    PolicyClient(address).close()


@pytest.mark.parametrize(
    "address",
    [
        "robots.example:50051",
        "127.evil.invalid:1",
        "127.0.0.1.evil.invalid:1",
        "localhost.evil.invalid:1",
        "localhostile.invalid:1",
        "128.0.0.1:1",
        "[::2]:1",
        "::1:1",  # the address ::1:1, not port 1 of ::1
        "dns:///evil.invalid:1",
        "dns://192.0.2.1/localhost:1",  # as that server resolves it
        "ipv4:127.0.0.1:1,192.0.2.1:1",
        "localhost:1@evil.invalid:1",
    ],
)
def test_api_key_is_not_sent_in_the_clear_over_a_network(address):
    with pytest.raises(ValueError, match="in the clear"):
        PolicyClient(address, api_key="k")


@pytest.mark.parametrize(
    "address",
    ["localhost:1", "127.0.0.1:1", "127.8.9.10", "[::1]:1", "unix:/run/s"],
)
def test_api_key_may_stay_on_this_machine_without_tls(address):
    PolicyClient(address, api_key="k").close()


def test_whitespace_around_an_api_key_is_not_sent(server):
    with (
        serve(server) as address,
        PolicyClient(address, api_key=" k-1\n") as client,
    ):
        client.infer(observation())
    assert server.metadata[0]["authorization"] == "Api-Key k-1"


@pytest.mark.parametrize("key", ["k\n1", "k\x7f", "schl\u00fcssel", "k\u200b"])
def test_an_api_key_that_no_header_takes_is_refused_untold(key):
    with pytest.raises(ValueError, match="printable ASCII") as caught:
        PolicyClient(api_key=key)
    assert key not in str(caught.value)


def test_threads_get_their_own_answers(client, server):
    def echo(self, request, context):
        result = self.result_for(request)
        value = np.full((HORIZON, 7), request.state[0], "<f4")
        result.actions.data = value.tobytes()
        return type(self.answer(request, context))(result=result)

    server.script = [echo] * 40
    wrong = []

    def robot(index):
        for _ in range(5):
            state = np.full(8, float(index))
            reply = client.infer(observation(**{"observation/state": state}))
            if not (reply["actions"] == index).all():
                wrong.append(index)

    threads = [threading.Thread(target=robot, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# -------------------------------------------------------------------- doubt


def _spoiled(change):
    def step(self, request, context):
        response = self.answer(request, context)
        change(response.result)
        return response

    return step


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda r: setattr(r, "request_id", "other"), "REPLY_MISMATCH"),
        (lambda r: r.actions.shape.__setitem__(1, 8), "REPLY_SHAPE"),
        (lambda r: setattr(r.actions, "data", b"abc"), "REPLY_SHAPE"),
        (lambda r: setattr(r.actions, "dtype", 0), "REPLY_SHAPE"),
        (
            lambda r: setattr(
                r.actions,
                "data",
                np.full(HORIZON * 7, np.nan, "<f4").tobytes(),
            ),
            "NOT_FINITE",
        ),
    ],
)
def test_a_reply_in_doubt_drives_no_robot(client, server, change, reason):
    server.script = [_spoiled(change)]
    with pytest.raises(piserve.PolicyFailure) as caught:
        client.infer(observation())
    assert caught.value.reason == reason


# ------------------------------------------------------------------ deadlines


def test_every_call_carries_a_deadline(server):
    with (
        serve(server) as address,
        PolicyClient(address, timeout=3.0) as client,
    ):
        client.infer(observation())
        client.infer(observation(), timeout=1.0)
    slack = 0.1  # gRPC rounds the time up on the wire
    assert 1.0 + slack < server.times_left[0] <= 3.0 + slack
    assert 0 < server.times_left[1] <= 1.0 + slack


def test_no_answer_in_time_raises_deadline_exceeded(client, server):
    held = Held()
    server.script = [held]
    client.policy_info()
    start = time.monotonic()
    with pytest.raises(piserve.DeadlineExceeded) as caught:
        client.infer(observation(), timeout=0.2)
    held.release.set()
    assert time.monotonic() - start < 5
    assert isinstance(caught.value, TimeoutError)


def test_an_answer_after_the_timeout_is_thrown_away(
    client, server, monkeypatch
):
    client.policy_info()
    now = time.monotonic
    late = []

    def delivered_late(self, request, context):
        late.append(100.0)  # from here on the client's clock is past
        return self.answer(request, context)

    server.script = [delivered_late]
    monkeypatch.setattr(
        "piserve.calls.time.monotonic", lambda: now() + sum(late)
    )
    with pytest.raises(piserve.DeadlineExceeded) as caught:
        client.infer(observation(), timeout=50.0)
    assert caught.value.reason == "REPLY_TOO_LATE"


@pytest.mark.parametrize("timeout", [0, -1.0, math.inf, math.nan, 1e12])
def test_a_timeout_that_is_no_time_is_refused(client, timeout):
    want = "timeout: got .* want a finite time above 0"
    with pytest.raises(ValueError, match=want):
        client.infer(observation(), timeout=timeout)
    with pytest.raises(ValueError, match=want):
        client.wait_until_ready(timeout)
    with pytest.raises(ValueError, match=want):
        PolicyClient(timeout=timeout)


def test_the_longest_timeout_is_one_to_grpc(client):
    client.infer(observation(), timeout=1e6)


@pytest.mark.parametrize("max_age", [0, -1.0, math.inf, math.nan, 1e15])
def test_a_max_age_that_is_no_time_is_refused(max_age):
    with pytest.raises(ValueError, match="max_age: got"):
        PolicyClient(max_age=max_age)


@pytest.mark.parametrize("age", [-0.001, math.inf, -math.inf, math.nan, 1e15])
def test_an_age_that_is_no_time_is_refused(client, server, age):
    with pytest.raises(ValueError, match="age: got"):
        client.infer(observation(), age=age)
    assert server.info_calls == 0
