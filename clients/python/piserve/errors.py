# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with a request, as types.

Every error carries `code` (a gRPC status code), `reason` (the server's stable
word, e.g. "QUEUE_FULL", or this package's), and where they apply `field` (path
of the offending field), `retry_after` (seconds) and `metadata`.
"""

from __future__ import annotations

from typing import Any, Dict, Iterable, Mapping, Optional, Tuple, Type

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from piserve._proto import rpc_pb2

_DOMAIN = "piserve"
CLOSED = "CLOSED"  # reason: the client was closed


class PolicyError(RuntimeError):
    """No actions came of a request. The base of all errors raised here.

    A RuntimeError, which openpi's client raises for an error of the server.
    """

    code = grpc.StatusCode.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        field: str = "",
        retry_after: Optional[float] = None,
        metadata: Optional[Mapping[str, str]] = None,
        code: Optional[grpc.StatusCode] = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.field = field
        self.retry_after = retry_after
        self.metadata: Dict[str, str] = dict(metadata or {})
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        where = f"{self.field}: " if self.field else ""
        if self.message.startswith(where):
            where = ""  # a server of ours names the field itself
        reason = f" [{self.reason}]" if self.reason else ""
        return f"{where}{self.message}{reason}"


class InvalidObservation(PolicyError, ValueError):
    """The observation is not what the policy takes."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class PolicyNotFound(PolicyError, LookupError):
    """The server hosts no policy of that name."""

    code = grpc.StatusCode.NOT_FOUND


class PolicyMismatch(PolicyError):
    """The policy is not the one asked for: other weights, other step counts."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class NotAllowed(PolicyError, PermissionError):
    """No or a bad credential (UNAUTHENTICATED), or it may not do this."""

    code = grpc.StatusCode.PERMISSION_DENIED


class QueueFull(PolicyError):
    """The server holds as much work as it can finish in time."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class MessageTooLarge(PolicyError, ValueError):
    """Over the server's message limit: send images as JPEG or PNG bytes."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class DeadlineExceeded(PolicyError, TimeoutError):
    """No answer in time. An answer that came late was thrown away."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class StaleObservation(PolicyError):
    """Too old when its turn came, or replaced by this robot's newer one."""

    code = grpc.StatusCode.ABORTED


class PolicyUnavailable(PolicyError, ConnectionError):
    """The server is out of reach, warming up, draining or without device."""

    code = grpc.StatusCode.UNAVAILABLE


class PolicyFailure(PolicyError):
    """The server or its reply is broken, for example actions not finite."""

    code = grpc.StatusCode.INTERNAL


