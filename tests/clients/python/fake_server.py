# SPDX-License-Identifier: Apache-2.0
"""A PolicyService whose answers a test decides."""

from __future__ import annotations

import concurrent.futures
import contextlib
import struct
import threading
from typing import Callable, Iterator, List, Optional

import grpc
import numpy as np
from google.protobuf import any_pb2, duration_pb2
from piserve._proto import policy_pb2, policy_pb2_grpc, rpc_pb2

HORIZON, NOISE_DIM = 4, 6
REQUIRED = policy_pb2.CAMERA_USE_REQUIRED
OPTIONAL = policy_pb2.CAMERA_USE_OPTIONAL
IGNORED = policy_pb2.CAMERA_USE_IGNORED


def libero_info(name: str = "libero") -> policy_pb2.PolicyInfo:
    info = _info(name, state=8, action=7)
    info.cameras.add(name="observation/image", use=REQUIRED)
    info.cameras.add(name="observation/wrist_image", use=REQUIRED)
    return info


def droid_info() -> policy_pb2.PolicyInfo:
    info = _info("droid", state=8, action=8)
    info.cameras.add(name="observation/exterior_image_1_left", use=REQUIRED)
    info.cameras.add(name="observation/wrist_image_left", use=REQUIRED)
    return info


def aloha_info() -> policy_pb2.PolicyInfo:
    info = _info("aloha", state=14, action=14)
    info.default_prompt = "fold the towel"
    info.cameras.add(name="cam_high", use=REQUIRED)
    info.cameras.add(name="cam_low", use=IGNORED)
    info.cameras.add(name="cam_left_wrist", use=OPTIONAL)
    info.cameras.add(name="cam_right_wrist", use=OPTIONAL)
    return info


def _info(name: str, state: int, action: int) -> policy_pb2.PolicyInfo:
    info = policy_pb2.PolicyInfo(
        name=name,
        model_digest="d0",
        action_horizon=HORIZON,
        noise_shape=[HORIZON, NOISE_DIM],
    )
    info.state.add(name="state", unit="1", size=state)
    info.action.add(name="action", unit="1", size=action)
    return info


def status_details(
    code: grpc.StatusCode,
    *,
    reason: str = "",
    field: str = "",
    description: str = "got 3, want 8",
    retry_after: Optional[float] = None,
) -> bytes:
    """grpc-status-details-bin as a server of ours sends it."""
    status = rpc_pb2.Status(code=code.value[0], message="m")
    if reason:
        info = rpc_pb2.ErrorInfo(
            reason=reason, domain="piserve", metadata={"predicted_us": "7"}
        )
        status.details.append(_packed("google.rpc.ErrorInfo", info))
    if field:
        request = rpc_pb2.BadRequest()
        request.field_violations.add(field=field, description=description)
        status.details.append(_packed("google.rpc.BadRequest", request))
    if retry_after is not None:
        delay = duration_pb2.Duration(
            seconds=int(retry_after), nanos=int(retry_after % 1 * 1e9)
        )
        status.details.append(
            _packed(
                "google.rpc.RetryInfo", rpc_pb2.RetryInfo(retry_delay=delay)
            )
        )
    return status.SerializeToString()


def _packed(name: str, message: object) -> any_pb2.Any:
    return any_pb2.Any(
        type_url=f"type.googleapis.com/{name}",
        value=message.SerializeToString(),
    )


def observation(**changes):
    """LIBERO's, as openpi's client gets it; `...` leaves a key out."""
    obs = {
        "observation/image": np.zeros((8, 6, 3), np.uint8),
        "observation/wrist_image": np.ones((8, 6, 3), np.uint8),
        "observation/state": np.arange(8, dtype=np.float32),
        "prompt": "pick up",
    }
    obs.update(changes)
    return {key: value for key, value in obs.items() if value is not ...}


