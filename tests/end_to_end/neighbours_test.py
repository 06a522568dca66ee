# SPDX-License-Identifier: Apache-2.0
"""Servers of small checkpoints get along on the cores of one machine."""

import concurrent.futures

from serving import run_client, serving_config

SERVERS = 2


def loaded(_):
    """What a robot's load on a server of its own ends with."""
    with serving_config("pi0_libero_tiny") as server:
        return run_client(
            server,
            "policy_load",
            *("--robots=1", "--loop=closed", "--rate=5"),
            *("--duration=3s", "--warmup=0s"),
        )


def test_servers_beside_each_other_answer_in_time():
    with concurrent.futures.ThreadPoolExecutor(SERVERS) as pool:
        for result in pool.map(loaded, range(SERVERS)):
            assert result.returncode == 0, result.stdout + result.stderr
