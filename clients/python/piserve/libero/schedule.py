# SPDX-License-Identifier: Apache-2.0
"""Which episode is run next, and how often one is tried again."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional

SUCCESS, FAILURE = "success", "failure"
INFRASTRUCTURE = "infrastructure"
OUTCOMES = (SUCCESS, FAILURE, INFRASTRUCTURE)


class Episode(NamedTuple):
    """A trial of a task."""

    task: int
    trial: int


@dataclass(frozen=True)
class EpisodeRecord:
    """How an episode ended: a line of the ledger.

    outcome   one of OUTCOMES; INFRASTRUCTURE if no attempt came to an end.
    steps     actions carried out; 0 if INFRASTRUCTURE.
    infer_ms  of each call of the policy.
    errors    what the attempts before this end died of.
    """

    task: int
    trial: int
    outcome: str
    steps: int
    seconds: float
    infer_ms: List[float]
    errors: List[str]

    def as_json(self) -> Dict[str, Any]:
        return {
            **vars(self),
            "seconds": round(self.seconds, 3),
            "infer_ms": [round(value, 2) for value in self.infer_ms],
        }

    @classmethod
    def of_json(cls, value: Mapping[str, Any]) -> EpisodeRecord:
        return cls(**value)


class Schedule:
    """The episodes that are still to be run. Not thread safe.

    attempts  how often an episode may be begun.
    patience  episodes in a row without an end after which all is given up:
              something is broken that trying again does not mend.
    """

    def __init__(
        self,
        episodes: Iterable[Episode],
        *,
        attempts: int = 3,
        patience: int = 5,
    ) -> None:
        if attempts < 1 or patience < 1:
            raise ValueError(
                f"got attempts {attempts}, patience {patience}, "
                "want at least 1 of each"
            )
        self._waiting = list(episodes)
        self._attempts = attempts
        self._patience = patience
        self._errors: Dict[Episode, List[str]] = {}
        self._lost_in_a_row = 0

    @property
    def given_up(self) -> bool:
        return self._lost_in_a_row >= self._patience

    def take(
        self, task: Optional[int], busy: Iterable[Optional[int]] = ()
    ) -> Optional[Episode]:
        """The next episode for a process; None if there is none.

        task  that the process has loaded, and stays with: loading another
              takes longer than an episode.
        busy  tasks that the other processes have loaded: of the rest, the task
              with the most episodes for each process comes first.
        """
        if self.given_up or not self._waiting:
            return None
        left = Counter(episode.task for episode in self._waiting)
        if task not in left:
            others = Counter(busy)
            task = max(left, key=lambda t: (left[t] / (1 + others[t]), -t))
        chosen = min(e for e in self._waiting if e.task == task)
        self._waiting.remove(chosen)
        return chosen

    def ended(self, episode: Episode) -> List[str]:
        """Notes that an episode came to an end; what its attempts died of."""
        self._lost_in_a_row = 0
        return self._errors.pop(episode, [])

    def broke(self, episode: Episode, error: str) -> Optional[List[str]]:
        """Notes an infrastructure error.

        The episode waits again, or if it has had its attempts: returns what
        they died of.
        """
        errors = self._errors.setdefault(episode, [])
        errors.append(error)
        if len(errors) < self._attempts:
            self._waiting.append(episode)
            return None
        self._lost_in_a_row += 1
        return self._errors.pop(episode)

    @staticmethod
    def unfinished(
        episodes: Iterable[Episode], records: Iterable[EpisodeRecord]
    ) -> List[Episode]:
        """The episodes that no record decides."""
        decided = {
            Episode(record.task, record.trial)
            for record in records
            if record.outcome != INFRASTRUCTURE
        }
        return [episode for episode in episodes if episode not in decided]
