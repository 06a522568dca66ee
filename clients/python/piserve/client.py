# SPDX-License-Identifier: Apache-2.0
"""The client a robot calls."""

from __future__ import annotations

import time
from typing import Any, Dict, Mapping, Optional, TypeVar

import grpc
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


class PolicyClient(PolicyCalls):
    """Asks a piserve server for action chunks. Thread safe.

    address     "host:port" (or any gRPC target) of the public port.
    policy      name of the policy; empty for a server with only one.
    timeout     seconds a call may take in all, its retry included.
    api_key     sent as "authorization: Api-Key <key>"; whitespace around it is
                not. Needs `tls`, unless the address is localhost, a loopback IP
                address or a unix socket.
    tls         `grpc.ssl_channel_credentials(...)`; None: plain text.
    robot_id    names the robot for fairness and `supersede_older`; <= 64 bytes.
    supersede_older  a newer observation of this robot_id replaces one that
                still waits, which then raises StaleObservation. Observations
                are numbered from this machine's time on, in nanoseconds, so
                that those of a restarted robot are newer than what it left.
    max_age     seconds an observation may be old when its computation starts,
                else StaleObservation; None: no limit.
    model_digest  refuses to be answered by other weights (PolicyMismatch).
    preprocessing_checksum  refuses a policy that normalises by other statistics
                or treats images otherwise (PolicyMismatch).
    robot       refuses a policy for another robot (PolicyMismatch): its
                cameras, its state's and its actions' blocks. piserve.LIBERO,
                ALOHA, DROID, or one of your own.

    All that is refused is refused before an observation is sent; and when the
    server was replaced meanwhile, before its answer is handed out.

    Connects at the first call, and again after a loss, with backoff. Every
    method raises PolicyError's subclasses (piserve.errors) and nothing else for
    what the server or the network did, and ValueError for a time that is none:
    `timeout` and `max_age` are above 0 and at most a million seconds, `age` is
    finite and not below 0.
    """

    def infer(
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
        """The action chunk for one observation.

        obs        openpi's dict for LIBERO, ALOHA or DROID; which one, the
                   policy's cameras say.
        noise      float [horizon, model_action_dim], the start of the flow; or
        seed       an unsigned 64-bit number that the server draws it from. At
                   most one of both; neither: a fresh seed.
        num_steps  Euler steps; None: the policy's default.
        timeout    seconds, in place of the client's.
        age        seconds since the observation was captured.
        attempts   1: never asked once more.

        Returns
            actions         float64 [horizon, action_dim], robot units, finite
            policy_timing   infer_ms: the model alone
            server_timing   infer_ms: all of the server; <stage>_ms each
            client_timing   infer_ms: this call; attempts
            policy, model_digest, request_id, seed (None if noise was given),
            num_steps, wave_rows, graph_rows, deadline_ms

        An answer that comes after the timeout is thrown away: it raises
        DeadlineExceeded like one that never comes. An UNAVAILABLE server, or a
        full queue that says when to come back, is asked once more within the
        timeout.
        """
        return self._run(
            self._infer_steps(
                obs, noise, seed, num_steps, timeout, age, attempts
            )
        )

    def reset(self) -> None:
        """Nothing to do: the server keeps nothing between calls."""

    def policy_info(
        self, *, timeout: Optional[float] = None
    ) -> policy_pb2.PolicyInfo:
        """What the server says of the policy: cameras, state, horizon, ...

        Raises PolicyMismatch as the first `infer` would.
        """
        return self._run(self._policy_info_steps(timeout))

    def wait_until_ready(self, timeout: float = 60.0) -> None:
        """Returns when the server is up and warm.

        Raises PolicyUnavailable if it is not within `timeout` seconds.
        """
        self._run(self._ready_steps(timeout))

    def close(self) -> None:
        """Ends the connection.

        Calls still waiting raise PolicyFailure with the reason CLOSED.
        """
        self._closed = True
        self._channel.close()

    def __enter__(self) -> PolicyClient:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def _connect(self) -> None:
        self._closed = False
        self._channel = _open(self._address, self._tls)
        self._stubs: Dict[str, Any] = {
            method.path: self._channel.unary_unary(
                method.path,
                request_serializer=serialized,
                response_deserializer=method.parse,
            )
            for method in METHODS
        }

    def _run(self, steps: Steps[_T]) -> _T:
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
                time.sleep(step.seconds)
                continue
            try:
                outcome = self._send(step)
            except PolicyError as error:
                failure = error

    def _send(self, step: Send) -> Any:
        stub = self._stubs[step.method.path]
        try:
            return stub(
                step.request, timeout=step.timeout, metadata=self._metadata
            )
        except grpc.RpcError as error:
            if self._closed and error.code() == grpc.StatusCode.CANCELLED:
                raise closed(waiting=True) from None
            raise self._error_of(error, step) from error
        except ValueError:
            # gRPC's word for a channel that was closed.
            if not self._closed:
                raise
            raise closed(waiting=False) from None


def _open(address: str, tls: Optional[grpc.ChannelCredentials]) -> grpc.Channel:
    options = channel_options(address)
    if tls is None:
        return grpc.insecure_channel(address, options=options)
    return grpc.secure_channel(address, tls, options=options)
