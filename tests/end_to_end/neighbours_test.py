# SPDX-License-Identifier: Apache-2.0
"""Servers of small checkpoints get along on the cores of one machine."""

import concurrent.futures
import subprocess

from serving import binary, serving_config

SERVERS = 2


def loaded(_):
    """What a robot's load on a server of its own ends with."""
    with serving_config("pi0_libero_tiny") as server:
        return subprocess.run(
            [
                binary("policy_load"),
                f"--address={server.addresses.public}",
                *("--robots=1", "--loop=closed", "--rate=5"),
                *("--duration=3s", "--warmup=0s"),
            ],
            capture_output=True,
            text=True,
            timeout=60,
        )


def test_servers_beside_each_other_answer_in_time():
    with concurrent.futures.ThreadPoolExecutor(SERVERS) as pool:
        for result in pool.map(loaded, range(SERVERS)):
            assert result.returncode == 0, result.stdout + result.stderr
