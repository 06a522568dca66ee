# SPDX-License-Identifier: Apache-2.0
"""Chunks for a control loop that must not wait: only the latest counts.

with LatestOnly(policy, max_age=0.3) as latest:
    while running:
        latest.observe(observation())        # never blocks
        chunk = latest.newest()              # never blocks
        if chunk is not None:
            plan = chunk.reply["actions"]
        ...
"""

from __future__ import annotations

import threading
import time
from typing import (
    Any,
    Callable,
    Dict,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Protocol,
    Tuple,
)

from piserve.arguments import check_duration
from piserve.calls import pause_before_retry
from piserve.errors import PolicyError, StaleObservation


class TimedPolicy(Protocol):
    """What LatestOnly asks: PolicyClient, or what infers like it."""

    def infer(
        self,
        obs: Mapping[str, Any],
        *,
        timeout: Optional[float],
        age: float,
        attempts: int,
    ) -> Dict[str, Any]:
        """As PolicyClient.infer."""
        ...


class LatestChunk(NamedTuple):
    """A chunk as it is handed out.

    reply        what PolicyClient.infer returns.
    captured_at  when its observation was captured, by the clock.
    age          seconds from then until it was handed out; <= max_age.
    """

    reply: Dict[str, Any]
    captured_at: float
    age: float


class LatestOnly:
    """Asks for chunks in the background, always about the newest observation.

    policy     a PolicyClient; may be shared.
    max_age    seconds: a chunk whose observation is older is never handed out,
               and an observation that grew older is not sent. Also the deadline
               of every request, counted from its observation's capture.
    in_flight  requests under way at a time. More than one raise the rate where
               the network is long.
    clock      gives the seconds of `captured_at`; monotonic.

    Thread safe. An observation that waits is replaced by a newer one, so what
    is sent is always the newest; a refused one is not sent again, a newer one
    is, after the pause that the server asks for. Chunks are handed out once
    each, in the order of their observations: one whose observation is older
    than the last that was handed out is dropped, whenever it comes.
    """

    def __init__(
        self,
        policy: TimedPolicy,
        *,
        max_age: float,
        in_flight: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_duration("max_age", max_age)
        if in_flight < 1:
            raise ValueError(f"in_flight: got {in_flight}, want at least 1")
        self._policy = policy
        self._max_age = max_age
        self._clock = clock
        self._changed = threading.Condition()  # guards all below
        self._waiting: Optional[_Observation] = None
        self._given = _NOTHING  # the newest observation ever given
        self._sent = 0  # numbers of observations
        self._handed = 0
        self._chunk: Optional[Tuple[_Observation, Dict[str, Any]]] = None
        self._error: Optional[Tuple[_Observation, Exception]] = None
        self._closed = False
        self._threads: List[threading.Thread] = [
            threading.Thread(
                target=self._work, name=f"piserve-latest-{index}", daemon=True
            )
            for index in range(in_flight)
        ]
        for thread in self._threads:
            thread.start()

    def observe(
        self, obs: Mapping[str, Any], captured_at: Optional[float] = None
    ) -> None:
        """Gives the newest observation, in place of one that still waits.

        captured_at  by the clock; None: now. An observation captured before one
                     that was given already is dropped.

        Does not copy: `obs` must not change afterwards. ValueError if it was
        captured in the future, RuntimeError after `close`.
        """
        with self._changed:
            if self._closed:
                raise RuntimeError("LatestOnly is closed")
            now = self._clock()
            captured = now if captured_at is None else captured_at
            if not captured <= now:
                raise ValueError(
                    f"captured_at: got {captured}, which is after now, {now}"
                )
            if captured < self._given.captured_at:
                return
            self._given = _Observation(self._given.number + 1, captured, obs)
            self._waiting = self._given
            self._changed.notify_all()

    def newest(self, timeout: float = 0.0) -> Optional[LatestChunk]:
        """The newest chunk that was not handed out yet; None: there is none.

        timeout  seconds to wait for one.

        Where there is none and the latest request failed, raises its error,
        once: a PolicyError, or what else `infer` raised.
        """
        with self._changed:
            self._changed.wait_for(self._has_news, timeout)
            chunk = self._take_chunk()
            if chunk is not None:
                return chunk
            error, self._error = self._error, None
            if error is not None:
                raise error[1]
            return None

    def reset(self) -> None:
        """Starts an episode: no chunk of an earlier observation comes after."""
        with self._changed:
            self._waiting = self._chunk = self._error = None
            self._handed = self._given.number

    def close(self) -> None:
        """Ends the requester; waits for requests under way, max_age at most."""
        with self._changed:
            self._closed = True
            self._waiting = self._chunk = self._error = None
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> LatestOnly:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    # ------------------------------------------------------------ handing out

    def _has_news(self) -> bool:
        return (
            self._closed or self._has_fresh_chunk() or self._error is not None
        )

    def _has_fresh_chunk(self) -> bool:
        if self._chunk is None:
            return False
        return self._clock() - self._chunk[0].captured_at <= self._max_age

    def _take_chunk(self) -> Optional[LatestChunk]:
        if self._chunk is None:
            return None
        (observation, reply), self._chunk = self._chunk, None
        age = self._clock() - observation.captured_at
        if age > self._max_age:
            return None
        self._handed = observation.number
        return LatestChunk(reply, observation.captured_at, age)

    # ------------------------------------------------------------- requesting

    def _work(self) -> None:
        while True:
            observation = self._take_observation()
            if observation is None:
                return
            try:
                reply = self._ask(observation)
            except Exception as error:
                self._file_error(observation, error)
                self._pause_after(error)
            else:
                self._file_chunk(observation, reply)

    def _take_observation(self) -> Optional[_Observation]:
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or self._waiting is not None
            )
            if self._waiting is None:
                return None
            observation, self._waiting = self._waiting, None
            self._sent = observation.number
            return observation

    def _ask(self, observation: _Observation) -> Dict[str, Any]:
        age = self._clock() - observation.captured_at
        if age >= self._max_age:
            raise StaleObservation(
                f"{age:.3f} s old before it could be sent, want less than "
                f"{self._max_age:.3f} s",
                reason="TOO_OLD_AT_CLIENT",
            )
        return self._policy.infer(
            observation.obs, timeout=self._max_age - age, age=age, attempts=1
        )

    def _file_chunk(
        self, observation: _Observation, reply: Dict[str, Any]
    ) -> None:
        with self._changed:
            newest = self._handed
            if self._chunk is not None:
                newest = max(newest, self._chunk[0].number)
            if self._closed or observation.number <= newest:
                return
            self._chunk = (observation, reply)
            if self._error and self._error[0].number <= observation.number:
                self._error = None
            self._changed.notify_all()

    def _file_error(self, observation: _Observation, error: Exception) -> None:
        with self._changed:
            if self._closed or observation.number <= self._handed:
                return
            if observation.number < self._sent:
                return  # what became of the newer one will be told
            self._error = (observation, error)
            self._changed.notify_all()

    def _pause_after(self, error: Exception) -> None:
        if not isinstance(error, PolicyError):
            return
        pause = pause_before_retry(error)
        if pause is not None:
            with self._changed:
                self._changed.wait_for(lambda: self._closed, pause)


class _Observation(NamedTuple):
    number: int  # rises with captured_at
    captured_at: float
    obs: Mapping[str, Any]


_NOTHING = _Observation(0, float("-inf"), {})
