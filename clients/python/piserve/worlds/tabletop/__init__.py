# SPDX-License-Identifier: Apache-2.0
"""A tabletop with three coloured blocks and a pad, for a robot with one hand.

from piserve import PolicyClient
from piserve.worlds.tabletop import run_episode

with PolicyClient("127.0.0.1:50051") as policy:
    print(run_episode(policy, seed=0).success)
"""

from .dynamics import ACTION_DIM, CONTROL_HZ
from .episode import EpisodeResult, run_episode
from .evaluation import FAULTS, Evaluation, alike, evaluate
from .expert import Expert, expert_action, expert_chunk
from .perturbations import NO_PERTURBATIONS, Perturbations
from .prompts import PHRASINGS
from .scene import render_base, render_view, render_wrist
from .state import COLOURS, State, proprioception
from .world import IMAGE_SIZE, MAX_STEPS, Tabletop

__all__ = [
    "ACTION_DIM",
    "COLOURS",
    "CONTROL_HZ",
    "FAULTS",
    "IMAGE_SIZE",
    "MAX_STEPS",
    "NO_PERTURBATIONS",
    "PHRASINGS",
    "EpisodeResult",
    "Evaluation",
    "Expert",
    "Perturbations",
    "State",
    "Tabletop",
    "alike",
    "evaluate",
    "expert_action",
    "expert_chunk",
    "proprioception",
    "render_base",
    "render_view",
    "render_wrist",
    "run_episode",
]
