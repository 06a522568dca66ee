# SPDX-License-Identifier: Apache-2.0
"""LatestOnly with a policy that the test answers for and a clock it moves."""

import queue
import threading
import time

import piserve
import pytest
from fake_server import FakeServer, libero_info, observation, serving
from piserve import LatestOnly, PolicyClient

SOON = 20.0  # seconds that pass only where the test fails


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Call:
    def __init__(self, obs, options):
        self.obs, self.options = obs, options
        self._outcome = queue.Queue()

    def answer(self):
        self._outcome.put(lambda: {"actions": self.obs})

    def fail(self, error):
        def fail():
            raise error

        self._outcome.put(fail)

    def wait(self):
        return self._outcome.get(timeout=SOON)()


class Puppet:
    """A policy whose every request waits until the test answers it."""

    def __init__(self):
        self._calls = queue.Queue()

    def infer(self, obs, **options):
        call = Call(obs, options)
        self._calls.put(call)
        return call.wait()

    def next_call(self):
        return self._calls.get(timeout=SOON)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def puppet():
    return Puppet()


@pytest.fixture
def latest(puppet, clock):
    with LatestOnly(puppet, max_age=0.5, clock=clock) as made:
        yield made


@pytest.fixture
def two_at_a_time(puppet, clock):
    with LatestOnly(puppet, max_age=0.5, in_flight=2, clock=clock) as made:
        yield made


def actions(latest):
    """Of the newest chunk; waits for it."""
    return latest.newest(SOON).reply["actions"]


def sent_and_answered(latest, puppet, obs):
    """Gives an observation, which must be sent next, and answers it."""
    latest.observe(obs)
    call = puppet.next_call()
    assert call.obs == obs
    call.answer()


# -------------------------------------------------------------- what is sent


def test_the_newest_observation_is_sent_and_those_between_never(latest, puppet):
    latest.observe("a")
    first = puppet.next_call()
    for name in "bcd":
        latest.observe(name)
    first.answer()
    second = puppet.next_call()
    assert (first.obs, second.obs) == ("a", "d")
    second.answer()
    assert actions(latest) in ("a", "d")


def test_an_observation_captured_before_one_already_given_is_dropped(
    latest, puppet, clock
):
    latest.observe("a")
    busy = puppet.next_call()
    latest.observe("new", captured_at=clock.now)
    latest.observe("old", captured_at=clock.now - 0.1)
    busy.answer()
    call = puppet.next_call()
    assert call.obs == "new"
    call.answer()


def test_age_and_deadline_count_from_the_capture(latest, puppet, clock):
    latest.observe("a", captured_at=clock.now - 0.125)
    call = puppet.next_call()
    assert call.options == {"age": 0.125, "timeout": 0.375, "attempts": 1}
    call.answer()


def test_an_observation_that_grew_too_old_is_not_sent(latest, puppet, clock):
    latest.observe("a")
    busy = puppet.next_call()
    latest.observe("b")
    clock.now += 0.5
    busy.answer()
    with pytest.raises(piserve.StaleObservation) as caught:
        while latest.newest(SOON):
            pass
    assert caught.value.reason == "TOO_OLD_AT_CLIENT"
    sent_and_answered(latest, puppet, "c")
    assert actions(latest) == "c"


def test_an_observation_of_the_future_is_refused(latest, clock):
    with pytest.raises(ValueError, match="after now"):
        latest.observe("a", captured_at=clock.now + 1)
    with pytest.raises(ValueError, match="after now"):
        latest.observe("a", captured_at=float("nan"))


# -------------------------------------------------------- what is handed out


def test_a_chunk_is_handed_out_once_with_its_age(latest, puppet, clock):
    assert latest.newest() is None
    captured = clock.now
    latest.observe("a")
    call = puppet.next_call()
    clock.now += 0.25
    call.answer()
    chunk = latest.newest(SOON)
    assert chunk.reply == {"actions": "a"}
    assert (chunk.captured_at, chunk.age) == (captured, 0.25)
    assert latest.newest() is None


