# SPDX-License-Identifier: Apache-2.0
"""Asks a server by every client of the installed package.

Usage: compat_probe.py ADDRESS, of a server whose policy answers equal
observations alike (piserve_test_server --policy=blind).
"""

import asyncio
import pathlib
import sys

import google.protobuf
import grpc
import numpy as np
import piserve
from google.protobuf.internal import api_implementation
from piserve.aio import AsyncPolicyClient
from piserve.websocket_client_policy import WebsocketClientPolicy

TIMEOUT = 30.0


def observation(seed):
    random = np.random.RandomState(seed)
    return {
        "observation/image": random.randint(0, 256, (64, 48, 3), np.uint8),
        "observation/wrist_image": random.rand(3, 32, 32),
        "observation/state": random.rand(8),
        "prompt": "put the red block on the pad",
    }


async def awaited(address, obs):
    async with AsyncPolicyClient(
        address, timeout=TIMEOUT, robot=piserve.LIBERO
    ) as policy:
        await policy.wait_until_ready()
        return await policy.infer(obs)


def main():
    address = sys.argv[1]
    host, port = address.split(":")
    obs = observation(1)
    with piserve.PolicyClient(
        address, timeout=TIMEOUT, robot=piserve.LIBERO
    ) as policy:
        policy.wait_until_ready()
        want = policy.infer(obs)["actions"]
        other = policy.infer(observation(2))["actions"]
        with piserve.LatestOnly(policy, max_age=TIMEOUT) as latest:
            latest.observe(obs)
            newest = latest.newest(TIMEOUT)
        try:
            policy.infer(dict(obs, prompt="x" * 2000))
        except piserve.InvalidObservation as error:
            assert error.reason and error.field, error
        else:
            raise AssertionError("a prompt over its limit was answered")
    drop_in = WebsocketClientPolicy(host, int(port), timeout=TIMEOUT)
    answers = [
        newest.reply,
        asyncio.run(awaited(address, obs)),
        drop_in.infer(obs),
    ]
    drop_in.close()
    assert want.shape == (10, 7) and want.dtype == np.float64, want
    assert not np.array_equal(want, other), "the policy tells none apart"
    for answer in answers:
        np.testing.assert_array_equal(answer["actions"], want)
    assert "site-packages" in pathlib.Path(piserve.__file__).parts
    print(
        f"ok  protobuf {google.protobuf.__version__} "
        f"({api_implementation.Type()})  grpcio {grpc.__version__}  "
        f"numpy {np.__version__}  Python {sys.version.split()[0]}",
        flush=True,
    )


if __name__ == "__main__":
    main()
