# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of sizes and seeds that openpi was never asked about: made by
checkpoint_tool, served, and held against the numpy model at openpi's bounds."""

import copy
import dataclasses
import json
import subprocess

import numpy as np
import pytest
import recorded
from numpy_pi0 import NumpyPi0, Row, synthetic, to_bfloat16
from numpy_robot import robot_actions
from piserve import PolicyClient
from recorded import GOLDEN, read_safetensors
from serving import binary, serving, write_config

CAMERAS = {
    "pi0_libero": ("observation/image", "observation/wrist_image"),
    "pi05_libero": ("observation/image", "observation/wrist_image"),
    "pi05_droid": (
        "observation/exterior_image_1_left",
        "observation/wrist_image_left",
    ),
    "pi0_aloha_towel": ("cam_high", "cam_left_wrist", "cam_right_wrist"),
}


@dataclasses.dataclass(frozen=True)
class Odd:
    """A checkpoint: its configuration, dtype, seed and sizes."""

    name: str
    config: str
    dtype: str
    seed: int
    vision: tuple  # width, depth, heads, mlp
    vlm: tuple  # width, depth, mlp, heads, kv_heads, head_dim
    expert: tuple  # width, mlp
    horizon: int
    steps: int = 10

    def variant(self):
        model = "tiny_pi05" if self.config.startswith("pi05") else "tiny_pi0"
        path = GOLDEN / model / "variant.json"
        variant = copy.deepcopy(json.loads(path.read_text()))
        vision = dict(
            zip(("width", "depth", "heads", "mlp"), self.vision, strict=True)
        )
        names = ("width", "depth", "mlp", "heads", "kv_heads", "head_dim")
        vlm = dict(zip(names, self.vlm, strict=True))
        variant["vision"].update(vision)
        variant["vlm"].update(vlm)
        variant["expert"].update(vlm)
        variant["expert"].update(width=self.expert[0], mlp=self.expert[1])
        variant.update(action_horizon=self.horizon, seed=self.seed)
        return variant


ODD = [
    Odd(
        name="narrow, head_dim 24, two kv heads",
        config="pi0_libero",
        dtype="float32",
        seed=20261,
        vision=(60, 2, 3, 90),
        vlm=(80, 2, 136, 4, 2, 24),
        expert=(48, 100),
        horizon=3,
    ),
    Odd(
        name="deep, head_dim 48",
        config="pi0_aloha_towel",
        dtype="bfloat16",
        seed=77,
        vision=(48, 1, 2, 200),
        vlm=(64, 5, 96, 4, 1, 48),
        expert=(96, 64),
        horizon=16,
    ),
    Odd(
        name="head_dim 16, expert as wide as the VLM, three steps",
        config="pi05_droid",
        dtype="bfloat16",
        seed=2**40 + 5,
        vision=(96, 4, 8, 64),
        vlm=(72, 3, 88, 8, 1, 16),
        expert=(72, 120),
        horizon=1,
        steps=3,
    ),
    Odd(
        name="one layer, one head",
        config="pi05_libero",
        dtype="float32",
        seed=0,
        vision=(32, 1, 1, 40),
        vlm=(40, 1, 56, 1, 1, 32),
        expert=(24, 32),
        horizon=13,
    ),
]


@pytest.fixture(scope="module", params=ODD, ids=lambda odd: odd.name)
def odd(request):
    return request.param


@pytest.fixture(scope="module")
def checkpoint(odd, tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    (folder / "sizes.json").write_text(json.dumps(odd.variant()))
    subprocess.run(
        [
            *(binary("checkpoint_tool"), "synthesize"),
            f"--variant={folder / 'sizes.json'}",
            f"--seed={odd.seed}",
            f"--dtype={odd.dtype}",
            f"--out={folder / 'checkpoint'}",
        ],
        check=True,
        capture_output=True,
    )
    return folder / "checkpoint"


def stats_of(config):
    description = recorded.load(config).description
    return (
        GOLDEN
        / description["checkpoint"]
        / "assets"
        / description["asset_id"]
        / "norm_stats.json"
    )


def test_weights_equal_the_generators(odd, checkpoint):
    tensors = read_safetensors(checkpoint / "model.safetensors")
    assert len(tensors) > 30
    for name, got in tensors.items():
        want = synthetic(name, odd.seed, got.shape)
        if odd.dtype == "bfloat16":
            want = to_bfloat16(want)
        np.testing.assert_array_equal(got, want, err_msg=name)


def test_served_actions_equal_the_numpy_models(odd, checkpoint, tmp_path):
    # Of the recordings, the first has pictures of the model's own size.
    recording = recorded.load(odd.config).recordings[0]
    noise = recorded.noise(odd.seed % 1000, (odd.horizon, 32))
    want = expected(odd, checkpoint, recording, noise)
    with (
        serving(write_config(tmp_path, config_of(odd, checkpoint))) as server,
        PolicyClient(server.addresses.public, timeout=30) as client,
    ):
        reply = client.infer(
            recording.observation, noise=noise, num_steps=odd.steps
        )
    model = odd.config.split("_")[0]
    difference = recorded.difference(reply["actions"], want, model)
    print(f"{odd.name}: {difference}")
    assert difference.within, difference


def config_of(odd, checkpoint):
    return f"""
        policies {{
          name: "odd"
          policy_config: "{odd.config}"
          checkpoint: "{checkpoint}"
          variant_json: "{checkpoint.parent / "sizes.json"}"
          norm_stats: "{stats_of(odd.config)}"
          tokenizer: "{GOLDEN}/tokenizer/tiny.model"
          precision: FLOAT32
          step_counts: [10, 3]
          batch_sizes: [1, 2]
        }}
        limits {{ predicted_ms: 20000 }}
    """


def expected(odd, checkpoint, recording, noise):
    """The reply, by the numpy model and the numpy robot."""
    model = NumpyPi0.load(checkpoint, odd.variant())
    tensors = recording.tensors
    row = Row(
        images=pictures(odd.config, recording.observation),
        tokens=tensors["tokens"][tensors["token_mask"]],
        state=tensors["model_state"],
        noise=noise,
    )
    actions = model.actions(row, odd.steps)
    stats = json.loads(stats_of(odd.config).read_text())
    return robot_actions(odd.config, actions, tensors["model_state"], stats)


def pictures(config, observation):
    """uint8 [224, 224, 3] by slot; None where the robot has no camera."""
    source = observation.get("images", observation)
    found = [source[name] for name in CAMERAS[config]]
    if "images" in observation:
        found = [picture.transpose(1, 2, 0) for picture in found]
    assert all(picture.shape == (224, 224, 3) for picture in found)
    return [*found, None][:3]
