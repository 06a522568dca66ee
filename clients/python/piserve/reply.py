# SPDX-License-Identifier: Apache-2.0
"""The server's answer as the dict that openpi's client returns."""

from __future__ import annotations

from typing import Any, Dict

import numpy as np

from piserve._proto import policy_pb2
from piserve.errors import PolicyFailure

# Stages that follow one another; a policy's vision, prefill and denoise are
# parts of gpu.
_SEQUENTIAL = frozenset(
    ("parse", "decode", "queue", "form", "h2d", "gpu", "d2h", "post")
)


def reply_of(
    result: policy_pb2.InferResult,
    request: policy_pb2.ObservationRequest,
    info: policy_pb2.PolicyInfo,
) -> Dict[str, Any]:
    """What PolicyClient.infer documents, less the client's own timing.

    Raises PolicyFailure unless the reply belongs to `request` and its actions
    are finite and as long and as wide as `info` says: no robot moves by a reply
    that is in doubt.
    """
    if result.request_id != request.request_id:
        raise PolicyFailure(
            f"the reply is for request {result.request_id!r}, "
            f"want {request.request_id!r}",
            reason="REPLY_MISMATCH",
        )
    milliseconds = {
        stage.stage: stage.duration_us * 1e-3 for stage in result.stages
    }
    timing = {f"{name}_ms": value for name, value in milliseconds.items()}
    total = sum(
        value for name, value in milliseconds.items() if name in _SEQUENTIAL
    )
    return {
        "actions": actions_of(result, info),
        "policy_timing": {"infer_ms": milliseconds.get("gpu", 0.0)},
        "server_timing": {"infer_ms": total, **timing},
        "policy": result.policy,
        "model_digest": result.model_digest,
        "request_id": result.request_id,
        "seed": result.seed if result.HasField("seed") else None,
        "num_steps": result.num_steps,
        "wave_rows": result.wave_rows,
        "graph_rows": result.graph_rows,
        "deadline_ms": result.deadline_us * 1e-3,
    }


def actions_of(
    result: policy_pb2.InferResult, info: policy_pb2.PolicyInfo
) -> np.ndarray:
    """float64, as openpi's client gives; the wire carries float32.

    `info` describes the model that answered.
    """
    array = result.actions
    shape = tuple(array.shape)
    want = (info.action_horizon, sum(block.size for block in info.action))
    if (
        array.dtype != policy_pb2.DATA_TYPE_FLOAT32
        or len(shape) != 2
        or len(array.data) != 4 * shape[0] * shape[1]
        or shape != want
    ):
        raise PolicyFailure(
            f"the reply has actions of {list(shape)}, {len(array.data)} bytes; "
            f"want float32 {list(want)}",
            reason="REPLY_SHAPE",
        )
    actions = np.frombuffer(array.data, dtype="<f4").reshape(shape)
    if not np.isfinite(actions).all():
        raise PolicyFailure(
            "the reply has actions that are not finite", reason="NOT_FINITE"
        )
    converted: np.ndarray = actions.astype(np.float64)
    return converted
