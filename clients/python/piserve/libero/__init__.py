# SPDX-License-Identifier: Apache-2.0
"""The LIBERO benchmark over the network: openpi's protocol, a served policy.

piserve-libero --server 127.0.0.1:50051 --suite libero_object --out results

The simulator needs the extra `libero`; everything else here runs without it.
"""

from .environment import Environment, Observation, Task
from .ledger import Ledger, LedgerError
from .protocol import MAX_STEPS, Protocol, run_episode
from .report import Report
from .runner import Episode, EpisodeRecord, evaluate

__all__ = [
    "MAX_STEPS",
    "Environment",
    "Episode",
    "EpisodeRecord",
    "Ledger",
    "LedgerError",
    "Observation",
    "Protocol",
    "Report",
    "Task",
    "evaluate",
    "run_episode",
]
