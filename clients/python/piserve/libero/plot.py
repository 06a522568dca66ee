# SPDX-License-Identifier: Apache-2.0
"""The success of each task as a picture. Needs Pillow."""

from __future__ import annotations

from typing import Any, List

import numpy as np

from piserve.worlds.pictures import font, pillow

from .report import Count, Report

_WIDTH, _ROW, _TOP, _BOTTOM = 960, 34, 52, 40
_LEFT, _RIGHT = 430, 130  # of the bars
_PAPER, _INK, _QUIET = (255, 255, 255), (32, 36, 44), (120, 126, 138)
_BAR, _GRID = (86, 140, 214), (226, 229, 234)


def plot(report: Report, title: str) -> np.ndarray:
    """uint8 [h, w, 3]: a bar for each task and for all, with its interval.

    Raises PictureError if Pillow is missing.
    """
    rows = [(f"{t.index} {t.prompt}", report.of_task(t)) for t in report.tasks]
    rows.append(("all", report.total))
    height = _TOP + _ROW * len(rows) + _BOTTOM
    page = pillow("Image").new("RGB", (_WIDTH, height), _PAPER)
    pen = pillow("ImageDraw").Draw(page)
    pen.text((14, 14), title, fill=_INK, font=font(17))
    _draw_grid(pen, _TOP, height - _BOTTOM)
    for row, (label, count) in enumerate(rows):
        _draw_row(pen, _TOP + row * _ROW, label, count)
    note = "success of the episodes that came to an end, 95 % interval"
    pen.text((14, height - 26), note, fill=_QUIET, font=font(13))
    return np.asarray(page)


def _draw_grid(pen: Any, top: int, bottom: int) -> None:
    for tenths in range(0, 11, 2):
        x = _across(tenths / 10)
        pen.line([(x, top), (x, bottom)], fill=_GRID)
        pen.text((x - 10, bottom + 2), f"{10 * tenths}", _QUIET, font(12))


def _draw_row(pen: Any, top: int, label: str, count: Count) -> None:
    middle = top + _ROW // 2
    pen.text((14, middle - 8), _short(pen, label), fill=_INK, font=font(13))
    if count.decided:
        bar = [(_across(0), middle - 9), (_across(count.rate), middle + 9)]
        pen.rectangle(bar, fill=_BAR)
        low, high = map(_across, count.interval)
        pen.line([(low, middle), (high, middle)], fill=_INK, width=2)
        for x in (low, high):
            pen.line([(x, middle - 5), (x, middle + 5)], fill=_INK, width=2)
    place = (_across(1) + 12, middle - 8)
    pen.text(place, _words(count), fill=_INK, font=font(13))


def _words(count: Count) -> str:
    words = f"{count.success} of {count.decided}"
    missing: List[str] = []
    if count.infrastructure:
        missing.append(f"{count.infrastructure} lost")
    if count.not_run:
        missing.append(f"{count.not_run} not run")
    return f"{words} ({', '.join(missing)})" if missing else words


def _short(pen: Any, label: str) -> str:
    """As much of a label as fits before the bars."""
    if pen.textlength(label, font=font(13)) < _LEFT - 24:
        return label
    while pen.textlength(label + "…", font=font(13)) >= _LEFT - 24:
        label = label[:-1]
    return label.rstrip() + "…"


def _across(share: float) -> int:
    return _LEFT + round(share * (_WIDTH - _LEFT - _RIGHT))
