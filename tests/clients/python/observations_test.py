# SPDX-License-Identifier: Apache-2.0
"""openpi's observation dicts to requests; the rules are of docs/pi0.md 4.2 and
4.5, the numbers of tests/golden/preprocess."""

import json
import pathlib

import numpy as np
import pytest
from fake_server import aloha_info, droid_info, libero_info
from piserve import InvalidObservation, PolicyMismatch
from piserve._proto import policy_pb2
from piserve.observations import observation_request
from recorded import image

GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "golden"


def libero(**changes):
    return _with(
        {
            "observation/image": image(1, 6, 4),
            "observation/wrist_image": image(2, 6, 4),
            "observation/state": np.arange(8.0),
            "prompt": "pick up",
        },
        changes,
    )


def droid(**changes):
    return _with(
        {
            "observation/exterior_image_1_left": image(1, 6, 4),
            "observation/wrist_image_left": image(2, 6, 4),
            "observation/joint_position": np.arange(7.0),
            "observation/gripper_position": np.array([0.5]),
            "prompt": "wipe",
        },
        changes,
    )


def aloha(**changes):
    return _with(
        {
            "images": {
                name: image(seed, 6, 4).transpose(2, 0, 1)
                for seed, name in enumerate(("cam_high", "cam_left_wrist"))
            },
            "state": np.ones(14),
            "prompt": "fold",
        },
        changes,
    )


def _with(obs, changes):
    obs.update({key.replace("__", "/"): v for key, v in changes.items()})
    return {key: value for key, value in obs.items() if value is not ...}


def pixels(sent):
    assert sent.encoding == policy_pb2.IMAGE_ENCODING_RGB8
    return np.frombuffer(sent.data, np.uint8).reshape(
        sent.height, sent.width, 3
    )


def refused(obs, info):
    with pytest.raises(InvalidObservation) as caught:
        observation_request(obs, info)
    return caught.value


# --------------------------------------------------------------------- robots


def test_libero_names_cameras_state_and_prompt():
    request = observation_request(libero(unused=1), libero_info())
    assert [sent.name for sent in request.images] == [
        "observation/image",
        "observation/wrist_image",
    ]
    np.testing.assert_array_equal(pixels(request.images[0]), image(1, 6, 4))
    np.testing.assert_array_equal(pixels(request.images[1]), image(2, 6, 4))
    assert list(request.state) == list(range(8))
    assert request.prompt == "pick up"
    assert request.policy == "libero"


@pytest.mark.parametrize("gripper", [np.array([0.9]), np.array(0.9), 0.9])
def test_droid_joins_joints_and_gripper(gripper):
    obs = droid(observation__gripper_position=gripper)
    request = observation_request(obs, droid_info())
    assert list(request.state) == [*range(7), 0.9]
    assert [sent.name for sent in request.images] == [
        "observation/exterior_image_1_left",
        "observation/wrist_image_left",
    ]


def test_droid_states_equal_openpis():
    robots = json.loads((GOLDEN / "preprocess/robots.json").read_text())
    for case in robots["droid"]:
        obs = droid(
            observation__joint_position=case["joints"],
            observation__gripper_position=case["gripper"],
        )
        assert (
            list(observation_request(obs, droid_info()).state) == case["state"]
        )


def test_aloha_cameras_are_chw_and_the_unused_one_stays_home():
    obs = aloha()
    obs["images"]["cam_low"] = np.zeros((3, 6, 4), np.uint8)
    request = observation_request(obs, aloha_info())
    assert [sent.name for sent in request.images] == [
        "cam_high",
        "cam_left_wrist",
    ]
    np.testing.assert_array_equal(pixels(request.images[0]), image(0, 6, 4))


def test_aloha_refuses_what_openpi_refuses():
    obs = aloha()
    obs["images"]["cam_wrist"] = obs["images"]["cam_high"]
    assert refused(obs, aloha_info()).field == "images/cam_wrist"
    obs = aloha()
    del obs["images"]["cam_high"]
    assert refused(obs, aloha_info()).field == "images/cam_high"
    assert refused(aloha(state=np.ones(7)), aloha_info()).field == "state"
    obs = aloha()
    obs["images"]["cam_high"] = image(1, 6, 4)  # HWC
    assert refused(obs, aloha_info()).field == "cam_high"
    assert refused(aloha(images=3), aloha_info()).field == "images"


def test_a_policy_for_another_robot_is_said_to_be_one():
    info = libero_info()
    info.cameras[0].name = "front"
    with pytest.raises(PolicyMismatch, match="front"):
        observation_request(libero(), info)


@pytest.mark.parametrize(
    "key",
    ["observation/image", "observation/wrist_image", "observation/state"],
)
def test_missing_keys_are_named(key):
    error = refused(libero(**{key: ...}), libero_info())
    assert error.field == key
    assert "missing" in str(error)


@pytest.mark.parametrize("obs", [None, [], "observation", np.zeros(8)])
def test_what_is_no_dict_is_refused(obs):
    error = refused(obs, libero_info())
    assert error.reason == "OBSERVATION_TYPE"
    assert f"got {type(obs).__name__}" in str(error)


# ---------------------------------------------------------------------- state


@pytest.mark.parametrize(
    "state",
    [
        np.arange(8, dtype=np.float32),
        np.arange(8),
        list(range(8)),
        np.arange(16.0)[::2] / 2,
    ],
)
def test_state_of_any_real_type_travels_as_double(state):
    request = observation_request(
        libero(observation__state=state), libero_info()
    )
    assert list(request.state) == list(range(8))


