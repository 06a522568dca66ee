# SPDX-License-Identifier: Apache-2.0
"""When PolicyClient asks a second time, and what it makes of a refusal."""

import time

import grpc
import piserve
import pytest
from fake_server import observation, refuse

CANCELLED = grpc.StatusCode.CANCELLED
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND


def test_unavailable_is_retried_once(client, server):
    server.script = [refuse(UNAVAILABLE, reason="WARMING_UP", retry_after=0.05)]
    reply = client.infer(observation())
    assert reply["client_timing"]["attempts"] == 2
    first, second = server.requests
    assert first.request_id == second.request_id
    assert second.age_us >= first.age_us + 50_000  # it grew older meanwhile


def test_a_call_that_a_server_dropped_as_it_stopped_is_retried(client, server):
    server.script = [refuse(CANCELLED)]
    assert client.infer(observation())["client_timing"]["attempts"] == 2
    server.script = [refuse(CANCELLED)] * 2
    with pytest.raises(piserve.PolicyUnavailable) as caught:
        client.infer(observation())
    assert caught.value.code == UNAVAILABLE


def test_unavailable_twice_is_an_error(client, server):
    server.script = [
        refuse(UNAVAILABLE, reason="DRAINING", retry_after=0.0)
    ] * 3
    with pytest.raises(piserve.PolicyUnavailable) as caught:
        client.infer(observation())
    assert caught.value.reason == "DRAINING"
    assert caught.value.retry_after == 0.0
    assert len(server.requests) == 2


def test_full_queue_with_retry_info_is_retried_after_the_pause(client, server):
    server.script = [refuse(EXHAUSTED, reason="QUEUE_FULL", retry_after=0.15)]
    start = time.monotonic()
    client.infer(observation())
    assert time.monotonic() - start >= 0.15
    assert len(server.requests) == 2


def test_pushback_wins_over_retry_info(client, server):
    server.script = [
        refuse(
            EXHAUSTED, reason="QUEUE_FULL", retry_after=60.0, pushback_ms="10"
        )
    ]
    client.infer(observation())
    assert len(server.requests) == 2


def test_full_queue_without_retry_info_is_not_retried(client, server):
    server.script = [refuse(EXHAUSTED, reason="QUEUE_FULL", pushback_ms="10")]
    with pytest.raises(piserve.QueueFull):
        client.infer(observation())
    assert len(server.requests) == 1


def test_unavailable_obeys_a_pushback_without_retry_info(client, server):
    server.script = [refuse(UNAVAILABLE, reason="LOST", pushback_ms="600")]
    start = time.monotonic()
    client.infer(observation())
    assert time.monotonic() - start >= 0.6
    assert len(server.requests) == 2


@pytest.mark.parametrize("pushback", ["-1", "soon"])
def test_negative_or_unreadable_pushback_means_never(client, server, pushback):
    server.script = [
        refuse(UNAVAILABLE, reason="DRAINING", pushback_ms=pushback)
    ]
    with pytest.raises(piserve.PolicyUnavailable):
        client.infer(observation())
    assert len(server.requests) == 1


def test_a_pause_longer_than_the_timeout_is_not_waited_for(client, server):
    server.script = [refuse(EXHAUSTED, reason="QUEUE_FULL", retry_after=9.0)]
    start = time.monotonic()
    with pytest.raises(piserve.QueueFull) as caught:
        client.infer(observation(), timeout=2.0)
    assert time.monotonic() - start < 2
    assert caught.value.retry_after == 9.0
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (INVALID, piserve.InvalidObservation),
        (grpc.StatusCode.NOT_FOUND, piserve.PolicyNotFound),
        (grpc.StatusCode.FAILED_PRECONDITION, piserve.PolicyMismatch),
        (grpc.StatusCode.UNAUTHENTICATED, piserve.NotAllowed),
        (grpc.StatusCode.PERMISSION_DENIED, piserve.NotAllowed),
        (grpc.StatusCode.DEADLINE_EXCEEDED, piserve.DeadlineExceeded),
        (grpc.StatusCode.ABORTED, piserve.StaleObservation),
        (CANCELLED, piserve.PolicyFailure),
        (grpc.StatusCode.INTERNAL, piserve.PolicyFailure),
        (grpc.StatusCode.UNKNOWN, piserve.PolicyFailure),
    ],
)
def test_other_statuses_are_typed_and_never_retried(client, server, code, kind):
    server.script = [refuse(code, reason="WHY", retry_after=0.01)]
    with pytest.raises(kind) as caught:
        client.infer(observation())
    assert caught.value.code == code
    assert caught.value.reason == "WHY"
    assert caught.value.metadata == {"predicted_us": "7"}
    assert len(server.requests) == 1


def test_bad_request_names_the_field(client, server):
    server.script = [refuse(INVALID, reason="STATE", field="state[3]")]
    with pytest.raises(piserve.InvalidObservation) as caught:
        client.infer(observation())
    assert caught.value.field == "state[3]"
    assert str(caught.value) == "state[3]: got 3, want 8 [STATE]"


def test_a_description_that_names_its_field_names_it_once(client, server):
    server.script = [
        refuse(
            INVALID,
            reason="PROMPT_TOO_LONG",
            field="prompt",
            description="prompt: got 2000 bytes, want at most 1024",
        )
    ]
    with pytest.raises(piserve.InvalidObservation) as caught:
        client.infer(observation())
    assert caught.value.field == "prompt"
    want = "prompt: got 2000 bytes, want at most 1024 [PROMPT_TOO_LONG]"
    assert str(caught.value) == want


def test_grpcs_own_size_refusal_is_not_a_full_queue(client, server):
    server.script = [refuse(EXHAUSTED)]
    with pytest.raises(piserve.MessageTooLarge):
        client.infer(observation())
    assert len(server.requests) == 1
