# SPDX-License-Identifier: Apache-2.0
"""The client for programs that live in an asyncio event loop.

from piserve.aio import AsyncPolicyClient

async with AsyncPolicyClient("127.0.0.1:50051") as policy:
    chunk = (await policy.infer(observation))["actions"]
"""

from __future__ import annotations

import asyncio
from typing import Any, Dict, Mapping, Optional, TypeVar

import grpc
import grpc.aio
import numpy as np

from piserve._proto import policy_pb2
from piserve.calls import (
    MAX_ATTEMPTS,
    METHODS,
    Pause,
    PolicyCalls,
    Send,
    Steps,
    channel_options,
    serialized,
)
from piserve.errors import PolicyError, closed

_T = TypeVar("_T")


class AsyncPolicyClient(PolicyCalls):
    """PolicyClient whose calls are awaited: the same arguments, checks,
    deadlines, retries and errors, which PolicyClient documents.

    Belongs to the event loop of its first call; many calls may be awaited at a
    time. A call whose task is cancelled is taken back from the server too.
    """

    async def infer(
        self,
        obs: Mapping[str, Any],
        *,
        noise: Optional[np.ndarray] = None,
        seed: Optional[int] = None,
        num_steps: Optional[int] = None,
        timeout: Optional[float] = None,
        age: float = 0.0,
        attempts: int = MAX_ATTEMPTS,
    ) -> Dict[str, Any]:
        """The action chunk for one observation, as PolicyClient.infer.

        An event loop that was busy past the timeout has no answer either: it
        raises DeadlineExceeded, whatever came meanwhile.
        """
        return await self._run(
            self._infer_steps(
                obs, noise, seed, num_steps, timeout, age, attempts
            )
        )

    async def reset(self) -> None:
        """Nothing to do: the server keeps nothing between calls."""

    async def policy_info(
        self, *, timeout: Optional[float] = None
    ) -> policy_pb2.PolicyInfo:
        """What the server says of the policy: cameras, state, horizon, ...

        Raises PolicyMismatch as the first `infer` would.
        """
        return await self._run(self._policy_info_steps(timeout))

    async def wait_until_ready(self, timeout: float = 60.0) -> None:
        """Returns when the server is up and warm.

        Raises PolicyUnavailable if it is not within `timeout` seconds.
        """
        await self._run(self._ready_steps(timeout))

    async def close(self) -> None:
        """Ends the connection; calls still awaited raise PolicyFailure."""
        self._closed = True
        if self._channel is not None:
            await self._channel.close()

    async def __aenter__(self) -> AsyncPolicyClient:
        return self

    async def __aexit__(self, *unused: object) -> None:
        await self.close()

    def _connect(self) -> None:
        # A channel needs the running loop, so the first call opens it.
        self._closed = False
        self._channel: Optional[grpc.aio.Channel] = None
        self._stubs: Dict[str, Any] = {}

    def _stub(self, path: str) -> Any:
        if self._closed:
            raise closed(waiting=False)
        if self._channel is None:
            self._channel = channel = _open(self._address, self._tls)
            self._stubs = {
                method.path: channel.unary_unary(
                    method.path,
                    request_serializer=serialized,
                    response_deserializer=method.parse,
                )
                for method in METHODS
            }
        return self._stubs[path]

    async def _run(self, steps: Steps[_T]) -> _T:
        """Carries the steps out one after another."""
        outcome: Any = None
        failure: Optional[PolicyError] = None
        while True:
            try:
                step = (
                    steps.send(outcome)
                    if failure is None
                    else steps.throw(failure)
                )
            except StopIteration as stop:
                result: _T = stop.value
                return result
            outcome, failure = None, None
            if isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
                continue
            try:
                outcome = await self._send(step)
            except PolicyError as error:
                failure = error

    async def _send(self, step: Send) -> Any:
        stub = self._stub(step.method.path)
        try:
            return await stub(
                step.request, timeout=step.timeout, metadata=self._metadata
            )
        except grpc.RpcError as error:
            raise self._error_of(error, step) from error
        except asyncio.CancelledError:
            # gRPC's word for a channel that was closed, too.
            if not self._closed or _is_cancelled():
                raise
            raise closed(waiting=True) from None


def _is_cancelled() -> bool:
    """Whether somebody cancelled this task, as far as Python tells (3.11)."""
    cancelling = getattr(asyncio.current_task(), "cancelling", None)
    return cancelling is not None and cancelling() > 0


def _open(
    address: str, tls: Optional[grpc.ChannelCredentials]
) -> grpc.aio.Channel:
    options = channel_options(address)
    if tls is None:
        return grpc.aio.insecure_channel(address, options=options)
    return grpc.aio.secure_channel(address, tls, options=options)