def test_only_the_newest_of_several_chunks_is_handed_out(latest, puppet):
    sent_and_answered(latest, puppet, "a")
    sent_and_answered(latest, puppet, "b")
    latest.observe("c")
    call = puppet.next_call()  # so b's answer has been filed
    assert actions(latest) == "b"
    assert latest.newest() is None
    call.answer()


def test_a_chunk_older_than_the_last_handed_out_is_never_handed_out(
    two_at_a_time, puppet
):
    latest = two_at_a_time
    latest.observe("a")
    slow = puppet.next_call()
    sent_and_answered(latest, puppet, "b")
    assert actions(latest) == "b"
    slow.answer()
    both = []
    for name in "cd":  # both requesters work on, so a's answer was filed
        latest.observe(name)
        both.append(puppet.next_call())
    assert latest.newest() is None
    for call in both:
        call.answer()


def test_an_older_chunk_does_not_replace_one_that_waits(two_at_a_time, puppet):
    latest = two_at_a_time
    latest.observe("a")
    slow = puppet.next_call()
    sent_and_answered(latest, puppet, "b")
    latest.observe("c")
    idle = puppet.next_call()  # b's answer was filed
    slow.answer()
    latest.observe("d")
    other = puppet.next_call()  # a's was
    assert actions(latest) == "b"
    idle.answer()
    other.answer()


@pytest.mark.parametrize(("age", "handed"), [(0.5, True), (0.501, False)])
def test_a_chunk_older_than_the_limit_is_never_handed_out(
    latest, puppet, clock, age, handed
):
    sent_and_answered(latest, puppet, "a")
    latest.observe("b")
    call = puppet.next_call()  # a's answer was filed
    clock.now += age
    assert (latest.newest() is not None) == handed
    assert latest.newest() is None
    call.fail(RuntimeError())


def test_an_expired_chunk_does_not_end_the_wait_for_a_newer_one(
    latest, puppet, clock
):
    sent_and_answered(latest, puppet, "a")
    latest.observe("b")
    busy = puppet.next_call()  # a's answer was filed
    clock.now += 0.501
    start = time.monotonic()
    assert latest.newest(0.1) is None
    assert time.monotonic() - start >= 0.1
    busy.answer()  # too late as well
    sent_and_answered(latest, puppet, "c")
    assert actions(latest) == "c"


def test_nothing_of_before_a_reset_is_handed_out(latest, puppet):
    sent_and_answered(latest, puppet, "a")
    latest.observe("b")
    under_way = puppet.next_call()
    latest.observe("c")
    latest.reset()
    assert latest.newest() is None
    under_way.answer()
    sent_and_answered(latest, puppet, "d")
    assert actions(latest) == "d"


# ------------------------------------------------------------------- errors


def test_an_error_is_raised_once_and_the_next_observation_asks_again(
    latest, puppet
):
    latest.observe("a")
    puppet.next_call().fail(piserve.DeadlineExceeded("late"))
    with pytest.raises(piserve.DeadlineExceeded):
        latest.newest(SOON)
    assert latest.newest() is None
    sent_and_answered(latest, puppet, "b")
    assert actions(latest) == "b"


def test_a_chunk_goes_before_the_error_of_a_newer_request(latest, puppet):
    sent_and_answered(latest, puppet, "a")
    latest.observe("b")
    puppet.next_call().fail(KeyError("a bug"))
    latest.observe("c")
    call = puppet.next_call()  # b's error was filed
    assert actions(latest) == "a"
    with pytest.raises(KeyError):
        latest.newest()
    call.answer()


