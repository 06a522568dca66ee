# SPDX-License-Identifier: Apache-2.0
"""python -m piserve.worlds.tabletop: the expert at work."""

from __future__ import annotations

import argparse
import sys
import time
from typing import List, Optional

from .episode import EpisodeResult, run_episode
from .expert import Expert
from .perturbations import NO_PERTURBATIONS
from .pictures import Film, PictureError, save_gif, save_png
from .world import IMAGE_SIZE, Tabletop


def main(arguments: Optional[List[str]] = None) -> int:
    """Runs the episodes, prints the success rate; 0, or 1 if a file failed."""
    args = _parse(arguments)
    world = Tabletop(
        image_size=args.image_size,
        perturbations=NO_PERTURBATIONS if args.undisturbed else None,
    )
    try:
        film = Film() if args.gif or args.png else None
    except PictureError as error:
        print(error, file=sys.stderr)
        return 1
    results = _run(world, args.episodes, args.seed, film)
    wins = sum(result.success for result in results)
    steps = sum(result.steps for result in results) / len(results)
    print(
        f"success {wins}/{len(results)} ({100 * wins / len(results):.1f} %), "
        f"{steps:.1f} steps an episode"
    )
    lost = [result.seed for result in results if not result.success]
    if lost:
        print(f"failed seeds: {' '.join(map(str, lost))}")
    return _write(film, args.gif, args.png)


def _run(
    world: Tabletop, episodes: int, seed: int, film: Optional[Film]
) -> List[EpisodeResult]:
    """Runs the seeds from `seed` on; the last episode is filmed."""
    policy = Expert(world)
    results: List[EpisodeResult] = []
    start = time.monotonic()
    for index in range(episodes):
        result = run_episode(
            policy,
            seed + index,
            world=world,
            replan_steps=1,
            on_step=film if index == episodes - 1 else None,
        )
        results.append(result)
        _show_progress(results, episodes, time.monotonic() - start)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return results


def _show_progress(
    results: List[EpisodeResult], episodes: int, elapsed_s: float
) -> None:
    """One line that is written over, or none where nobody watches."""
    if not sys.stderr.isatty():
        return
    wins = sum(result.success for result in results)
    last = results[-1]
    line = (
        f"episode {len(results)}/{episodes}  success {wins}/{len(results)}  "
        f"{elapsed_s:.1f} s  {last.prompt}"
    )
    print(f"\r\x1b[2K{line[:79]}", end="", file=sys.stderr, flush=True)


def _write(film: Optional[Film], gif: str, png: str) -> int:
    if film is None:
        return 0
    try:
        if gif:
            save_gif(gif, film.frames)
            print(f"wrote {gif}")
        if png:
            save_png(png, film.frames[-1])
            print(f"wrote {png}")
    except OSError as error:
        print(f"cannot write: {error}", file=sys.stderr)
        return 1
    return 0


def _parse(arguments: Optional[List[str]]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m piserve.worlds.tabletop",
        description="Runs the scripted expert and prints its success rate.",
    )
    parser.add_argument("--episodes", type=_positive, default=20, metavar="N")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the first episode"
    )
    parser.add_argument(
        "--image-size", type=int, default=IMAGE_SIZE, metavar="PIXELS"
    )
    parser.add_argument(
        "--undisturbed", action="store_true", help="no noise, no nudges"
    )
    parser.add_argument("--gif", default="", help="film of the last episode")
    parser.add_argument("--png", default="", help="its last picture")
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"got {value}, want at least 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
