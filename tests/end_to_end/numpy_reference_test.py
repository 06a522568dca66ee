# SPDX-License-Identifier: Apache-2.0
"""The numpy model, judge of checkpoints that openpi never saw, is itself judged
by openpi's goldens first."""

import json

import numpy as np
import pytest
import recorded
from numpy_pi0 import NumpyPi0, Row, synthetic, to_bfloat16
from numpy_robot import robot_actions
from recorded import GOLDEN, read_safetensors

# FP32 mode of pi0 was recorded from the file that holds float32.
CHECKPOINTS = {"tiny_pi0": "tiny_pi0/float32", "tiny_pi05": "tiny_pi05"}


def reference(name):
    variant = json.loads((GOLDEN / name / "variant.json").read_text())
    return NumpyPi0.load(GOLDEN / CHECKPOINTS[name], variant)


def case_row(inputs, row, images):
    seeds, masks = inputs["image_seed"][row], inputs["image_masks"][row]
    return Row(
        images=[
            images[f"image.{seed}"] if mask else None
            for seed, mask in zip(seeds, masks, strict=True)
        ],
        tokens=inputs["tokens"][row][inputs["token_mask"][row]],
        state=inputs["state"][row],
        noise=inputs["noise"][row],
    )


@pytest.mark.parametrize("case", ["a", "b", "c", "d"])
@pytest.mark.parametrize("checkpoint", ["tiny_pi0", "tiny_pi05"])
def test_numpy_model_equals_openpi(checkpoint, case):
    folder = GOLDEN / checkpoint / "cases"
    inputs = read_safetensors(folder / f"{case}.inputs.safetensors")
    want = read_safetensors(folder / f"{case}.fp32.safetensors")["actions"]
    images = read_safetensors(GOLDEN / "images.safetensors")
    model = reference(checkpoint)
    got = np.stack(
        [
            model.actions(case_row(inputs, row, images))
            for row in range(len(want))
        ]
    )
    difference = recorded.difference(
        got, want, checkpoint.removeprefix("tiny_")
    )
    assert difference.within, difference


@pytest.mark.parametrize("name", recorded.config_names())
def test_numpy_robot_equals_openpi(name):
    config = recorded.load(name)
    stats = json.loads(
        (
            GOLDEN
            / config.description["checkpoint"]
            / "assets"
            / config.description["asset_id"]
            / "norm_stats.json"
        ).read_text()
    )
    for recording in config.recordings:
        tensors = recording.tensors
        got = robot_actions(
            name,
            tensors["model_actions.fp32"],
            tensors["model_state"],
            stats,
        )
        np.testing.assert_allclose(got, recording.actions, rtol=1e-12)


@pytest.mark.parametrize(("name", "seed"), [("tiny_pi0", 1), ("tiny_pi05", 2)])
def test_numpy_weights_equal_the_golden_files(name, seed):
    for tensor, want in read_safetensors(
        GOLDEN / name / "model.safetensors"
    ).items():
        got = to_bfloat16(synthetic(tensor, seed, want.shape))
        np.testing.assert_array_equal(got, want, err_msg=tensor)