def test_an_older_chunk_does_not_take_a_newer_error_away(two_at_a_time, puppet):
    latest = two_at_a_time
    latest.observe("a")
    slow = puppet.next_call()
    latest.observe("b")
    puppet.next_call().fail(piserve.PolicyFailure("broken"))
    latest.observe("c")
    idle = puppet.next_call()  # b's error was filed
    slow.answer()
    latest.observe("d")
    other = puppet.next_call()  # a's answer was
    assert actions(latest) == "a"
    with pytest.raises(piserve.PolicyFailure):
        latest.newest()
    idle.answer()
    other.answer()


def test_a_newer_chunk_takes_an_older_error_away(latest, puppet):
    latest.observe("a")
    puppet.next_call().fail(piserve.PolicyFailure("broken"))
    sent_and_answered(latest, puppet, "b")
    latest.observe("c")
    call = puppet.next_call()
    assert actions(latest) == "b"
    assert latest.newest() is None
    call.answer()


def test_an_error_is_no_news_while_a_newer_request_is_under_way(
    two_at_a_time, puppet
):
    latest = two_at_a_time
    latest.observe("a")
    superseded = puppet.next_call()
    latest.observe("b")
    newer = puppet.next_call()
    superseded.fail(piserve.StaleObservation("superseded"))
    latest.observe("c")
    third = puppet.next_call()
    assert latest.newest() is None
    newer.answer()
    assert actions(latest) == "b"
    third.answer()


def test_after_a_refusal_the_newest_observation_is_asked_about(latest, puppet):
    latest.observe("a")
    puppet.next_call().fail(piserve.QueueFull("full", retry_after=0.5))
    with pytest.raises(piserve.QueueFull):
        latest.newest(SOON)
    for name in "bc":
        latest.observe(name)  # during the pause
    call = puppet.next_call()
    assert call.obs == "c"
    call.answer()


def test_closing_does_not_wait_out_a_pause(puppet, clock):
    latest = LatestOnly(puppet, max_age=0.5, clock=clock)
    latest.observe("a")
    puppet.next_call().fail(piserve.QueueFull("full", retry_after=3600.0))
    with pytest.raises(piserve.QueueFull):
        latest.newest(SOON)
    latest.close()


def test_a_closed_one_takes_and_gives_nothing(puppet, clock):
    latest = LatestOnly(puppet, max_age=0.5, clock=clock)
    latest.observe("a")
    call = puppet.next_call()
    closing = threading.Thread(target=latest.close)
    closing.start()
    call.answer()
    closing.join(SOON)
    assert latest.newest(SOON) is None
    with pytest.raises(RuntimeError, match="closed"):
        latest.observe("b")


@pytest.mark.parametrize(
    "options",
    [
        {"max_age": 0},
        {"max_age": float("inf")},
        {"max_age": float("nan")},
        {"max_age": 1e12},
        {"max_age": 1, "in_flight": 0},
    ],
)
def test_limits_that_are_none_are_refused(puppet, options):
    with pytest.raises(ValueError):
        LatestOnly(puppet, **options)


# ------------------------------------------------------------ over the network


def test_a_client_is_such_a_policy():
    server = FakeServer([libero_info()])
    with (
        serving(server) as address,
        PolicyClient(address) as client,
        LatestOnly(client, max_age=30.0) as latest,
    ):
        client.policy_info()
        latest.observe(observation())
        chunk = latest.newest(SOON)
    assert chunk.reply["actions"].shape == (4, 7)
    assert chunk.reply["client_timing"]["attempts"] == 1
    assert 0 < chunk.age < 30
    assert 0 < server.times_left[0] <= 30.1


def test_a_client_refuses_another_robot_through_it():
    server = FakeServer([libero_info()])
    with (
        serving(server) as address,
        PolicyClient(address, robot=piserve.ALOHA) as client,
        LatestOnly(client, max_age=30.0) as latest,
    ):
        latest.observe(observation())
        with pytest.raises(piserve.PolicyMismatch):
            latest.newest(SOON)
    assert server.requests == []
