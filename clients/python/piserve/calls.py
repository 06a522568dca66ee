# SPDX-License-Identifier: Apache-2.0
"""What a call to a server does, whoever waits for it.

A call is a generator of steps: something to send with the seconds it may take,
or a pause. PolicyClient and AsyncPolicyClient only carry the steps out, so that
deadlines, retries, checks and what counts as an answer are decided here alone.
"""

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
    Generator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    TypeVar,
    Union,
)

import grpc
import numpy as np
from google.protobuf.message import Message

from piserve._proto import policy_pb2, rpc_pb2
from piserve.arguments import (
    check_age,
    check_duration,
    check_port,
    credential,
    is_local,
)
from piserve.errors import (
    CLOSED,
    DeadlineExceeded,
    InvalidObservation,
    PolicyError,
    PolicyMismatch,
    PolicyNotFound,
    PolicyUnavailable,
    from_rpc,
    is_retriable,
)
from piserve.observations import array_of, observation_request
from piserve.reply import reply_of
from piserve.robots import RobotProfile, check_policy

_T = TypeVar("_T")
MAX_ATTEMPTS = 2  # of the contract
_SERVICE = "piserve.v1.PolicyService"
_RETRY_PAUSE_S = 0.2  # where the server names none: longer than a reconnect's
_HEALTH_PAUSE_S = 0.2
_SERVING = 1
# What another policy in the known one's place may answer, or make of a call.
_MAYBE_ANOTHER_POLICY = (
    InvalidObservation,
    PolicyMismatch,
    PolicyNotFound,
    PolicyUnavailable,
)

_CHANNEL_OPTIONS: Tuple[Tuple[str, int], ...] = (
    ("grpc.enable_retries", 0),  # this client retries by the contract itself
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2000),  # what connecting may take
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.keepalive_time_ms", 20000),
    ("grpc.keepalive_timeout_ms", 10000),
    ("grpc.max_receive_message_length", 8 << 20),
)


def channel_options(address: str) -> Tuple[Tuple[str, int], ...]:
    """How gRPC shall connect to that address."""
    if not is_local(address):
        return _CHANNEL_OPTIONS
    # The environment's http_proxy would lead off this machine.
    return (*_CHANNEL_OPTIONS, ("grpc.enable_http_proxy", 0))


class Method(NamedTuple):
    """A unary method of the server."""

    path: str
    parse: Callable[[bytes], Any]


INFER = Method(f"/{_SERVICE}/Infer", policy_pb2.InferResponse.FromString)
GET_POLICY_INFO = Method(
    f"/{_SERVICE}/GetPolicyInfo", policy_pb2.GetPolicyInfoResponse.FromString
)
CHECK_HEALTH = Method(
    "/grpc.health.v1.Health/Check", rpc_pb2.HealthCheckResponse.FromString
)
METHODS = (INFER, GET_POLICY_INFO, CHECK_HEALTH)


class Send(NamedTuple):
    """Send `request`; resumed with the response, or a PolicyError thrown."""

    method: Method
    request: Message
    timeout: float  # seconds, above 0

    @property
    def service(self) -> str:
        return self.method.path.split("/")[1]


class Pause(NamedTuple):
    """Wait that long; resumed with None."""

    seconds: float


Step = Union[Send, Pause]
Steps = Generator[Step, Any, _T]


