# SPDX-License-Identifier: Apache-2.0
"""Two policies of known quality, behind the wire that every policy has.

python -m piserve.libero.controls expert --address 127.0.0.1:50061

`expert` is scripted and must succeed; `zero` does nothing and must fail. An
evaluation that finds otherwise is wrong, whatever it says of other policies.

The expert cannot see: its PolicyInfo asks for a second block of state named
"simulator", and an evaluation that has a simulator sends what the block wants
(`Environment.privileged`). The rest of the request is a policy's, and the reply
goes the way of every reply.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import sys
import time
from typing import Any, Callable, Dict, List, Optional

import grpc
import numpy as np

from piserve._proto import policy_pb2, policy_pb2_grpc, rpc_pb2

from .expert import PRIVILEGED_DIM, expert_chunk
from .protocol import ACTION_DIM, PRIVILEGED_BLOCK, STATE_DIM

HORIZON = 10
_SERVING = 1


def _zeros(state: np.ndarray, horizon: int) -> np.ndarray:
    return np.zeros((horizon, ACTION_DIM))


_CONTROLS: Dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "expert": expert_chunk,
    "zero": _zeros,
}
CONTROLS = sorted(_CONTROLS)


class ControlService(policy_pb2_grpc.PolicyServiceServicer):
    """A PolicyService with one control as its only policy.

    Checks what a policy's server checks: name, cameras, length of the state.
    """

    def __init__(self, name: str) -> None:
        self.info = _info(name)
        self._chunk = _CONTROLS[name]

    def GetPolicyInfo(
        self, request: policy_pb2.GetPolicyInfoRequest, context: Any
    ) -> policy_pb2.GetPolicyInfoResponse:
        self._check_name(request.policy, context)
        return policy_pb2.GetPolicyInfoResponse(policies=[self.info])

    def Infer(
        self, request: policy_pb2.InferRequest, context: Any
    ) -> policy_pb2.InferResponse:
        observation = request.observation
        self._check_name(observation.policy, context)
        self._check(observation, context)
        start = time.monotonic()
        state = np.array(observation.state, np.float64)
        chunk = self._chunk(state, HORIZON).astype("<f4")
        result = policy_pb2.InferResult(
            request_id=observation.request_id,
            policy=self.info.name,
            model_digest=self.info.model_digest,
            wave_rows=1,
            graph_rows=1,
            seed=observation.seed,
        )
        result.actions.dtype = policy_pb2.DATA_TYPE_FLOAT32
        result.actions.shape.extend(chunk.shape)
        result.actions.data = chunk.tobytes()
        took = int((time.monotonic() - start) * 1e6)
        result.stages.add(stage="gpu", duration_us=took)
        return policy_pb2.InferResponse(result=result)

    def _check_name(self, name: str, context: Any) -> None:
        if name not in ("", self.info.name):
            context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"policy: got {name!r}, want {self.info.name!r}",
            )

    def _check(
        self, observation: policy_pb2.ObservationRequest, context: Any
    ) -> None:
        cameras = sorted(image.name for image in observation.images)
        want = sorted(camera.name for camera in self.info.cameras)
        length = sum(block.size for block in self.info.state)
        problem = ""
        if cameras != want:
            problem = f"images: got {cameras}, want {want}"
        elif len(observation.state) != length:
            problem = f"state: got {len(observation.state)}, want {length}"
        elif not observation.prompt:
            problem = "prompt: missing"
        if problem:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, problem)


def serve(name: str, address: str) -> Any:
    """Starts a control; returns (grpc.Server, port).

    Raises RuntimeError if the address cannot be bound.
    """
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(8))
    add: Any = policy_pb2_grpc.add_PolicyServiceServicer_to_server
    add(ControlService(name), server)
    server.add_generic_rpc_handlers((_health(),))
    port = server.add_insecure_port(address)
    server.start()
    return server, port


def main(arguments: Optional[List[str]] = None) -> int:
    """Serves a control until it is interrupted."""
    parser = argparse.ArgumentParser(prog="python -m piserve.libero.controls")
    parser.add_argument("control", choices=CONTROLS)
    parser.add_argument("--address", default="127.0.0.1:50061")
    args = parser.parse_args(arguments)
    try:
        server, port = serve(args.control, args.address)
    except RuntimeError as error:
        print(f"{args.address}: {error}", file=sys.stderr)
        return 1
    print(f"{args.control} serves on port {port}", flush=True)
    try:
        server.wait_for_termination()
    except KeyboardInterrupt:
        server.stop(1.0)
    return 0


def _info(name: str) -> policy_pb2.PolicyInfo:
    info = policy_pb2.PolicyInfo(
        name=name,
        model_digest=f"scripted-{name}",
        policy_config="scripted",
        precision="float32",
        action_horizon=HORIZON,
        noise_shape=[HORIZON, ACTION_DIM],
        backend="python",
    )
    for camera in ("observation/image", "observation/wrist_image"):
        info.cameras.add(name=camera, use=policy_pb2.CAMERA_USE_REQUIRED)
    info.state.add(name="state", unit="1", size=STATE_DIM)
    if name == "expert":
        info.state.add(name=PRIVILEGED_BLOCK, unit="m", size=PRIVILEGED_DIM)
    info.action.add(name="action", unit="1", size=ACTION_DIM)
    return info


def _health() -> grpc.GenericRpcHandler:
    def check(request: Any, context: Any) -> rpc_pb2.HealthCheckResponse:
        return rpc_pb2.HealthCheckResponse(status=_SERVING)

    handler: grpc.GenericRpcHandler = grpc.method_handlers_generic_handler(
        "grpc.health.v1.Health",
        {
            "Check": grpc.unary_unary_rpc_method_handler(
                check,
                request_deserializer=rpc_pb2.HealthCheckRequest.FromString,
                response_serializer=_serialized,
            )
        },
    )
    return handler


def _serialized(response: rpc_pb2.HealthCheckResponse) -> bytes:
    return response.SerializeToString()


if __name__ == "__main__":
    sys.exit(main())
