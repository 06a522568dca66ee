# SPDX-License-Identifier: Apache-2.0
"""Measures a served policy: many episodes, one or many robots at once.

Noise follows from the episode's seed and the number of the call, and the world
from its seed, so that an episode ends the same way whenever, wherever and
beside whomever it is run, as long as the server keeps its promises.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from ..statistics import percentiles_ms, wilson_interval
from .episode import EpisodeResult, Infers, run_episode
from .world import Tabletop

REPLAN_STEPS = 5
_NEIGHBOUR = 500_000  # seeds from an episode to its neighbour's


@dataclass(frozen=True)
class Evaluation:
    """Episodes in the order of their seeds, and how long all of them took."""

    results: List[EpisodeResult]
    seconds: float

    @property
    def wins(self) -> int:
        return sum(result.success for result in self.results)

    @property
    def rate(self) -> float:
        return self.wins / len(self.results)

    @property
    def interval(self) -> Tuple[float, float]:
        """Wilson's 95 % interval of the success rate."""
        return wilson_interval(self.wins, len(self.results))

    def latency_ms(self) -> Dict[str, float]:
        """Percentiles of the calls, as the robots saw them."""
        calls = [s for result in self.results for s in result.infer_s]
        return percentiles_ms(calls)

    def as_json(self) -> Dict[str, Any]:
        low, high = self.interval
        return {
            "episodes": len(self.results),
            "successes": self.wins,
            "success_rate": self.rate,
            "interval_95": [low, high],
            "seconds": self.seconds,
            "calls": sum(len(result.infer_s) for result in self.results),
            "latency_ms": self.latency_ms(),
            "per_episode": [
                {
                    "seed": result.seed,
                    "prompt": result.prompt,
                    "success": result.success,
                    "steps": result.steps,
                }
                for result in self.results
            ],
        }


def alike(a: Evaluation, b: Evaluation) -> int:
    """How many episodes of equal seeds end alike, both well or both badly."""
    return sum(
        one.seed == other.seed and one.success == other.success
        for one, other in zip(a.results, b.results)
    )


# --------------------------------------------------------------------- policies


class Seeded:
    """A client of a server, for one episode, with noise that can be repeated.

    client  takes `infer(obs, seed=...)`, as PolicyClient.
    """

    def __init__(self, client: Any, seed: int) -> None:
        self._client = client
        self._seed = seed
        self._calls = 0

    def infer(self, obs: Mapping[str, Any]) -> Mapping[str, Any]:
        noise_seed = (self._seed << 16) + self._calls
        self._calls += 1
        reply: Mapping[str, Any] = self._client.infer(obs, seed=noise_seed)
        return reply


class SwappedCameras:
    """Sends each camera's picture as the other's."""

    def __init__(self, policy: Infers, seed: int) -> None:
        self._policy = policy

    def infer(self, obs: Mapping[str, Any]) -> Mapping[str, Any]:
        swapped = dict(obs)
        swapped["observation/image"] = obs["observation/wrist_image"]
        swapped["observation/wrist_image"] = obs["observation/image"]
        return self._policy.infer(swapped)


class StaleChunk:
    """Answers with the chunk of the observation before."""

    def __init__(self, policy: Infers, seed: int) -> None:
        self._policy = policy
        self._last: Optional[Mapping[str, Any]] = None

    def infer(self, obs: Mapping[str, Any]) -> Mapping[str, Any]:
        fresh = self._policy.infer(obs)
        stale = fresh if self._last is None else self._last
        self._last = fresh
        return stale


class NeighboursRow:
    """Answers with what a robot beside it, in an episode of its own, gets."""

    def __init__(self, policy: Infers, seed: int) -> None:
        self._policy = policy
        self._world = Tabletop()
        self._world.start(seed + _NEIGHBOUR)

    def infer(self, obs: Mapping[str, Any]) -> Mapping[str, Any]:
        reply = self._policy.infer(self._world.observe())
        for action in reply["actions"][:REPLAN_STEPS]:
            if not self._world.done:
                self._world.act(action)
        return reply


FAULTS: Dict[str, Callable[[Infers, int], Infers]] = {
    "swapped-cameras": SwappedCameras,
    "stale-chunk": StaleChunk,
    "neighbours-row": NeighboursRow,
}
"""What must lower success: the ways in which a server or a client could lie."""


# ------------------------------------------------------------------ evaluation


class _Episodes:
    """The seeds that wait and the results that came; for any thread."""

    def __init__(
        self,
        seeds: Sequence[int],
        on_result: Optional[Callable[[EpisodeResult], None]],
    ) -> None:
        self._lock = threading.Lock()  # guards all of the following
        self._waiting = list(enumerate(seeds))[::-1]
        self._found: Dict[int, EpisodeResult] = {}
        self._errors: List[BaseException] = []
        self._on_result = on_result

    def take(self) -> Optional[Tuple[int, int]]:
        """The next episode's place and seed; None if there is no more to do."""
        with self._lock:
            if self._errors or not self._waiting:
                return None
            return self._waiting.pop()

    def give(self, index: int, result: EpisodeResult) -> None:
        with self._lock:
            self._found[index] = result
            if self._on_result is not None:
                self._on_result(result)

    def fail(self, error: BaseException) -> None:
        with self._lock:
            self._errors.append(error)

    def results(self) -> List[EpisodeResult]:
        """In the seeds' order; raises what an episode raised first."""
        if self._errors:
            raise self._errors[0]
        return [self._found[index] for index in sorted(self._found)]


def evaluate(
    clients: Sequence[Any],
    seeds: Sequence[int],
    *,
    fault: str = "",
    new_world: Callable[[], Tabletop] = Tabletop,
    on_result: Optional[Callable[[EpisodeResult], None]] = None,
    on_step: Optional[Callable[[Tabletop], None]] = None,
) -> Evaluation:
    """Runs an episode of each seed; a robot, in its own thread, per client.

    clients    as Seeded takes them; each is used by one thread.
    fault      a key of FAULTS; empty: none.
    new_world  makes the world of each robot.
    on_result  called after each episode, never by two threads at once.
    on_step    as run_episode's; for a single client only.

    Raises what an episode raised, after the others of its moment have ended.
    """
    if fault and fault not in FAULTS:
        raise ValueError(f"fault: got {fault!r}, want one of {sorted(FAULTS)}")
    if on_step is not None and len(clients) != 1:
        raise ValueError(f"on_step: got {len(clients)} clients, want 1")
    episodes = _Episodes(seeds, on_result)

    def robot(client: Any) -> None:
        try:
            world = new_world()
            while (entry := episodes.take()) is not None:
                index, seed = entry
                policy: Infers = Seeded(client, seed)
                if fault:
                    policy = FAULTS[fault](policy, seed)
                result = run_episode(
                    policy,
                    seed,
                    world=world,
                    replan_steps=REPLAN_STEPS,
                    on_step=on_step,
                )
                episodes.give(index, result)
        except BaseException as error:  # raised by results()
            episodes.fail(error)

    start = time.monotonic()
    threads = [threading.Thread(target=robot, args=(c,)) for c in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Evaluation(episodes.results(), time.monotonic() - start)