_TYPES: Dict[grpc.StatusCode, Type[PolicyError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidObservation,
    grpc.StatusCode.NOT_FOUND: PolicyNotFound,
    grpc.StatusCode.FAILED_PRECONDITION: PolicyMismatch,
    grpc.StatusCode.UNAUTHENTICATED: NotAllowed,
    grpc.StatusCode.PERMISSION_DENIED: NotAllowed,
    grpc.StatusCode.RESOURCE_EXHAUSTED: QueueFull,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.ABORTED: StaleObservation,
    grpc.StatusCode.UNAVAILABLE: PolicyUnavailable,
}


def closed(*, waiting: bool) -> PolicyFailure:
    """What becomes of a call that its client's `close` cuts short, or that
    comes after it."""
    when = "was closed before an answer came" if waiting else "is closed"
    return PolicyFailure(f"the client {when}", reason=CLOSED)


def from_rpc(error: grpc.RpcError, called: str) -> PolicyError:
    """The typed error for what a gRPC call ended with.

    called  whom the call was for: "service at address".
    """
    code, message = _code_and_message(error)
    details = _Details(error)
    if code == grpc.StatusCode.UNIMPLEMENTED and not details.reason:
        message = _no_such_service(called, message)
    if code == grpc.StatusCode.CANCELLED and not details.reason:
        # gRPC's own end of what a server that stops has not read whole; what
        # the client's `close` cancels does not come here.
        code = grpc.StatusCode.UNAVAILABLE
        message = "the server cancelled the call, which it does when it stops"
    kind = _TYPES.get(code, PolicyFailure)
    if kind is QueueFull and not details.reason:
        kind = MessageTooLarge  # gRPC's own refusal, before the server saw it
    return kind(
        details.description
        or message
        or f"got {code.name} and no message from {called}",
        reason=details.reason,
        field=details.field,
        retry_after=details.retry_after(code),
        metadata=details.metadata,
        code=code,
    )


def is_retriable(error: PolicyError) -> bool:
    """Whether the contract lets a client send the request once more."""
    if error.retry_after is not None and error.retry_after < 0:
        return False  # the server's pushback says never
    if error.code == grpc.StatusCode.UNAVAILABLE:
        return True
    return isinstance(error, QueueFull) and error.retry_after is not None


def _no_such_service(called: str, message: str) -> str:
    said = f" ({message})" if message else ""
    return (
        f"there is no {called}: is this the public port of a piserve server?"
        f"{said}"
    )


def _code_and_message(error: grpc.RpcError) -> Tuple[grpc.StatusCode, str]:
    if isinstance(error, (grpc.Call, grpc.aio.AioRpcError)):
        return error.code(), error.details() or ""
    return grpc.StatusCode.UNKNOWN, str(error)


class _Details:
    """google.rpc details and the pushback trailer of a failed call."""

    def __init__(self, error: grpc.RpcError) -> None:
        self.reason = ""
        self.field = ""
        self.description = ""
        self.metadata: Dict[str, str] = {}
        self._retry_delay: Optional[float] = None  # RetryInfo's
        self._pushback: Optional[float] = None
        for key, value in _trailers(error):
            if key == "grpc-status-details-bin":
                self._read_status(value)
            elif key == "grpc-retry-pushback-ms":
                self._read_pushback(value)

    def retry_after(self, code: grpc.StatusCode) -> Optional[float]:
        """Seconds until the request may be sent once more; below 0: never."""
        exhausted = code == grpc.StatusCode.RESOURCE_EXHAUSTED
        if exhausted and self._retry_delay is None:
            return None  # a pushback says when, RetryInfo that it may be
        return self._retry_delay if self._pushback is None else self._pushback

    def _read_status(self, value: bytes) -> None:
        try:
            status = rpc_pb2.Status.FromString(value)
            for detail in status.details:
                self._read_detail(detail.type_url, detail.value)
        except DecodeError:
            return  # details only refine the code, which is known

    def _read_detail(self, type_url: str, value: bytes) -> None:
        name = type_url.rsplit("/", 1)[-1]
        if name == "google.rpc.ErrorInfo":
            info = rpc_pb2.ErrorInfo.FromString(value)
            if info.domain == _DOMAIN:
                self.reason = info.reason
            self.metadata = dict(info.metadata)
        elif name == "google.rpc.BadRequest":
            request = rpc_pb2.BadRequest.FromString(value)
            if request.field_violations:
                first = request.field_violations[0]
                self.field = first.field
                self.description = first.description
        elif name == "google.rpc.RetryInfo":
            delay = rpc_pb2.RetryInfo.FromString(value).retry_delay
            self._retry_delay = delay.seconds + delay.nanos * 1e-9

    def _read_pushback(self, value: object) -> None:
        text = value.decode() if isinstance(value, bytes) else str(value)
        try:
            self._pushback = int(text) * 1e-3
        except ValueError:
            self._pushback = -1.0  # gRPC's rule: unreadable means never


def _trailers(error: grpc.RpcError) -> Iterable[Tuple[str, Any]]:
    if not isinstance(error, (grpc.Call, grpc.aio.AioRpcError)):
        return ()
    trailers: Any = error.trailing_metadata()
    return trailers or ()