class PolicyCalls:
    """The calls of one client as steps, and what they share. Thread safe.

    The arguments are PolicyClient's.
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
        preprocessing_checksum: str = "",
        robot: Optional[RobotProfile] = None,
    ) -> None:
        check_duration("timeout", timeout)
        if max_age is not None:
            check_duration("max_age", max_age)
        if supersede_older and not robot_id:
            raise ValueError("supersede_older needs a robot_id")
        check_port(address)
        if api_key is not None and tls is None and not is_local(address):
            raise ValueError(
                f"api_key would cross the network to {address} in the clear: "
                "give tls=grpc.ssl_channel_credentials(...)"
            )
        self._address = address
        self._tls = tls
        self._policy = policy
        self._timeout = timeout
        self._metadata = credential(api_key or "")
        self._robot_id = robot_id
        self._supersede_older = supersede_older
        self._max_age = max_age
        self._model_digest = model_digest
        self._preprocessing_checksum = preprocessing_checksum
        self._robot = robot
        # Above what a client of this robot before this one has sent.
        self._sequence = itertools.count(time.time_ns())
        self._lock = threading.Lock()  # guards _info
        self._info: Optional[policy_pb2.PolicyInfo] = None
        self._connect()

    def _error_of(self, error: grpc.RpcError, step: Send) -> PolicyError:
        return from_rpc(error, f"{step.service} at {self._address}")

    def _connect(self) -> None:
        """Prepares the channel; connects at the first call."""
        raise NotImplementedError

    # ------------------------------------------------------------- the calls

    def _infer_steps(
        self,
        obs: Mapping[str, Any],
        noise: Optional[np.ndarray],
        seed: Optional[int],
        num_steps: Optional[int],
        timeout: Optional[float],
        age: float,
        attempts: int,
    ) -> Steps[Dict[str, Any]]:
        if attempts < 1:
            raise ValueError(f"attempts: got {attempts}, want at least 1")
        check_age(age)
        budget = _Budget(self._timeout if timeout is None else timeout)
        try:
            return (
                yield from self._answer_steps(
                    obs, noise, seed, num_steps, budget, age, attempts
                )
            )
        except _MAYBE_ANOTHER_POLICY:
            self._forget_info()
            raise

    def _answer_steps(
        self,
        obs: Mapping[str, Any],
        noise: Optional[np.ndarray],
        seed: Optional[int],
        num_steps: Optional[int],
        budget: _Budget,
        age: float,
        attempts: int,
    ) -> Steps[Dict[str, Any]]:
        info = yield from self._known_info(budget)
        request = observation_request(obs, info)
        _set_start(request, info, noise, seed)
        _set_num_steps(request, num_steps)
        self._set_context(request)

        def send(remaining: float) -> Send:
            request.age_us = int((age + budget.elapsed()) * 1e6)
            message = policy_pb2.InferRequest(observation=request)
            return Send(INFER, message, remaining)

        response, made = yield from _attempts(send, budget, attempts)
        result = response.result
        if result.model_digest != info.model_digest:
            info = yield from self._info_of_another_model(result, obs, budget)
        reply = reply_of(result, request, info)
        if budget.remaining() <= 0:
            raise DeadlineExceeded(
                f"the answer came after {budget.elapsed():.3f} s, "
                f"want {budget.total:.3f} s: thrown away",
                reason="REPLY_TOO_LATE",
            )
        reply["client_timing"] = {
            "infer_ms": budget.elapsed() * 1e3,
            "attempts": made,
        }
        return reply

    def _policy_info_steps(
        self, timeout: Optional[float]
    ) -> Steps[policy_pb2.PolicyInfo]:
        budget = _Budget(self._timeout if timeout is None else timeout)
        self._forget_info()
        return (yield from self._known_info(budget))

    def _ready_steps(self, timeout: float) -> Steps[None]:
        budget = _Budget(timeout)
        request = rpc_pb2.HealthCheckRequest(service=_SERVICE)
        last = "not serving yet"
        while budget.remaining() > 0:
            try:
                within = min(1.0, budget.remaining())
                health = yield Send(CHECK_HEALTH, request, within)
                if health.status == _SERVING:
                    return
                last = "not serving yet"
            except PolicyError as error:
                if error.reason == CLOSED:
                    raise
                last = str(error)
            yield Pause(max(0.0, min(_HEALTH_PAUSE_S, budget.remaining())))
        raise PolicyUnavailable(
            f"{self._address} is not ready after {timeout:.1f} s: {last}",
            reason="NOT_READY",
        )

    # ----------------------------------------------------------- policy info

    def _known_info(self, budget: _Budget) -> Steps[policy_pb2.PolicyInfo]:
        """The policy's description, which passed all checks."""
        with self._lock:
            if self._info is not None:
                return self._info
        request = policy_pb2.GetPolicyInfoRequest(policy=self._policy)
        response, _ = yield from _attempts(
            lambda remaining: Send(GET_POLICY_INFO, request, remaining), budget
        )
        info = _only_policy(list(response.policies), self._policy)
        check_policy(
            info,
            robot=self._robot,
            model_digest=self._model_digest,
            preprocessing_checksum=self._preprocessing_checksum,
        )
        with self._lock:
            self._info = info
        return info

    def _info_of_another_model(
        self,
        result: policy_pb2.InferResult,
        obs: Mapping[str, Any],
        budget: _Budget,
    ) -> Steps[policy_pb2.PolicyInfo]:
        """The server was replaced: no robot moves by the new one's answer
        before it passed the checks of the first one."""
        self._forget_info()
        info = yield from self._known_info(budget)
        observation_request(obs, info)  # raises if it does not fit
        if info.model_digest != result.model_digest:
            raise PolicyMismatch(
                f"the answer is of model {result.model_digest[:12]}, the "
                f"server describes {info.model_digest[:12]}",
                reason="MODEL_CHANGED",
            )
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
        check_duration("timeout", total)
        self.total = total
        self._start = time.monotonic()

    def elapsed(self) -> float:
        return time.monotonic() - self._start

    def remaining(self) -> float:
        return self.total - self.elapsed()


def _attempts(
    send: Callable[[float], Send], budget: _Budget, limit: int = MAX_ATTEMPTS
) -> Steps[Tuple[Any, int]]:
    """Sends what `send` gives for the seconds left, again where allowed.

    Returns the response and the number of attempts.
    """
    if budget.remaining() <= 0:
        raise DeadlineExceeded(
            f"{budget.total:.3f} s were over before the request was sent",
            reason="EXPIRED_AT_CLIENT",
        )
    if limit > 1:
        try:
            response = yield send(budget.remaining())
            return response, 1
        except PolicyError as error:
            pause = pause_before_retry(error)
            if pause is None or budget.remaining() <= pause:
                raise
        yield Pause(pause)
    response = yield send(max(budget.remaining(), 1e-3))
    return response, min(limit, MAX_ATTEMPTS)


def pause_before_retry(error: PolicyError) -> Optional[float]:
    """Seconds to wait before asking once more; None: it must not be."""
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
    if not names:
        which = f"policy {name!r}" if name else "policy"
        message = f"no {which} here that this credential may use"
    elif not name:
        message = f"the server hosts {names}: name one of them as policy"
    else:
        message = f"asked for policy {name!r}, got {names}"
    raise PolicyMismatch(message, reason="POLICY_UNCLEAR")


def _set_num_steps(
    request: policy_pb2.ObservationRequest, num_steps: Optional[int]
) -> None:
    if num_steps is None:
        return
    if num_steps < 1:
        raise InvalidObservation(
            f"got {num_steps}, want at least 1", field="num_steps"
        )
    request.num_steps = num_steps


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
        _set_noise(request, info, array_of(noise, "noise", "NOISE_SHAPE"))


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


def serialized(message: Message) -> bytes:
    return message.SerializeToString()
