# SPDX-License-Identifier: Apache-2.0
"""Client of a piserve policy server: observations in, action chunks out.

from piserve import ActionChunkBroker, PolicyClient

with PolicyClient("127.0.0.1:50051") as policy:
    chunk = policy.infer(
        {
            "observation/image": base,         # uint8 [h, w, 3], any size
            "observation/wrist_image": wrist,
            "observation/state": state,        # [8], robot units
            "prompt": "pick up the black bowl",
        }
    )["actions"]                               # float64 [horizon, 7]
"""

from piserve.broker import ActionChunkBroker, Policy
from piserve.client import PolicyClient
from piserve.errors import (
    DeadlineExceeded,
    InvalidObservation,
    MessageTooLarge,
    NotAllowed,
    PolicyError,
    PolicyFailure,
    PolicyMismatch,
    PolicyNotFound,
    PolicyUnavailable,
    QueueFull,
    StaleObservation,
)
from piserve.latest import LatestChunk, LatestOnly
from piserve.robots import ALOHA, DROID, LIBERO, Block, RobotProfile

__version__ = "0.1.0"

__all__ = [
    "ALOHA",
    "DROID",
    "LIBERO",
    "ActionChunkBroker",
    "Block",
    "DeadlineExceeded",
    "InvalidObservation",
    "LatestChunk",
    "LatestOnly",
    "MessageTooLarge",
    "NotAllowed",
    "Policy",
    "PolicyClient",
    "PolicyError",
    "PolicyFailure",
    "PolicyMismatch",
    "PolicyNotFound",
    "PolicyUnavailable",
    "QueueFull",
    "RobotProfile",
    "StaleObservation",
]
