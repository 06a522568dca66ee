# SPDX-License-Identifier: Apache-2.0
"""How far an evaluation is: one line, or one per episode in a log."""

from __future__ import annotations

import sys
import time
from typing import Any, Collection, Mapping, Sequence

from .schedule import FAILURE, INFRASTRUCTURE, SUCCESS, Episode, EpisodeRecord


class Progress:
    """Shows what ended; for a person the line is written over."""

    def __init__(
        self,
        episodes: int,
        before: Sequence[Mapping[str, Any]],
        wanted: Collection[Episode],
    ) -> None:
        self._episodes = episodes
        self._start = time.monotonic()
        self._ends = {
            Episode(line["task"], line["trial"]): line["outcome"]
            for line in before
            if line["outcome"] != INFRASTRUCTURE
            and Episode(line["task"], line["trial"]) in set(wanted)
        }
        self._found_before = len(self._ends)
        if before:
            print(
                f"continuing: {self._found_before} of {episodes} episodes "
                "are done",
                file=sys.stderr,
            )

    def __call__(self, record: EpisodeRecord) -> None:
        self._ends[Episode(record.task, record.trial)] = record.outcome
        if sys.stderr.isatty():
            print(f"\r\x1b[2K{self.line()[:79]}", end="", file=sys.stderr)
            sys.stderr.flush()
        else:
            episode = f"task {record.task} trial {record.trial}"
            print(
                f"{episode}: {record.outcome}, {record.steps} steps, "
                f"{record.seconds:.1f} s | {self.line()}",
                file=sys.stderr,
                flush=True,
            )
        for error in record.errors:
            print(f"{self._break()}  tried again: {error}", file=sys.stderr)

    def line(self) -> str:
        """Counts so far, and how long the rest takes at this rate."""
        ends = list(self._ends.values())
        done, wins = len(ends), ends.count(SUCCESS)
        decided = wins + ends.count(FAILURE)
        lost = ends.count(INFRASTRUCTURE)
        elapsed_s = time.monotonic() - self._start
        here = done - self._found_before
        left_s = elapsed_s / here * (self._episodes - done) if here else 0.0
        return (
            f"episode {done}/{self._episodes}  success {wins}/{decided}  "
            + (f"lost {lost}  " if lost else "")
            + f"{elapsed_s:.0f} s, {left_s:.0f} s left"
        )

    def end(self) -> None:
        if sys.stderr.isatty():
            print(file=sys.stderr)

    def _break(self) -> str:
        return "\n" if sys.stderr.isatty() else ""
