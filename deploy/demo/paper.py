# SPDX-License-Identifier: Apache-2.0
"""What the demo prints, and what the stages of a request are called."""

from __future__ import annotations

import sys

STAGES = (
    ("parse", "read the message"),
    ("decode", "decode, resize, normalise, tokenise"),
    ("queue", "wait for a wave"),
    ("form", "gather the wave"),
    ("h2d", "to the device"),
    ("gpu", "the model"),
    ("vision", "  images to tokens"),
    ("prefill", "  tokens to a cache"),
    ("denoise", "  noise to actions"),
    ("d2h", "from the device"),
    ("post", "to robot units"),
)


class Paper:
    """Lines for a person; coloured, and written over, only on a terminal."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()

    def line(self, text: str = "") -> None:
        print(text, flush=True)

    def title(self, text: str) -> None:
        self.line()
        self.line(self._painted(text, "1"))

    def progress(self, text: str) -> None:
        """A line that the next one replaces; nothing where nobody watches."""
        if self._terminal:
            print(f"\r\033[2K  {text[:77]}", end="", flush=True)

    def end_progress(self) -> None:
        if self._terminal:
            print("\r\033[2K", end="", flush=True)

    def verdict(self, good: bool) -> str:
        return self._painted(*(("ok", "32") if good else ("OFF", "31")))

    def grey(self, text: str) -> str:
        return self._painted(text, "2")

    def _painted(self, text: str, code: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._terminal else text
