# SPDX-License-Identifier: Apache-2.0
"""One action at a time from a policy that answers in chunks.

Source: openpi openpi_client/action_chunk_broker.py, base_policy.py.
"""

from __future__ import annotations

from typing import Any, Dict, Mapping, Optional, Protocol

import numpy as np


class Policy(Protocol):
    """What takes an observation and gives actions."""

    def infer(self, obs: Mapping[str, Any]) -> Dict[str, Any]:
        """The reply for one observation; `actions` has a leading step axis."""
        ...

    def reset(self) -> None:
        """Forgets the episode."""
        ...


class ActionChunkBroker:
    """Asks the policy once per `action_horizon` steps.

    Each `infer` returns the reply with every array replaced by its row of the
    current step. After `action_horizon` steps, or `reset`, the next call asks
    the policy again with the observation it is given. Not thread safe.

    Raises ValueError if `action_horizon` is not positive, or if the policy's
    chunk turns out to be shorter.
    """

    def __init__(self, policy: Policy, action_horizon: int) -> None:
        if action_horizon < 1:
            raise ValueError(
                f"action_horizon: got {action_horizon}, want at least 1"
            )
        self._policy = policy
        self._action_horizon = action_horizon
        self._step = 0
        self._chunk: Optional[Dict[str, Any]] = None

    def infer(self, obs: Mapping[str, Any]) -> Dict[str, Any]:
        """The reply's row for the current step."""
        if self._chunk is None:
            chunk = dict(self._policy.infer(obs))
            steps = len(chunk["actions"])
            if steps < self._action_horizon:
                raise ValueError(
                    f"the policy's chunk has {steps} steps, "
                    f"want at least action_horizon = {self._action_horizon}"
                )
            self._chunk, self._step = chunk, 0
        row = {name: self._row(value) for name, value in self._chunk.items()}
        self._step += 1
        if self._step >= self._action_horizon:
            self._chunk = None
        return row

    def reset(self) -> None:
        """Drops the rest of the chunk and resets the policy."""
        self._policy.reset()
        self._chunk = None
        self._step = 0

    def _row(self, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return value[self._step]
        if isinstance(value, dict):
            return {name: self._row(leaf) for name, leaf in value.items()}
        return value
