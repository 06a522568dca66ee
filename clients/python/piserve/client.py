# SPDX-License-Identifier: Apache-2.0
"""The client a robot calls."""

from __future__ import annotations

import itertools
import random
import threading
import time
import uuid
from typing import (
    Any,
    Callable,
    Dict,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    TypeVar,
)

import grpc
import numpy as np
from google.protobuf.message import Message

from piserve._proto import policy_pb2, rpc_pb2
from piserve.errors import (
    DeadlineExceeded,
    InvalidObservation,
    PolicyError,
    PolicyMismatch,
    PolicyUnavailable,
    from_rpc,
    is_retriable,
)
from piserve.observations import observation_request
from piserve.reply import reply_of

_T = TypeVar("_T")
_SERVICE = "piserve.v1.PolicyService"
_RETRY_PAUSE_S = 0.2  # where the server names none: longer than a reconnect's
_HEALTH_PAUSE_S = 0.2
_SERVING = 1

_CHANNEL_OPTIONS: Tuple[Tuple[str, int], ...] = (
    ("grpc.enable_retries", 0),  # this client retries by the contract itself
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.keepalive_time_ms", 20000),
    ("grpc.keepalive_timeout_ms", 10000),
    ("grpc.max_receive_message_length", 8 << 20),
)


class PolicyClient:
    """Asks a piserve server for action chunks. Thread safe.

    address     "host:port" (or any gRPC target) of the public port.
    policy      name of the policy; empty for a server with only one.
    timeout     seconds a call may take in all, its retry included.
    api_key     sent as "authorization: Api-Key <key>". Needs `tls`, unless the
                server is on this machine.
    tls         `grpc.ssl_channel_credentials(...)`; None: plain text.
    robot_id    names the robot for fairness and `supersede_older`; <= 64 bytes.
    supersede_older  a newer observation of this robot_id replaces one that
                still waits, which then raises StaleObservation.
    max_age     seconds an observation may be old when its computation starts,
                else StaleObservation; None: no limit.
    model_digest  refuses to be answered by other weights (PolicyMismatch).

    Connects at the first call, and again after a loss, with backoff. Every
    method raises PolicyError's subclasses (piserve.errors) and nothing else for
    what the server or the network did.
    """

    def __init__(
        self,
        address: str = "127.0.0.1:50051",
        *,
        policy: str = "",
        timeout: float = 5.0,
        api_key: Optional[str] = None,
        tls: Optional[grpc.ChannelCredentials] = None,
        robot_id: str = "",
        supersede_older: bool = False,
        max_age: Optional[float] = None,
        model_digest: str = "",
    ) -> None:
        if timeout <= 0:
            raise ValueError(f"timeout: got {timeout} s, want more than 0")
        if supersede_older and not robot_id:
            raise ValueError("supersede_older needs a robot_id")
        if api_key is not None and tls is None and not _is_local(address):
            raise ValueError(
                f"api_key would cross the network to {address} in the clear: "
                "give tls=grpc.ssl_channel_credentials(...)"
            )
        self._address = address
        self._policy = policy
        self._timeout = timeout
        self._metadata: Tuple[Tuple[str, str], ...] = (
            (("authorization", f"Api-Key {api_key}"),) if api_key else ()
        )
        self._robot_id = robot_id
        self._supersede_older = supersede_older
        self._max_age = max_age
        self._model_digest = model_digest
        self._sequence = itertools.count(1)
        self._lock = threading.Lock()  # guards _info
        self._info: Optional[policy_pb2.PolicyInfo] = None
        self._channel = _open(address, tls)
        self._infer = self._method(
            f"/{_SERVICE}/Infer", policy_pb2.InferResponse.FromString
        )
        self._get_info = self._method(
            f"/{_SERVICE}/GetPolicyInfo",
            policy_pb2.GetPolicyInfoResponse.FromString,
        )
        self._check = self._method(
            "/grpc.health.v1.Health/Check",
            rpc_pb2.HealthCheckResponse.FromString,
        )

    def infer(
        self,
        obs: Mapping[str, Any],
        *,
        noise: Optional[np.ndarray] = None,
        seed: Optional[int] = None,
        num_steps: Optional[int] = None,
        timeout: Optional[float] = None,
        age: float = 0.0,
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
        budget = _Budget(self._timeout if timeout is None else timeout)
        info = self._known_info(budget)
        request = observation_request(obs, info)
        _set_start(request, info, noise, seed)
        if num_steps is not None:
            if num_steps < 1:
                raise InvalidObservation(
                    f"got {num_steps}, want at least 1", field="num_steps"
                )
            request.num_steps = num_steps
        self._set_context(request)

        def attempt(remaining: float) -> Any:
            request.age_us = int((age + budget.elapsed()) * 1e6)
            return self._infer(
                policy_pb2.InferRequest(observation=request), remaining
            )

        response, attempts = _call(attempt, budget)
        result = response.result
        reply = reply_of(result, request, info)
        if result.model_digest != info.model_digest:
            self._forget_info()  # the server was replaced: look again next time
        if budget.remaining() <= 0:
            raise DeadlineExceeded(
                f"the answer came after {budget.elapsed():.3f} s, "
                f"want {budget.total:.3f} s: thrown away",
                reason="REPLY_TOO_LATE",
            )
        reply["client_timing"] = {
            "infer_ms": budget.elapsed() * 1e3,
            "attempts": attempts,
        }
        return reply

    def reset(self) -> None:
        """Nothing to do: the server keeps nothing between calls."""

    def policy_info(
        self, *, timeout: Optional[float] = None
    ) -> policy_pb2.PolicyInfo:
        """What the server says of the policy: cameras, state, horizon, ..."""
        budget = _Budget(self._timeout if timeout is None else timeout)
        self._forget_info()
        return self._known_info(budget)

    def wait_until_ready(self, timeout: float = 60.0) -> None:
        """Returns when the server is up and warm.

        Raises PolicyUnavailable if it is not within `timeout` seconds.
        """
        budget = _Budget(timeout)
        request = rpc_pb2.HealthCheckRequest(service=_SERVICE)
        last = "not serving yet"
        while budget.remaining() > 0:
            try:
                status = self._check(request, min(1.0, budget.remaining()))
                if status.status == _SERVING:
                    return
                last = "not serving yet"
            except PolicyError as error:
                last = str(error)
            time.sleep(max(0.0, min(_HEALTH_PAUSE_S, budget.remaining())))
        raise PolicyUnavailable(
            f"{self._address} is not ready after {timeout:.1f} s: {last}",
            reason="NOT_READY",
        )

    def close(self) -> None:
        """Ends the connection; calls still waiting raise PolicyFailure."""
        self._channel.close()

    def __enter__(self) -> PolicyClient:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def _method(
        self, path: str, parse: Callable[[bytes], Any]
    ) -> Callable[[Any, float], Any]:
        call: Any = self._channel.unary_unary(
            path,
            request_serializer=_serialized,
            response_deserializer=parse,
        )

        def invoke(request: Any, timeout: float) -> Any:
            try:
                return call(request, timeout=timeout, metadata=self._metadata)
            except grpc.RpcError as error:
                raise from_rpc(error) from error

        return invoke

    def _known_info(self, budget: _Budget) -> policy_pb2.PolicyInfo:
        with self._lock:
            if self._info is not None:
                return self._info
        request = policy_pb2.GetPolicyInfoRequest(policy=self._policy)
        response, _ = _call(lambda left: self._get_info(request, left), budget)
        info = _only_policy(list(response.policies), self._policy)
        with self._lock:
            self._info = info
        return info

    def _forget_info(self) -> None:
        with self._lock:
            self._info = None

    def _set_context(self, request: policy_pb2.ObservationRequest) -> None:
        request.request_id = uuid.uuid4().hex
        request.robot_id = self._robot_id
        request.sequence = next(self._sequence)
        request.supersede_older = self._supersede_older
        request.model_digest = self._model_digest
        if self._max_age is not None:
            request.max_age_us = max(1, int(self._max_age * 1e6))


class _Budget:
    """How much of a call's time is left, by the monotonic clock."""

    def __init__(self, total: float) -> None:
        if total <= 0:
            raise ValueError(f"timeout: got {total} s, want more than 0")
        self.total = total
        self._start = time.monotonic()

    def elapsed(self) -> float:
        return time.monotonic() - self._start

    def remaining(self) -> float:
        return self.total - self.elapsed()


def _call(attempt: Callable[[float], _T], budget: _Budget) -> Tuple[_T, int]:
    """Calls `attempt` with the seconds left, and once more if that is allowed.

    Returns its result and the number of attempts.
    """
    if budget.remaining() <= 0:
        raise DeadlineExceeded(
            f"{budget.total:.3f} s were over before the request was sent",
            reason="EXPIRED_AT_CLIENT",
        )
    try:
        return attempt(budget.remaining()), 1
    except PolicyError as error:
        pause = _pause_before_retry(error)
        if pause is None or budget.remaining() <= pause:
            raise
    time.sleep(pause)
    return attempt(max(budget.remaining(), 1e-3)), 2


def _pause_before_retry(error: PolicyError) -> Optional[float]:
    if not is_retriable(error):
        return None
    if error.retry_after is not None:
        return error.retry_after
    return _RETRY_PAUSE_S * random.uniform(0.75, 1.25)


def _only_policy(
    policies: Sequence[policy_pb2.PolicyInfo], name: str
) -> policy_pb2.PolicyInfo:
    if len(policies) == 1:
        return policies[0]
    names: List[str] = sorted(info.name for info in policies)
    raise PolicyMismatch(
        f"the server hosts {names}: name one of them as policy"
        if not name
        else f"asked for policy {name!r}, got {names}",
        reason="POLICY_UNCLEAR",
    )


def _set_start(
    request: policy_pb2.ObservationRequest,
    info: policy_pb2.PolicyInfo,
    noise: Optional[np.ndarray],
    seed: Optional[int],
) -> None:
    if noise is not None and seed is not None:
        raise InvalidObservation(
            "noise and seed are both given, want one", field="noise"
        )
    if seed is not None:
        if not 0 <= seed < 1 << 64:
            raise InvalidObservation(
                f"got {seed}, want 0 to 2^64 - 1", field="seed"
            )
        request.seed = seed
    if noise is not None:
        _set_noise(request, info, np.asarray(noise))


def _set_noise(
    request: policy_pb2.ObservationRequest,
    info: policy_pb2.PolicyInfo,
    noise: np.ndarray,
) -> None:
    want = tuple(info.noise_shape)
    if noise.shape == (1, *want):
        noise = noise[0]  # openpi takes a batch of one as well
    if noise.dtype.kind != "f" or noise.shape != want:
        raise InvalidObservation(
            f"got {noise.dtype} {list(noise.shape)}, want float32 {list(want)}",
            reason="NOISE_SHAPE",
            field="noise",
        )
    request.noise.dtype = policy_pb2.DATA_TYPE_FLOAT32
    request.noise.shape.extend(want)
    request.noise.data = noise.astype("<f4").tobytes()


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()


def _open(address: str, tls: Optional[grpc.ChannelCredentials]) -> grpc.Channel:
    if tls is None:
        return grpc.insecure_channel(address, options=_CHANNEL_OPTIONS)
    return grpc.secure_channel(address, tls, options=_CHANNEL_OPTIONS)


def _is_local(address: str) -> bool:
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    host = address.rsplit(":", 1)[0].strip("[]")
    return host in ("localhost", "::1") or host.startswith("127.")
