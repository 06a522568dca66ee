# SPDX-License-Identifier: Apache-2.0
"""AsyncPolicyClient keeps PolicyClient's contract."""

import asyncio
import inspect
import threading
import time

import grpc
import numpy as np
import piserve
import pytest
from fake_server import (
    FakeServer,
    Held,
    libero_info,
    observation,
    refuse,
    serving,
)
from piserve import DROID, PolicyClient
from piserve.aio import AsyncPolicyClient

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


def with_client(server, work, **options):
    """What `work(client)` returns, awaited against a running server."""

    async def run(address):
        async with AsyncPolicyClient(address, **options) as client:
            return await work(client)

    with serving(server) as address:
        return asyncio.run(run(address))


@pytest.fixture
def server():
    return FakeServer([libero_info()])


def test_methods_and_arguments_are_those_of_the_other_client():
    for name in ("__init__", "infer", "reset", "policy_info"):
        ours = inspect.signature(getattr(AsyncPolicyClient, name))
        theirs = inspect.signature(getattr(PolicyClient, name))
        assert list(ours.parameters.values()) == list(
            theirs.parameters.values()
        )


def test_the_answer_is_that_of_the_other_client(server):
    reply = with_client(server, lambda c: c.infer(observation(), seed=9))
    with serving(server) as address, PolicyClient(address) as client:
        other = client.infer(observation(), seed=9)
    assert reply.keys() == other.keys()
    np.testing.assert_array_equal(reply["actions"], other["actions"])
    assert server.requests[0].seed == server.requests[1].seed == 9


def test_a_misfit_is_refused_before_an_observation_is_sent(server):
    with pytest.raises(piserve.PolicyMismatch):
        with_client(server, lambda c: c.infer(observation()), robot=DROID)
    assert server.requests == []


def test_the_same_policy_under_another_name_is_found(server):
    async def work(client):
        await client.infer(observation())
        server.infos = [libero_info("renamed")]
        with pytest.raises(piserve.PolicyNotFound):
            await client.infer(observation())
        return await client.infer(observation())

    assert with_client(server, work)["policy"] == "renamed"


def test_every_call_carries_a_deadline(server):
    async def work(client):
        await client.infer(observation())
        await client.infer(observation(), timeout=1.0)

    with_client(server, work, timeout=3.0)
    slack = 0.1  # gRPC rounds the time up on the wire
    assert 1.0 + slack < server.times_left[0] <= 3.0 + slack
    assert 0 < server.times_left[1] <= 1.0 + slack


def test_many_calls_are_awaited_at_a_time(server):
    together = threading.Barrier(4)

    def echo(self, request, context):
        together.wait(10)  # passes only if all four are in flight
        response = self.answer(request, context)
        value = np.full((4, 7), request.state[0], "<f4")
        response.result.actions.data = value.tobytes()
        return response

    async def work(client):
        await client.policy_info()
        states = [np.full(8, float(index)) for index in range(4)]
        return await asyncio.gather(
            *(
                client.infer(observation(**{"observation/state": state}))
                for state in states
            )
        )

    server.script = [echo] * 4
    for index, reply in enumerate(with_client(server, work)):
        assert (reply["actions"] == index).all()


def test_unavailable_and_a_full_queue_are_retried_once(server):
    server.script = [
        refuse(UNAVAILABLE, reason="WARMING_UP", retry_after=0.05),
        FakeServer.answer,
        refuse(EXHAUSTED, reason="QUEUE_FULL", retry_after=0.05),
        FakeServer.answer,
        refuse(grpc.StatusCode.CANCELLED),  # by a server that stops
    ]

    async def work(client):
        return [
            (await client.infer(observation()))["client_timing"]["attempts"]
            for _ in range(3)
        ]

    assert with_client(server, work) == [2, 2, 2]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, piserve.InvalidObservation),
        (grpc.StatusCode.UNAUTHENTICATED, piserve.NotAllowed),
        (grpc.StatusCode.ABORTED, piserve.StaleObservation),
        (grpc.StatusCode.INTERNAL, piserve.PolicyFailure),
    ],
)
def test_errors_are_typed_with_their_details(server, code, kind):
    server.script = [refuse(code, reason="WHY", field="state[3]")]
    with pytest.raises(kind) as caught:
        with_client(server, lambda c: c.infer(observation()))
    assert (caught.value.code, caught.value.reason) == (code, "WHY")
    assert caught.value.field == "state[3]"
    assert len(server.requests) == 1


