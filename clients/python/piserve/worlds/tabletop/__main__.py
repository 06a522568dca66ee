# SPDX-License-Identifier: Apache-2.0
"""python -m piserve.worlds.tabletop: the expert or a served policy at work."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import time
from contextlib import ExitStack
from typing import Any, Callable, Dict, List, Optional

from piserve import PolicyClient, PolicyError

from ..pictures import PictureError, save_gif, save_png
from .episode import EpisodeResult, run_episode
from .evaluation import FAULTS, Evaluation, evaluate
from .expert import Expert
from .perturbations import NO_PERTURBATIONS
from .pictures import Film
from .world import IMAGE_SIZE, MIN_IMAGE_SIZE, Tabletop


def main(arguments: Optional[List[str]] = None) -> int:
    """Runs the episodes, prints the success rate.

    0, or 1 if a file, a picture or the server failed.
    """
    args = _parse(arguments)
    try:
        for path in (args.gif, args.png, args.json):
            _check_writable(path)
    except OSError as error:
        return _cannot_write(error)
    try:
        film = Film() if args.gif or args.png else None
        progress = Progress(args.episodes)
        found, policy = (
            _serve(args, film, progress)
            if args.server
            else _watch_expert(args, film, progress)
        )
    except (PictureError, PolicyError) as error:
        print(error, file=sys.stderr)
        return 1
    progress.end()
    _report(found)
    return _write(args, film, found, policy)


def _new_world(args: argparse.Namespace) -> Tabletop:
    return Tabletop(
        image_size=args.image_size,
        perturbations=NO_PERTURBATIONS if args.undisturbed else None,
    )


def _watch_expert(
    args: argparse.Namespace, film: Optional[Film], progress: Progress
) -> Any:
    """Runs the expert, which looks at every step; the last one is filmed."""
    world = _new_world(args)
    expert = Expert(world)
    results: List[EpisodeResult] = []
    start = time.monotonic()
    for index in range(args.episodes):
        last = index == args.episodes - 1
        result = run_episode(
            expert,
            args.seed + index,
            world=world,
            replan_steps=1,
            on_step=film if last else None,
        )
        results.append(result)
        progress(result)
    return Evaluation(results, time.monotonic() - start), {"policy": "expert"}


def _serve(
    args: argparse.Namespace, film: Optional[Film], progress: Progress
) -> Any:
    """Asks a server for each chunk; the last episode is filmed."""
    last = args.seed + args.episodes - 1

    def watch(world: Tabletop) -> None:
        if film is not None and world.seed == last:
            film(world)

    with ExitStack() as stack:
        clients = [
            stack.enter_context(
                PolicyClient(args.server, policy=args.policy, timeout=30.0)
            )
            for _ in range(args.robots)
        ]
        info = clients[0].policy_info()
        found = evaluate(
            clients,
            range(args.seed, args.seed + args.episodes),
            fault=args.fault,
            new_world=lambda: _new_world(args),
            on_result=progress,
            on_step=watch if film is not None else None,
        )
    return found, {
        "policy": info.name,
        "model_digest": info.model_digest,
        "precision": info.precision,
    }


class Progress:
    """One line that is written over, or none where nobody watches."""

    def __init__(self, episodes: int) -> None:
        self._episodes = episodes
        self._start = time.monotonic()
        self._done = 0
        self._wins = 0

    def __call__(self, result: EpisodeResult) -> None:
        self._done += 1
        self._wins += result.success
        if not sys.stderr.isatty():
            return
        elapsed_s = time.monotonic() - self._start
        line = (
            f"episode {self._done}/{self._episodes}  "
            f"success {self._wins}/{self._done}  "
            f"{elapsed_s:.1f} s  {result.prompt}"
        )
        print(f"\r\x1b[2K{line[:79]}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        if sys.stderr.isatty():
            print(file=sys.stderr)


def _report(found: Evaluation) -> None:
    results = found.results
    steps = sum(result.steps for result in results) / len(results)
    low, high = found.interval
    print(
        f"success {found.wins}/{len(results)} ({100 * found.rate:.1f} %), "
        f"{steps:.1f} steps an episode; "
        f"95 % interval {100 * low:.1f} to {100 * high:.1f} %"
    )
    times = "  ".join(f"{k} {v:.1f}" for k, v in found.latency_ms().items())
    print(f"an answer took, ms: {times}")
    lost = [result.seed for result in results if not result.success]
    if lost:
        print(f"failed seeds: {' '.join(map(str, lost))}")


def _write(
    args: argparse.Namespace,
    film: Optional[Film],
    found: Evaluation,
    policy: Dict[str, Any],
) -> int:
    try:
        if film is not None and args.gif:
            save_gif(args.gif, film.frames)
            print(f"wrote {args.gif}")
        if film is not None and args.png:
            save_png(args.png, film.frames[-1])
            print(f"wrote {args.png}")
        if args.json:
            with open(args.json, "w") as file:
                json.dump(_record(args, found, policy), file, indent=1)
                file.write("\n")
            print(f"wrote {args.json}")
    except OSError as error:
        return _cannot_write(error)
    return 0


def _check_writable(path: str) -> None:
    """OSError if the file could not be written; leaves none behind."""
    if not path:
        return
    new = not os.path.exists(path)
    with open(path, "a"):
        pass
    if new:
        os.remove(path)


def _cannot_write(error: OSError) -> int:
    print(f"cannot write: {error}", file=sys.stderr)
    return 1


def _record(
    args: argparse.Namespace, found: Evaluation, policy: Dict[str, Any]
) -> Dict[str, Any]:
    return {
        "date": datetime.date.today().isoformat(),
        **policy,
        "first_seed": args.seed,
        "robots": args.robots,
        "fault": args.fault,
        "disturbed": not args.undisturbed,
        **found.as_json(),
    }


def _parse(arguments: Optional[List[str]]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m piserve.worlds.tabletop",
        description="Runs the scripted expert, or a policy of a server, and "
        "prints its success rate.",
    )
    parser.add_argument(
        "--episodes", type=_at_least(1), default=20, metavar="N"
    )
    parser.add_argument(
        "--seed", type=_at_least(0), default=0, help="of the first episode"
    )
    parser.add_argument(
        "--image-size",
        type=_at_least(MIN_IMAGE_SIZE),
        default=IMAGE_SIZE,
        metavar="PIXELS",
    )
    parser.add_argument(
        "--undisturbed", action="store_true", help="no noise, no nudges"
    )
    parser.add_argument("--gif", default="", help="film of the last episode")
    parser.add_argument("--png", default="", help="its last picture")
    parser.add_argument("--json", default="", help="all results, as a file")
    served = parser.add_argument_group("a server's policy")
    served.add_argument("--server", default="", metavar="HOST:PORT")
    served.add_argument("--policy", default="", help="if it has several")
    served.add_argument(
        "--robots", type=_at_least(1), default=1, help="that ask at once"
    )
    served.add_argument(
        "--fault", choices=sorted(FAULTS), default="", help="to lower success"
    )
    args = parser.parse_args(arguments)
    if not args.server and (args.robots > 1 or args.fault or args.policy):
        parser.error("--policy, --robots and --fault need --server")
    if args.robots > 1 and (args.gif or args.png):
        parser.error("pictures are of one robot: want --robots 1")
    return args


def _at_least(least: int) -> Callable[[str], int]:
    def integer(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(
                f"got {value}, want at least {least}"
            )
        return value

    return integer


if __name__ == "__main__":
    sys.exit(main())
