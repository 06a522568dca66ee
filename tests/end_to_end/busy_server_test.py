# SPDX-License-Identifier: Apache-2.0
"""How requests end that a slow, starting or broken server cannot answer.

docs/contract.md, the lower half of "Bad input", over the wire. The server has a
policy whose waves of one row take as long as told.
"""

import contextlib
import threading
import time
import urllib.error

import grpc
import pytest
from piserve._proto import policy_pb2
from piserve.observations import observation_request
from server_process import ServerProcess, metrics
from serving import RawClient, Refusal, binary, serving

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
LONG_US = 20_000_000


class SlowServer:
    """One row a wave, a second each, and a client with an observation."""

    def __init__(self, process, client, observation) -> None:
        self.process = process
        self.client = client
        self._observation = observation
        self._threads = []

    def message(self, request_id, timeout_us=LONG_US, **fields):
        info = self.client.info().policies[0]
        request = observation_request(self._observation, info)
        request.request_id = request_id
        for name, value in fields.items():
            setattr(request, name, value)
        return policy_pb2.InferStreamRequest(
            observation=request, timeout_us=timeout_us
        )

    def occupy(self, requests):
        """Launches that many waves; returns when none waits."""
        before = self.samples("piserve_batch_rows_count")
        for index in range(requests):
            message = self.message(f"occupant-{index}", robot_id=f"o{index}")
            thread = threading.Thread(
                target=self.client.stream, args=([message],)
            )
            thread.start()
            self._threads.append(thread)
        self.wait_for("piserve_batch_rows_count", before + requests)

    def samples(self, name):
        page = metrics(self.process.get("/metrics"))
        return sum(
            value
            for sample, value in page.items()
            if sample.split("{", 1)[0] == name
        )

    def counter(self, sample):
        return metrics(self.process.get("/metrics")).get(sample, 0)

    def wait_for(self, name, value):
        deadline = time.monotonic() + 20
        while self.samples(name) < value:
            assert time.monotonic() < deadline, f"{name} < {value}"
            time.sleep(0.01)

    def finish(self):
        for thread in self._threads:
            thread.join()


@contextlib.contextmanager
def slow_server(libero, *flags):
    with (
        serving(
            "--policy=hash",
            "--max_rows=1",
            "--wave_time=1s",
            "--predicted_limit=20s",
            *flags,
            program="piserve_test_server",
        ) as process,
        RawClient(process.addresses.public) as client,
    ):
        server = SlowServer(process, client, libero.recordings[0].observation)
        yield server
        server.finish()


@pytest.fixture
def slow(libero):
    with slow_server(libero) as server:
        yield server


@pytest.fixture
def hopeful(libero):
    """Predicts a tenth of a millisecond, so that too much is let in."""
    with slow_server(libero, "--predicted_time=100us") as server:
        yield server


# ------------------------------------------------------------------- dropped


def test_newer_observation_supersedes_the_one_that_waits(slow):
    slow.occupy(1)
    answers = slow.client.stream(
        [
            slow.message("old", robot_id="arm", sequence=1),
            slow.message(
                "new", robot_id="arm", sequence=2, supersede_older=True
            ),
            slow.message("other", robot_id="leg", sequence=1),
        ]
    )
    (old,) = answers["old"]
    assert old.code == grpc.StatusCode.ABORTED
    assert old.reason == "SUPERSEDED"
    assert old.retry_after is None
    for name in ("new", "other"):
        (answer,) = answers[name]
        assert not isinstance(answer, Refusal), answer
    dropped = 'piserve_requests_dropped_total{class="control",'
    assert slow.counter(f'{dropped}reason="superseded"}}') == 1


def test_request_expires_in_the_queue(hopeful):
    hopeful.occupy(2)  # one runs, one has the other slot
    answers = hopeful.client.stream(
        [hopeful.message("short", timeout_us=300_000)]
    )
    (short,) = answers["short"]
    assert short.code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert short.reason == "EXPIRED"
    assert hopeful.samples("piserve_batch_rows_count") == 2, "never launched"


def test_answer_that_comes_too_late_is_withheld(hopeful):
    answers = hopeful.client.stream(
        [hopeful.message("short", timeout_us=500_000)]
    )
    (short,) = answers["short"]
    assert short.code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert short.reason == "LATE"
    withheld = 'piserve_outputs_withheld_total{reason="late"}'
    assert hopeful.counter(withheld) == 1


def test_observation_that_grew_too_old_is_not_computed(hopeful):
    hopeful.occupy(2)
    answers = hopeful.client.stream(
        [hopeful.message("stale", max_age_us=200_000)]
    )
    (stale,) = answers["stale"]
    assert stale.code == grpc.StatusCode.ABORTED
    assert stale.reason == "TOO_OLD"
    assert hopeful.samples("piserve_batch_rows_count") == 2, "never launched"


# -------------------------------------------------------------------- refused


def test_deadline_that_cannot_be_met_is_refused_at_once(slow):
    began = time.monotonic()
    answers = slow.client.stream([slow.message("short", timeout_us=900_000)])
    (short,) = answers["short"]
    assert short.code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert short.reason == "DEADLINE_UNREACHABLE"
    assert "1s" in short.message
    assert time.monotonic() - began < 0.9


def test_one_client_may_not_fill_the_queue(libero):
    with slow_server(libero, "--rows_per_client=1") as server:
        server.occupy(1)
        answers = server.client.stream(
            [
                server.message("first", robot_id="arm", sequence=1),
                server.message("second", robot_id="arm", sequence=2),
                server.message("other", robot_id="leg", sequence=1),
            ]
        )
        (second,) = answers["second"]
        assert second.code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert second.reason == "CLIENT_LIMIT"
        assert second.retry_after > 0
        for name in ("first", "other"):
            (answer,) = answers[name]
            assert not isinstance(answer, Refusal), answer


# ------------------------------------------------------------ start and fault


def test_warming_up_is_told_until_the_policy_is_loaded(libero):
    flags = ("--policy=hash", "--load_time=3s")
    with ServerProcess(binary("piserve_test_server"), flags) as process:
        with RawClient(process.addresses.public) as client:
            early = client.infer(policy_pb2.ObservationRequest())
            assert early.code == UNAVAILABLE
            assert early.reason == "WARMING_UP"
            assert early.retry_after > 0
            assert int(early.trailers["grpc-retry-pushback-ms"]) > 0
            # Who names no policy must not take what is loaded for all there is.
            unnamed = client.info()
            assert isinstance(unnamed, Refusal), unnamed
            assert unnamed.reason == "WARMING_UP"
            with pytest.raises(urllib.error.HTTPError, match="503"):
                process.get("/healthz")
            process.wait_until_ready()
            info = client.info().policies[0]
            observation = libero.recordings[0].observation
            served = client.infer(observation_request(observation, info))
            assert not isinstance(served, Refusal), served
        process.stop()


def test_device_fault_turns_requests_away_and_ends_the_server(libero):
    """Promise 6 of docs/contract.md."""
    with slow_server(
        libero, "--wave_time=50ms", "--waves_before_fault=1"
    ) as server:
        (served,) = server.client.stream([server.message("sound")])["sound"]
        assert not isinstance(served, Refusal), served
        message = server.message("struck")
        began = time.monotonic()
        (struck,) = server.client.stream([message])["struck"]
        assert struck.code == UNAVAILABLE
        assert struck.reason == "DEVICE_FAULT"
        assert server.process.wait(5) not in (0, -6, -11)
        assert time.monotonic() - began < 5