@pytest.mark.parametrize(
    "state",
    [
        np.zeros(7),
        np.zeros(9),
        np.zeros((1, 8)),
        np.float64(1),
        np.array([np.nan] * 8),
        np.array([np.inf] * 8),
        np.zeros(8, complex),
        np.array(["1"] * 8),
        [[1], [1, 2]],
        None,
    ],
)
def test_wrong_states_are_refused(state):
    error = refused(libero(observation__state=state), libero_info())
    assert error.field == "observation/state"


# --------------------------------------------------------------------- images


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_float_images_become_the_bytes_they_came_from(dtype):
    values = np.arange(256, dtype=np.uint8)
    picture = np.stack([values.reshape(16, 16)] * 3, axis=2)
    obs = libero(observation__image=picture.astype(dtype) / dtype(255))
    request = observation_request(obs, libero_info())
    golden = json.loads((GOLDEN / "preprocess/pixels.json").read_text())
    want = golden[f"{np.dtype(dtype).name}_u8_over_255_back_to_uint8"]
    got = pixels(request.images[0])[:, :, 0].ravel()
    assert got.tolist() == want


def test_float_images_are_truncated_not_rounded():
    picture = np.full((4, 5, 3), 0.9999, np.float32)
    request = observation_request(
        libero(observation__image=picture), libero_info()
    )
    assert set(request.images[0].data) == {254}


def test_converted_image_equals_openpis():
    golden = json.loads((GOLDEN / "preprocess/pixels.json").read_text())
    picture = image(132, 5, 4).astype(np.float32) / np.float32(255)
    obs = libero(observation__image=picture)
    sent = observation_request(obs, libero_info()).images[0]
    assert pixels(sent).tolist() == golden["convert_to_uint8"]["out"]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_chw_and_hwc_give_the_same_request(dtype):
    picture = image(7, 9, 5).astype(dtype)
    if dtype == np.float32:
        picture /= np.float32(255)
    sent = [
        observation_request(
            libero(observation__image=array), libero_info()
        ).images[0]
        for array in (picture, picture.transpose(2, 0, 1))
    ]
    assert sent[0] == sent[1]
    assert (sent[0].height, sent[0].width) == (9, 5)


def test_views_that_are_not_contiguous_are_sent_right():
    picture = image(7, 9, 10)[::-1, ::2]
    sent = observation_request(
        libero(observation__image=picture), libero_info()
    ).images[0]
    np.testing.assert_array_equal(pixels(sent), picture)


def test_nothing_is_resized():
    picture = image(7, 480, 640)
    sent = observation_request(
        libero(observation__image=picture), libero_info()
    ).images[0]
    np.testing.assert_array_equal(pixels(sent), picture)


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.int64),
        np.zeros((4, 4, 3), bool),
        np.full((4, 4, 3), np.nan, np.float32),
        np.full((4, 4, 3), 255.0, np.float32),
        np.full((4, 4, 3), -0.5),
        "picture.png",
        [[[1.0] * 3], [[1.0] * 3] * 2],
        None,
    ],
)
def test_wrong_images_are_refused(picture):
    error = refused(libero(observation__wrist_image=picture), libero_info())
    assert error.field == "observation/wrist_image"


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (b"\xff\xd8\xff\xe0...", policy_pb2.IMAGE_ENCODING_JPEG),
        (b"\x89PNG\r\n\x1a\n...", policy_pb2.IMAGE_ENCODING_PNG),
    ],
)
def test_encoded_images_go_as_they_are(data, encoding):
    sent = observation_request(
        libero(observation__image=data), libero_info()
    ).images[0]
    assert (sent.encoding, sent.data) == (encoding, data)
    assert (sent.width, sent.height) == (0, 0)


def test_bytes_that_are_no_image_are_refused():
    error = refused(libero(observation__image=b"GIF89a"), libero_info())
    assert error.field == "observation/image"


# --------------------------------------------------------------------- prompt


@pytest.mark.parametrize(
    ("prompt", "want"),
    [
        ("pick up", "pick up"),
        ("", ""),
        (" put_it\n ", " put_it\n "),
        (np.str_("np"), "np"),
        (np.array("0-d"), "0-d"),
        (np.array(["one"]), "one"),
        (np.array([["one"]]), "one"),
        ("plié 机器人", "plié 机器人"),
    ],
)
@pytest.mark.parametrize("robot", ["libero", "droid"])
def test_prompts_that_openpi_takes(robot, prompt, want):
    obs = {"libero": libero, "droid": droid}[robot](prompt=prompt)
    info = {"libero": libero_info, "droid": droid_info}[robot]()
    assert observation_request(obs, info).prompt == want


def test_bytes_prompts_are_droids_alone():
    obs = droid(prompt="wipé".encode())
    assert observation_request(obs, droid_info()).prompt == "wipé"
    assert refused(libero(prompt=b"wipe"), libero_info()).field == "prompt"
    assert refused(aloha(prompt=b"wipe"), aloha_info()).field == "prompt"
    assert refused(droid(prompt=b"\xff"), droid_info()).field == "prompt"


@pytest.mark.parametrize(
    "prompt",
    [
        None,
        np.array(b"bytes"),
        np.array(["a", "b"]),
        np.array([], str),
        ["pick up"],
        7,
        np.array(7),
        "\ud800",
    ],
)
@pytest.mark.parametrize("robot", ["libero", "droid", "aloha"])
def test_prompts_that_openpi_refuses(robot, prompt):
    obs = {"libero": libero, "droid": droid, "aloha": aloha}[robot]
    info = {"libero": libero_info, "droid": droid_info, "aloha": aloha_info}
    assert refused(obs(prompt=prompt), info[robot]()).field == "prompt"


def test_no_prompt_leaves_it_to_the_policys_default_one():
    request = observation_request(aloha(prompt=...), aloha_info())
    assert not request.HasField("prompt")
    assert refused(libero(prompt=...), libero_info()).field == "prompt"
