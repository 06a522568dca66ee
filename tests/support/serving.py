# SPDX-License-Identifier: Apache-2.0
"""What end-to-end tests share: binaries, configurations, raw calls."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import pathlib
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator

import grpc
import pytest
from piserve._proto import policy_pb2, rpc_pb2
from piserve.observations import observation_request
from piserve.reply import actions_of
from server_process import CONFIGS, ROOT, ServerProcess, metrics

# For config_text.
PATIENT = {"predicted_ms: 2000": "predicted_ms: 20000"}

SERVICE = "/piserve.v1.PolicyService/"


def binary(name: str) -> pathlib.Path:
    """A program that was built.

    PISERVE_BUILD names the build folder. Without it, build/dev is meant, and
    what is missing there skips the test.
    """
    named = os.environ.get("PISERVE_BUILD")
    folder = pathlib.Path(named) if named else ROOT / "build" / "dev"
    path = (folder / "bin" if (folder / "bin").exists() else folder) / name
    if path.exists():
        return path
    if named:
        pytest.fail(f"{path} was not built")
    pytest.skip(f"SKIPPED: {path} was not built; set PISERVE_BUILD")


@contextlib.contextmanager
def serving_config(name: str) -> Iterator[ServerProcess]:
    """A warm server of a file in deploy/config, which must stop cleanly.

    Its queue is long: what these tests ask is whether answers are right, also
    on a machine whose cores are busy with other work.
    """
    with tempfile.TemporaryDirectory() as folder:
        text = config_text(name, **PATIENT)
        with serving(write_config(pathlib.Path(folder), text)) as server:
            yield server


@contextlib.contextmanager
def serving(
    *flags: str, program: str = "policy_server"
) -> Iterator[ServerProcess]:
    """A warm server, which must stop cleanly unless it has ended by then."""
    with ServerProcess(binary(program), flags) as server:
        server.wait_until_ready()
        yield server
        if server.running:
            server.stop()


def run_client(
    server: ServerProcess, program: str, *arguments: str, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """A client program's call or load on the server, whatever its exit code."""
    return subprocess.run(
        [
            binary(program),
            f"--address={server.addresses.public}",
            *arguments,
        ],
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def config_text(name: str, extra: str = "", **replacements: str) -> str:
    """A file of deploy/config, its paths absolute, with `extra` at its end."""
    text = (CONFIGS / f"{name}.textproto").read_text()
    text = text.replace('"../../', f'"{ROOT}/')
    for old, new in replacements.items():
        assert old in text, f"{name} has no {old}"
        text = text.replace(old, new)
    return f"{text}\n{extra}\n"


def write_config(folder: pathlib.Path, text: str) -> str:
    """The flag that names a configuration of this text."""
    path = folder / "config.textproto"
    path.write_text(text)
    return f"--config={path}"


def in_threads(count: int, work):
    """[work(0), work(1), ...], each in a thread; raises what one raised."""
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, range(count)))


def total(server: ServerProcess, name: str, label: str = "") -> float:
    """Samples of a metric by name, summed over labels that hold `label`."""
    return sum(
        value
        for sample, value in metrics(server.get("/metrics")).items()
        if sample.split("{")[0] == name and label in sample
    )


