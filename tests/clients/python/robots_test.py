# SPDX-License-Identifier: Apache-2.0
"""A client that is configured for another robot or normalisation refuses."""

import grpc
import numpy as np
import piserve
import pytest
from fake_server import (
    FakeServer,
    aloha_info,
    droid_info,
    libero_info,
    observation,
    serving,
)
from piserve import ALOHA, DROID, LIBERO, Block, PolicyClient, PolicyMismatch
from piserve.robots import check_policy


def told(info, robot, checksum="sum"):
    """The info as a server tells it of a policy for this robot."""
    del info.state[:], info.action[:]
    for blocks, want in (
        (info.state, robot.state),
        (info.action, robot.action),
    ):
        for block in want:
            blocks.add(name=block.name, unit=block.unit, size=block.size)
    info.preprocessing_checksum = checksum
    return info


LIBERO_POLICY = told(libero_info(), LIBERO)
DROID_POLICY = told(droid_info(), DROID)
ALOHA_POLICY = told(aloha_info(), ALOHA)
ALL = [
    (LIBERO, LIBERO_POLICY),
    (DROID, DROID_POLICY),
    (ALOHA, ALOHA_POLICY),
]


def mismatch(info, **want):
    with pytest.raises(PolicyMismatch) as caught:
        check_policy(info, **want)
    assert caught.value.code == grpc.StatusCode.FAILED_PRECONDITION
    assert info.name in str(caught.value)
    return caught.value


@pytest.mark.parametrize(("robot", "own"), ALL)
def test_each_robot_takes_its_own_policies_only(robot, own):
    check_policy(own, robot=robot)
    for other, info in ALL:
        if other is not robot:
            mismatch(info, robot=robot)


def test_a_camera_the_robot_lacks_is_told():
    robot = LIBERO._replace(cameras=("observation/image",))
    error = mismatch(LIBERO_POLICY, robot=robot)
    assert error.reason == "CAMERAS_MISMATCH"
    assert "observation/wrist_image" in str(error)


def test_a_camera_the_policy_does_not_know_is_told():
    robot = LIBERO._replace(cameras=(*LIBERO.cameras, "observation/back"))
    assert mismatch(LIBERO_POLICY, robot=robot).reason == "CAMERAS_MISMATCH"


def test_optional_and_ignored_cameras_may_be_left_out():
    check_policy(ALOHA_POLICY, robot=ALOHA._replace(cameras=("cam_high",)))


@pytest.mark.parametrize(
    "state",
    [
        LIBERO.state[:2],  # shorter
        (Block("joint_position", "rad", 7), Block("gripper", "1", 1)),
        (Block("eef_position", "mm", 3), *LIBERO.state[1:]),
        (LIBERO.state[1], LIBERO.state[0], LIBERO.state[2]),
    ],
)
def test_a_state_of_another_length_unit_or_order_is_told(state):
    error = mismatch(LIBERO_POLICY, robot=LIBERO._replace(state=state))
    assert error.reason == "STATE_MISMATCH"


def test_positions_are_no_velocities():
    position = (Block("joint_position", "rad", 7), DROID.action[1])
    error = mismatch(DROID_POLICY, robot=DROID._replace(action=position))
    assert error.reason == "ACTION_MISMATCH"
    assert "joint_velocity [7] in 1" in str(error)


def test_what_a_profile_leaves_out_is_not_compared():
    check_policy(DROID_POLICY, robot=DROID._replace(state=None, action=None))


def test_other_statistics_and_other_weights_are_told():
    check_policy(LIBERO_POLICY, preprocessing_checksum="sum", model_digest="d0")
    error = mismatch(LIBERO_POLICY, preprocessing_checksum="mus")
    assert error.reason == "PREPROCESSING_MISMATCH"
    untold = told(libero_info(), LIBERO, checksum="")
    mismatch(untold, preprocessing_checksum="sum")
    error = mismatch(LIBERO_POLICY, model_digest="d1")
    assert error.reason == "MODEL_DIGEST_MISMATCH"


# ---------------------------------------------------------- before any action


@pytest.mark.parametrize(
    "options",
    [
        {"robot": DROID},
        {"preprocessing_checksum": "mus"},
        {"model_digest": "d1"},
    ],
)
def test_a_misfit_is_refused_before_an_observation_is_sent(options):
    server = FakeServer([LIBERO_POLICY])
    with serving(server) as address, PolicyClient(address, **options) as client:
        for _ in range(2):
            with pytest.raises(PolicyMismatch):
                client.infer(observation())
        with pytest.raises(PolicyMismatch):
            client.policy_info()
    assert server.requests == []


def replaced_server(info):
    """Describes LIBERO's policy until `info` answers its first Infer."""
    server = FakeServer([told(libero_info(), LIBERO)])

    def answer(self, request, context):
        self.infos[0].CopyFrom(info)
        return self.answer(request, context)

    server.script = [answer]
    return server


def other(robot=LIBERO, **fields):
    info = told(libero_info(), robot)
    info.model_digest = "d1"
    for name, value in fields.items():
        setattr(info, name, value)
    return info


def test_another_model_that_fits_may_answer():
    with (
        serving(replaced_server(other())) as address,
        PolicyClient(
            address, robot=LIBERO, preprocessing_checksum="sum"
        ) as client,
    ):
        assert client.infer(observation())["model_digest"] == "d1"


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        (other(preprocessing_checksum="mus"), "PREPROCESSING_MISMATCH"),
        (
            other(LIBERO._replace(state=DROID.state)),
            "STATE_MISMATCH",
        ),
    ],
)
def test_an_answer_of_a_misfit_that_took_its_place_is_never_used(info, reason):
    with (
        serving(replaced_server(info)) as address,
        PolicyClient(
            address, robot=LIBERO, preprocessing_checksum="sum"
        ) as client,
        pytest.raises(PolicyMismatch) as caught,
    ):
        client.infer(observation())
    assert caught.value.reason == reason


def test_an_answer_to_an_observation_that_no_longer_fits_is_never_used():
    longer = (*LIBERO.state, Block("force", "N", 1))
    server = replaced_server(other(LIBERO._replace(state=longer)))
    with (
        serving(server) as address,
        PolicyClient(address) as client,
        pytest.raises(piserve.InvalidObservation),
    ):
        client.infer(observation())


def test_an_answer_of_a_model_nobody_describes_is_never_used():
    def answer(self, request, context):
        response = self.answer(request, context)
        response.result.model_digest = "d9"
        return response

    server = FakeServer([LIBERO_POLICY])
    server.script = [answer]
    with serving(server) as address, PolicyClient(address) as client:
        with pytest.raises(PolicyMismatch) as caught:
            client.infer(observation())
        assert caught.value.reason == "MODEL_CHANGED"
        assert np.isfinite(client.infer(observation())["actions"]).all()