def test_no_answer_in_time_raises_deadline_exceeded(server):
    held = Held()

    async def work(client):
        await client.policy_info()
        try:
            await client.infer(observation(), timeout=0.2)
        finally:
            held.release.set()

    server.script = [held]
    with pytest.raises(piserve.DeadlineExceeded):
        with_client(server, work)


def test_an_answer_that_the_loop_saw_too_late_is_thrown_away(
    server, monkeypatch
):
    now = time.monotonic
    late = []

    def delivered_late(self, request, context):
        late.append(100.0)  # from here on the client's clock is past
        return self.answer(request, context)

    async def work(client):
        await client.policy_info()
        return await client.infer(observation(), timeout=50.0)

    server.script = [delivered_late]
    monkeypatch.setattr(
        "piserve.calls.time.monotonic", lambda: now() + sum(late)
    )
    with pytest.raises(piserve.DeadlineExceeded) as caught:
        with_client(server, work)
    assert caught.value.reason == "REPLY_TOO_LATE"


def test_a_cancelled_call_is_taken_back(server):
    arrived, gone = threading.Event(), threading.Event()

    def wait(self, request, context):
        context.add_callback(gone.set)
        arrived.set()
        gone.wait(10)
        return self.answer(request, context)

    async def work(client):
        task = asyncio.ensure_future(client.infer(observation()))
        while not arrived.is_set():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(gone.wait, 10), "still asked for"
        assert (await client.infer(observation()))["policy"] == "libero"

    server.script = [wait]
    with_client(server, work, timeout=60.0)


def test_closing_ends_what_is_awaited_as_an_error(server):
    held = Held()

    async def work(client):
        task = asyncio.ensure_future(client.infer(observation()))
        while not held.arrived.is_set():
            await asyncio.sleep(0.01)
        await client.close()
        for awaited in (
            task,
            client.infer(observation()),
            client.wait_until_ready(timeout=1.0),
        ):
            with pytest.raises(piserve.PolicyFailure) as caught:
                await awaited
            assert caught.value.reason == "CLOSED"
        held.release.set()

    server.script = [held]
    with_client(server, work)


def test_closing_ends_a_wait_for_the_server(server):
    async def work(client):
        task = asyncio.ensure_future(client.wait_until_ready(timeout=20.0))
        await asyncio.sleep(0.3)
        await client.close()
        await asyncio.wait_for(task, 10)

    server.ready = False
    with pytest.raises(piserve.PolicyFailure) as caught:
        with_client(server, work)
    assert caught.value.reason == "CLOSED"


def test_reconnects_after_the_server_was_away(server):
    async def work():
        with serving(server) as address:
            client = AsyncPolicyClient(address)
            await client.infer(observation())
        with pytest.raises(piserve.PolicyUnavailable):
            await client.infer(observation(), timeout=5.0)
        with serving(server, address):
            give_up = time.monotonic() + 30
            while True:
                try:
                    await client.infer(observation(), timeout=1.0)
                    break
                except (piserve.PolicyUnavailable, piserve.DeadlineExceeded):
                    assert time.monotonic() < give_up
        await client.close()

    asyncio.run(work())


def test_a_server_on_this_machine_is_asked_past_a_proxy(server, proxy):
    async def work(client):
        await client.infer(observation(), timeout=2.0)

    with_client(server, work, api_key="k-1")
    with pytest.raises(BlockingIOError):  # nobody called
        proxy.accept()


def test_wait_until_ready_gives_up_in_time(server):
    with pytest.raises(piserve.PolicyUnavailable) as caught:
        with_client(server, lambda c: c.wait_until_ready(timeout=0.5))
    assert caught.value.reason == "NOT_READY"
