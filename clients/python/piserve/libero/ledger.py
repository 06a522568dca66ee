# SPDX-License-Identifier: Apache-2.0
"""What has been measured so far, on disk, one line of JSON each.

The first line says what is measured, each other one how an episode ended. A
line counts once it is complete and synced: a run that is killed loses the
episodes that it was in, and nothing else.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import pathlib
from typing import IO, Any, Dict, List, Mapping, Optional, Union

from .schedule import EpisodeRecord

_FORMAT = 1
_FIELDS = sorted(field.name for field in dataclasses.fields(EpisodeRecord))


class LedgerError(RuntimeError):
    """The file is not this run's ledger, or another run writes it."""


class Ledger:
    """An append-only file of one evaluation. Not thread safe.

    run  what is measured: suite, protocol, policy and its weights. A file that
         was begun for another run is refused.

    Opening an existing file continues it; a last line that was cut off is
    dropped. Raises LedgerError for a damaged or foreign file.
    """

    def __init__(
        self, path: Union[str, pathlib.Path], run: Mapping[str, Any]
    ) -> None:
        self._path = pathlib.Path(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = open(self._path, "a+b")  # noqa: SIM115
        try:
            self._lock()
            self.episodes = self._read(dict(run))
        except BaseException:
            self._file.close()
            raise

    def add(self, episode: Mapping[str, Any]) -> None:
        """Writes one episode; on return it is on disk."""
        self._write(episode)
        self.episodes.append(dict(episode))

    def close(self) -> None:
        """Ends the writing; another run may continue."""
        self._file.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise LedgerError(f"{self._path}: another run writes it") from error

    def _read(self, run: Dict[str, Any]) -> List[Dict[str, Any]]:
        self._file.seek(0)
        text = self._file.read()
        whole = text.rfind(b"\n") + 1
        if whole < len(text):
            self._file.truncate(whole)
        lines = [
            self._parsed(line, number)
            for number, line in enumerate(text[:whole].splitlines(), 1)
        ]
        header = {"format": _FORMAT, **run}
        if not lines:
            self._write(header)
            return []
        difference = _difference(lines[0], header)
        if difference is not None:
            raise LedgerError(
                f"{self._path} was begun for another run: {difference}; "
                "give another folder"
            )
        for number, line in enumerate(lines[1:], 2):
            if sorted(line) != _FIELDS:
                raise LedgerError(
                    f"{self._path}, line {number}: got {sorted(line)}, "
                    f"want {_FIELDS}"
                )
        return lines[1:]

    def _parsed(self, line: bytes, number: int) -> Dict[str, Any]:
        try:
            value = json.loads(line.decode())
        except ValueError as error:
            raise LedgerError(
                f"{self._path}, line {number}: not JSON: {error}"
            ) from error
        if not isinstance(value, dict):
            raise LedgerError(
                f"{self._path}, line {number}: got {type(value).__name__}, "
                "want an object"
            )
        return value

    def _write(self, value: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(value).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def _difference(got: Dict[str, Any], want: Dict[str, Any]) -> Optional[str]:
    """What of two headers differs first, as words; None if nothing does."""
    for name in sorted({*got, *want}):
        if got.get(name) != want.get(name):
            return f"{name} is {got.get(name)!r}, want {want.get(name)!r}"
    return None
