# SPDX-License-Identifier: Apache-2.0
"""The demo's robot: a served policy puts blocks on a pad, over gRPC."""

from __future__ import annotations

import pathlib
import time
from typing import Any, Dict, List

import numpy as np
from piserve import PolicyClient
from piserve.worlds.pictures import save_gif, save_png
from piserve.worlds.tabletop import Evaluation, Tabletop, evaluate
from piserve.worlds.tabletop.pictures import Film

from paper import STAGES, Paper
from server_process import CONFIGS, ROOT, ServerProcess

POLICY = "pi0_tabletop"
_LEAST_RATE = 0.8  # of a few episodes of a policy that succeeds in 9 of 10


class _Noted:
    """A client whose answers' times are kept."""

    def __init__(self, client: PolicyClient) -> None:
        self._client = client
        self.replies: List[Dict[str, Any]] = []

    def infer(self, obs: Any, *, seed: int) -> Dict[str, Any]:
        reply = self._client.infer(obs, seed=seed, timeout=30.0)
        self.replies.append(reply)
        return reply


def run(
    paper: Paper, binary: pathlib.Path, episodes: int, folder: pathlib.Path
) -> bool:
    """Serves the policy, runs the episodes; whether most of them succeeded."""
    path = CONFIGS / "tabletop.textproto"
    paper.title("A robot in a closed loop: put a block on the pad")
    start = time.monotonic()
    with ServerProcess(binary, [f"--config={path}"]) as server:
        server.wait_until_ready()
        with PolicyClient(server.addresses.public, policy=POLICY) as client:
            info = client.policy_info()
            paper.line(f"  config   {path.relative_to(ROOT)}")
            paper.line(
                f"  policy   {info.name} ({info.precision}, "
                f"sha256 {info.model_digest[:12]}), trained in training/"
            )
            paper.line(f"  ready    in {time.monotonic() - start:.1f} s")
            noted, film = _Noted(client), Film()
            found = _episodes(paper, noted, film, episodes)
        server.stop()
    good = found.rate >= _LEAST_RATE
    low, high = found.interval
    paper.line(
        f"  success  {found.wins} of {episodes} episodes "
        f"({100 * low:.0f} to {100 * high:.0f} % with 95 % confidence)   "
        f"{paper.verdict(good)}"
    )
    _show_latency(paper, noted.replies)
    folder.mkdir(parents=True, exist_ok=True)
    save_gif(folder / "tabletop.gif", film.frames)
    save_png(folder / "tabletop.png", film.frames[-1])
    paper.title("The last episode")
    for name in ("tabletop.gif", "tabletop.png"):
        paper.line(f"  {folder / name}")
    return good


def _episodes(
    paper: Paper, client: _Noted, film: Film, episodes: int
) -> Evaluation:
    wins: List[bool] = []

    def watch(world: Tabletop) -> None:
        score = f"{sum(wins)}/{len(wins)}"
        paper.progress(
            f"episode {world.seed + 1}/{episodes}  success {score}  "
            f"step {world.steps:3d}  {world.prompt}"
        )
        if world.seed == episodes - 1:
            film(world)

    found = evaluate(
        [client],
        range(episodes),
        on_result=lambda result: wins.append(result.success),
        on_step=watch,
    )
    paper.end_progress()
    return found


def _show_latency(paper: Paper, replies: List[Dict[str, Any]]) -> None:
    paper.title(f"Where the time of {len(replies)} calls went, ms")
    paper.line(f"  {'stage':<10}{'p50':>9}{'p95':>9}{'max':>9}")
    rows = [
        (name, [r["server_timing"].get(f"{name}_ms") for r in replies], what)
        for name, what in STAGES
    ]
    for part, what in (
        ("server", "in all"),
        ("client", "in all, with the network"),
    ):
        times = [r[f"{part}_timing"]["infer_ms"] for r in replies]
        rows.append((part, times, what))
    for name, times, what in rows:
        known = [value for value in times if value is not None]
        if known:
            cells = "".join(
                f"{value:9.2f}" for value in np.percentile(known, (50, 95, 100))
            )
            paper.line(f"  {name:<10}{cells}   {paper.grey(what)}")
