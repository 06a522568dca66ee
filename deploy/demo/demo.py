#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Serves small policies: beside openpi's answers first, then to a robot.

Starts policy_server with a checkpoint of tests/golden, sends the observations
(camera images, state, prompt) that openpi's own policy once answered, with the
same noise, and prints the actions, how far they are from openpi's, where the
time went, and three metrics. Then a trained policy moves a robot's hand over a
table for some episodes. Exits non-zero if anything is off.

Usage: demo.py --server BINARY [--policy CONFIG] [--episodes N] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import time
from typing import Any, Dict, List, Sequence

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "clients" / "python"))

from piserve import PolicyClient, PolicyError  # noqa: E402

import closed_loop  # noqa: E402
import recorded  # noqa: E402
from paper import STAGES, Paper  # noqa: E402
from server_process import (  # noqa: E402
    CONFIGS,
    ServerFailed,
    ServerProcess,
    metrics,
)

_METRICS = (
    'piserve_requests_received_total{method="Infer"}',
    'piserve_requests_completed_total{code="OK",method="Infer"}',
    "piserve_ready",
)


def describe(observation: Dict[str, Any]) -> List[str]:
    """What is sent, a line for each part."""
    lines = []
    for key, value in observation.items():
        if key == "images":
            lines += [f"images/{part}" for part in describe(value)]
        elif isinstance(value, np.ndarray):
            shape = "x".join(map(str, value.shape)) or "scalar"
            lines.append(f"{key:<24} {shape} {value.dtype}")
        else:
            lines.append(f"{key:<24} {shortened(repr(value))}")
    return lines


def shortened(text: str, width: int = 50) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."


def show_actions(paper: Paper, actions: np.ndarray) -> None:
    paper.line(f"  actions {list(actions.shape)}, robot units")
    for step, row in enumerate(actions):
        values = " ".join(f"{value:8.4f}" for value in row)
        paper.line(f"  {paper.grey(f'{step:3d}')} {values}")


def show_difference(paper: Paper, found: recorded.Difference) -> None:
    paper.line("  difference from openpi's actions, of their rms")
    for name, value, bound in (
        ("largest", found.largest, found.largest_bound),
        ("mean", found.mean, found.mean_bound),
    ):
        verdict = paper.verdict(value <= bound)
        paper.line(f"    {name:<8} {value:.1e}   bound {bound:.1e}   {verdict}")


def show_timing(paper: Paper, replies: Sequence[Dict[str, Any]]) -> None:
    paper.title("Where the time went, ms")
    head = "".join(f"{f'obs {i}':>9}" for i in range(1, len(replies) + 1))
    paper.line(f"  {'stage':<10}{head}")
    rows = [
        (stage, [r["server_timing"].get(f"{stage}_ms") for r in replies], what)
        for stage, what in STAGES
    ]
    rows.append(
        ("server", [r["server_timing"]["infer_ms"] for r in replies], "in all")
    )
    rows.append(
        (
            "client",
            [r["client_timing"]["infer_ms"] for r in replies],
            "in all, with the network",
        )
    )
    for stage, times, what in rows:
        if any(value is not None for value in times):
            cells = "".join(f"{value or 0.0:9.2f}" for value in times)
            paper.line(f"  {stage:<10}{cells}   {paper.grey(what)}")


def show_metrics(paper: Paper, page: str, sent: int) -> bool:
    """Three lines of the page; whether they say what was done."""
    paper.title("/metrics")
    lines = {line.rsplit(" ", 1)[0]: line for line in page.splitlines()}
    for name in _METRICS:
        paper.line(f"  {lines.get(name, f'{name} is missing')}")
    samples = metrics(page)
    want = (sent, sent, 1)
    return all(
        samples.get(name) == value
        for name, value in zip(_METRICS, want)  # noqa: B905 (Python 3.8)
    )


def ask(
    paper: Paper, client: PolicyClient, config: recorded.Config
) -> List[Dict[str, Any]]:
    """Replays the recordings; returns the replies that are within bounds."""
    good = []
    for index, recording in enumerate(config.recordings, start=1):
        paper.title(f"Observation {index} of {len(config.recordings)}")
        for line in describe(recording.observation):
            paper.line(f"  {line}")
        reply = client.infer(
            recording.observation, noise=recording.noise, timeout=30.0
        )
        show_actions(paper, reply["actions"])
        found = recording.difference(reply["actions"])
        show_difference(paper, found)
        if found.within:
            good.append(reply)
    return good


def compare(paper: Paper, binary: pathlib.Path, name: str) -> bool:
    """The part beside openpi; whether all was as it should be."""
    config = recorded.load(name)
    path = CONFIGS / f"{name}_tiny.textproto"
    paper.title("piserve: a small policy, served on this CPU")
    start = time.monotonic()
    with ServerProcess(binary, [f"--config={path}"]) as server:
        server.wait_until_ready()
        with PolicyClient(server.addresses.public) as client:
            info = client.policy_info()
            paper.line(f"  config   {path.relative_to(ROOT)}")
            paper.line(
                f"  policy   {info.name} ({info.policy_config}, "
                f"{info.precision}, sha256 {info.model_digest[:12]})"
            )
            paper.line(
                f"  server   {server.addresses.public}, "
                f"ready in {time.monotonic() - start:.1f} s"
            )
            replies = ask(paper, client, config)
        show_timing(paper, replies)
        counted = show_metrics(
            paper, server.get("/metrics"), len(config.recordings)
        )
        server.stop()
    paper.title("Beside openpi")
    wanted = len(config.recordings)
    equal = len(replies) == wanted
    paper.line(
        f"  {len(replies)} of {wanted} answers equal openpi's within bounds   "
        f"{paper.verdict(equal)}"
    )
    paper.line(f"  metrics count what was sent   {paper.verdict(counted)}")
    paper.line(f"  server stopped, exit code 0   {paper.verdict(True)}")
    return equal and counted


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Serve small policies, compare one with openpi's answers, "
        "let the other move a robot."
    )
    parser.add_argument(
        "--server",
        type=pathlib.Path,
        default=ROOT / "build" / "dev" / "bin" / "policy_server",
        help="the policy_server binary",
    )
    parser.add_argument(
        "--policy",
        choices=recorded.config_names(),
        default="pi0_libero",
        help="the robot's configuration, for the comparison",
    )
    parser.add_argument(
        "--episodes",
        type=int,
        default=10,
        help="of the robot; 0: only the comparison",
    )
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        default=ROOT / "build" / "demo",
        help="folder for the pictures of the last episode",
    )
    arguments = parser.parse_args()
    paper = Paper()
    if not arguments.server.exists():
        print(f"no server at {arguments.server}: build it first")
        return 1
    try:
        good = compare(paper, arguments.server, arguments.policy)
        if arguments.episodes > 0:
            moved = closed_loop.run(
                paper, arguments.server, arguments.episodes, arguments.out
            )
            good = good and moved
        return 0 if good else 1
    except (PolicyError, ServerFailed, OSError) as error:
        paper.title(f"{paper.verdict(False)}: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