def wait_until(condition: Callable[[], bool], timeout: float = 20.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "did not come about in time"
        time.sleep(0.01)


class RawClient:
    """Bytes in, a result or what the call ended with out."""

    def __init__(self, address: str, **metadata: str) -> None:
        self._channel = grpc.insecure_channel(
            address, [("grpc.enable_retries", 0)]
        )
        self._metadata = list(metadata.items())
        self._infer = self._channel.unary_unary(f"{SERVICE}Infer")
        self._stream = self._channel.stream_stream(f"{SERVICE}InferStream")
        self._info = self._channel.unary_unary(f"{SERVICE}GetPolicyInfo")

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *unused: object) -> None:
        self._channel.close()

    def infer(self, message, timeout: float | None = 20.0):
        """InferResult, or Refusal."""
        try:
            reply = self._infer(
                _bytes(message), timeout=timeout, metadata=self._metadata
            )
        except grpc.RpcError as error:
            return Refusal.of(error)
        return policy_pb2.InferResponse.FromString(reply).result

    def stream(self, messages, timeout: float = 30.0):
        """{request_id: InferResult or Refusal} for one stream's requests."""
        answers = {}
        replies = self._stream(
            iter([_bytes(message) for message in messages]),
            timeout=timeout,
            metadata=self._metadata,
        )
        for reply in replies:
            answer = policy_pb2.InferStreamResponse.FromString(reply)
            if answer.HasField("error"):
                outcome = Refusal(answer.error)
            else:
                outcome = answer.result
            answers.setdefault(answer.request_id, []).append(outcome)
        return answers

    def info(self, policy: str = ""):
        request = policy_pb2.GetPolicyInfoRequest(policy=policy)
        try:
            reply = self._info(
                _bytes(request), timeout=10, metadata=self._metadata
            )
        except grpc.RpcError as error:
            return Refusal.of(error)
        return policy_pb2.GetPolicyInfoResponse.FromString(reply)


def _bytes(message) -> bytes:
    if isinstance(message, policy_pb2.ObservationRequest):
        message = policy_pb2.InferRequest(observation=message)
    return (
        message if isinstance(message, bytes) else message.SerializeToString()
    )


class Refusal:
    """What a request ended with: a policy_pb2.Error, or google.rpc.Status."""

    def __init__(self, status, trailers=()) -> None:
        self.code = next(
            code for code in grpc.StatusCode if code.value[0] == status.code
        )
        self.message = status.message
        self.details = {
            detail.type_url.rsplit(".", 1)[-1]: detail.value
            for detail in status.details
        }
        self.trailers = dict(trailers)

    @classmethod
    def of(cls, error: grpc.RpcError) -> Refusal:
        trailers = dict(error.trailing_metadata() or ())
        status = rpc_pb2.Status.FromString(
            trailers.pop("grpc-status-details-bin", b"")
        )
        status.code, status.message = error.code().value[0], error.details()
        return cls(status, trailers)

    @property
    def reason(self) -> str:
        if "ErrorInfo" not in self.details:
            return ""
        info = rpc_pb2.ErrorInfo.FromString(self.details["ErrorInfo"])
        assert info.domain == "piserve"
        return info.reason

    @property
    def field(self) -> str:
        """The path that BadRequest names; empty without one."""
        if "BadRequest" not in self.details:
            return ""
        request = rpc_pb2.BadRequest.FromString(self.details["BadRequest"])
        return request.field_violations[0].field

    @property
    def retry_after(self) -> float | None:
        if "RetryInfo" not in self.details:
            return None
        delay = rpc_pb2.RetryInfo.FromString(self.details["RetryInfo"])
        return delay.retry_delay.seconds + delay.retry_delay.nanos * 1e-9

    def __repr__(self) -> str:
        return f"{self.code.name} {self.field} [{self.reason}] {self.message}"


def array(values) -> policy_pb2.Array:
    """float32 on the wire."""
    return policy_pb2.Array(
        dtype=policy_pb2.DATA_TYPE_FLOAT32,
        shape=values.shape,
        data=values.astype("<f4").tobytes(),
    )


def request_for(recording, info, **fields) -> policy_pb2.ObservationRequest:
    """The observation and noise of a recording, as a message."""
    request = observation_request(recording.observation, info)
    request.noise.CopyFrom(array(recording.noise))
    for name, value in fields.items():
        setattr(request, name, value)
    return request


def assert_equal_to_openpi(recording, result) -> None:
    """An InferResult within the bounds of the recording's actions."""
    assert not isinstance(result, Refusal), result
    info = policy_pb2.PolicyInfo(
        model_digest=result.model_digest,
        action_horizon=recording.actions.shape[0],
    )
    info.action.add(size=recording.actions.shape[1])
    difference = recording.difference(actions_of(result, info))
    assert difference.within, difference