class FakeServer(policy_pb2_grpc.PolicyServiceServicer):
    """Answers `infos`, and each Infer by the next of `script`.

    A script entry is called with (servicer, request, context) and returns the
    response; when the script is empty every request is answered `result_for`.
    """

    def __init__(self, infos: List[policy_pb2.PolicyInfo]) -> None:
        self.infos = infos
        self.ready: Optional[bool] = None  # None: has no health service
        self.script: List[Callable] = []
        self.requests: List[policy_pb2.ObservationRequest] = []
        self.times_left: List[float] = []
        self.metadata: List[dict] = []
        self.info_calls = 0
        self._lock = threading.Lock()

    def GetPolicyInfo(self, request, context):
        with self._lock:
            self.info_calls += 1
        return policy_pb2.GetPolicyInfoResponse(
            policies=[
                info for info in self.infos if request.policy in ("", info.name)
            ]
        )

    def Infer(self, request, context):
        with self._lock:
            self.requests.append(request.observation)
            self.times_left.append(context.time_remaining())
            self.metadata.append(dict(context.invocation_metadata()))
            step = self.script.pop(0) if self.script else FakeServer.answer
        if request.observation.policy not in [i.name for i in self.infos]:
            step = refuse(grpc.StatusCode.NOT_FOUND, reason="UNKNOWN_POLICY")
        return step(self, request.observation, context)

    def answer(self, request, context) -> policy_pb2.InferResponse:
        return policy_pb2.InferResponse(result=self.result_for(request))

    def result_for(self, request) -> policy_pb2.InferResult:
        info = next(i for i in self.infos if i.name == request.policy)
        width = sum(block.size for block in info.action)
        result = policy_pb2.InferResult(
            request_id=request.request_id,
            policy=info.name,
            model_digest=info.model_digest,
            deadline_us=1_000_000,
            wave_rows=1,
            graph_rows=1,
            num_steps=10,
            seed=9,
        )
        result.actions.dtype = policy_pb2.DATA_TYPE_FLOAT32
        result.actions.shape.extend([HORIZON, width])
        result.actions.data = b"".join(
            struct.pack("<f", step) * width for step in range(HORIZON)
        )
        for stage, micros in (("decode", 1500), ("gpu", 4000), ("denoise", 9)):
            result.stages.add(stage=stage, duration_us=micros)
        return result


class Held:
    """A script entry that answers once released, and tells when it is asked."""

    def __init__(self) -> None:
        self.arrived = threading.Event()
        self.release = threading.Event()

    def __call__(self, server, request, context):
        self.arrived.set()
        self.release.wait(10)
        return server.answer(request, context)


def refuse(code: grpc.StatusCode, *, pushback_ms: str = "", **details):
    """A script entry that refuses as the contract says."""

    def step(server, request, context):
        trailers = []
        if details:
            trailers.append(
                ("grpc-status-details-bin", status_details(code, **details))
            )
        if pushback_ms:
            trailers.append(("grpc-retry-pushback-ms", pushback_ms))
        context.set_trailing_metadata(trailers)
        context.abort(code, "got this, want that")

    return step


def _health(servicer: FakeServer) -> grpc.GenericRpcHandler:
    def check(request, context):
        return rpc_pb2.HealthCheckResponse(status=1 if servicer.ready else 2)

    return grpc.method_handlers_generic_handler(
        "grpc.health.v1.Health",
        {
            "Check": grpc.unary_unary_rpc_method_handler(
                check,
                request_deserializer=rpc_pb2.HealthCheckRequest.FromString,
                response_serializer=lambda reply: reply.SerializeToString(),
            )
        },
    )


@contextlib.contextmanager
def serving(
    servicer: FakeServer,
    address: str = "127.0.0.1:0",
    health: Optional[Callable] = None,
) -> Iterator[str]:
    """Runs the servicer; yields its address.

    health  answers Health.Check with bytes; None: there is no such service.
    """
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(8))
    if health is not None:
        check = grpc.unary_unary_rpc_method_handler(health)
        service = "grpc.health.v1.Health"
        handler = grpc.method_handlers_generic_handler
        server.add_generic_rpc_handlers((handler(service, {"Check": check}),))
    if servicer.ready is not None:
        server.add_generic_rpc_handlers((_health(servicer),))
    policy_pb2_grpc.add_PolicyServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port(address)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
