# SPDX-License-Identifier: Apache-2.0
"""What rendering only the pictures that are sent saves: the same actions in two
simulators by turns, one of which renders in every step.

Usage: build/libero/venv/bin/python tests/libero_check/render_benchmark.py
           [--suite libero_object] [--episodes 5] [--json FILE]
"""

import argparse
import json
import time

import numpy as np
from piserve.libero.protocol import MAX_STEPS, Protocol, run_episode
from piserve.libero.simulator import LiberoEnvironment

SEED, ACTIONS = 7, 100
RENDERS = ("all", "sent")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def play(environment, actions, trial):
    """Milliseconds from each request to the next [requests, clocks], and what
    was sent last."""
    asked, sent = [], []

    def infer(obs):
        asked.append([1e3 * clock() for clock in CLOCKS.values()])
        sent.append(obs)
        first = 5 * (len(asked) - 1)
        return {"actions": actions[first : first + 5]}

    protocol = Protocol(max_steps=len(actions))
    run_episode(environment, infer, trial, "p", protocol)
    return np.diff(asked, axis=0), sent[-1]


def measure(environments, episodes):
    """{render: milliseconds [requests, clocks]}; the simulators take turns."""
    times = {render: [] for render in RENDERS}
    rng = np.random.default_rng(1)
    for trial in range(episodes):
        actions = rng.uniform(-0.6, 0.6, (ACTIONS, 7))
        last = {}
        for render in RENDERS[:: 1 if trial % 2 else -1]:
            spent, last[render] = play(environments[render], actions, trial)
            times[render].append(spent)
        for key in ("observation/image", "observation/wrist_image"):
            np.testing.assert_array_equal(last["all"][key], last["sent"][key])
    return {render: np.concatenate(spent) for render, spent in times.items()}


def summary(times):
    report = {"requests": len(times["all"])}
    for index, clock in enumerate(CLOCKS):
        medians = {
            render: float(np.median(times[render][:, index]))
            for render in RENDERS
        }
        report[clock] = {f"{k}_p50_ms": v for k, v in medians.items()}
        report[clock]["ratio"] = medians["all"] / medians["sent"]
    return report


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--suite", choices=sorted(MAX_STEPS), default="libero_object"
    )
    parser.add_argument("--episodes", type=int, default=5)
    parser.add_argument("--json", default="")
    args = parser.parse_args()
    environments = {
        render: LiberoEnvironment(args.suite, 0, SEED, render)
        for render in RENDERS
    }
    times = measure(environments, args.episodes)
    report = {"suite": args.suite, **summary(times)}
    print(json.dumps(report, indent=1))
    if args.json:
        with open(args.json, "w") as file:
            json.dump(report, file, indent=1)
            file.write("\n")
    for environment in environments.values():
        environment.close()


if __name__ == "__main__":
    main()
