# SPDX-License-Identifier: Apache-2.0
"""What the episodes say of a policy: numbers, a table, a plot.

A success rate is over episodes that came to an end. Those that the
infrastructure lost stand beside it and count neither way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Sequence, Tuple

from piserve.worlds.statistics import percentiles_ms, wilson_interval

from .environment import Task
from .schedule import FAILURE, INFRASTRUCTURE, SUCCESS, EpisodeRecord


@dataclass(frozen=True)
class Count:
    """How many episodes ended how; `not_run` were never begun."""

    success: int
    failure: int
    infrastructure: int
    not_run: int

    @classmethod
    def of(cls, records: Sequence[EpisodeRecord], wanted: int) -> Count:
        ends = [record.outcome for record in records]
        return cls(
            success=ends.count(SUCCESS),
            failure=ends.count(FAILURE),
            infrastructure=ends.count(INFRASTRUCTURE),
            not_run=wanted - len(ends),
        )

    @property
    def decided(self) -> int:
        return self.success + self.failure

    @property
    def rate(self) -> float:
        """Successes of the episodes that came to an end; 0 without one."""
        return self.success / self.decided if self.decided else 0.0

    @property
    def interval(self) -> Tuple[float, float]:
        """95 %, Wilson's."""
        return wilson_interval(self.success, self.decided)

    @property
    def complete(self) -> bool:
        return self.infrastructure == 0 and self.not_run == 0

    def as_json(self) -> Dict[str, Any]:
        return {
            **vars(self),
            "success_rate": self.rate if self.decided else None,
            "interval_95": list(self.interval),
        }


@dataclass(frozen=True)
class Report:
    """The records of an evaluation of `trials` episodes of each task."""

    tasks: List[Task]
    trials: int
    records: List[EpisodeRecord]

    @property
    def total(self) -> Count:
        return Count.of(self.records, self.trials * len(self.tasks))

    def of_task(self, task: Task) -> Count:
        mine = [r for r in self.records if r.task == task.index]
        return Count.of(mine, self.trials)

    def as_json(self) -> Dict[str, Any]:
        """All numbers; per_episode is the ledger without the calls' times."""
        calls = [ms for record in self.records for ms in record.infer_ms]
        return {
            "complete": self.total.complete,
            "episodes": self.trials * len(self.tasks),
            **self.total.as_json(),
            "repeated_attempts": sum(
                len(r.errors) - (r.outcome == INFRASTRUCTURE)
                for r in self.records
            ),
            "calls": len(calls),
            "latency_ms": percentiles_ms([ms * 1e-3 for ms in calls]),
            "per_task": [
                {**vars(task), **self.of_task(task).as_json()}
                for task in self.tasks
            ],
            "per_episode": [_episode(record) for record in self.records],
        }

    def table(self) -> str:
        """A line for each task and one for all."""
        rows = [("task", "success", "95 % interval", "infrastructure")]
        for task in self.tasks:
            rows.append((_label(task), *_cells(self.of_task(task))))
        rows.append(("all", *_cells(self.total)))
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = [
            "  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip()
            for row in rows
        ]
        rule = "-" * max(map(len, lines))
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def _label(task: Task) -> str:
    return f"{task.index} {task.prompt}"


def _cells(count: Count) -> Tuple[str, str, str]:
    low, high = count.interval
    lost = str(count.infrastructure) if count.infrastructure else "-"
    if count.not_run:
        lost += f", {count.not_run} not run"
    return (
        f"{count.success} of {count.decided}",
        f"{100 * low:.1f} to {100 * high:.1f} %" if count.decided else "-",
        lost,
    )


def _episode(record: EpisodeRecord) -> Dict[str, Any]:
    values = record.as_json()
    del values["infer_ms"]
    return {**values, "calls": len(record.infer_ms)}
