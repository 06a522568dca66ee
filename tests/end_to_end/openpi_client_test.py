# SPDX-License-Identifier: Apache-2.0
"""openpi's own client, unchanged, against the websocket front."""

import numpy as np
import piserve
import pytest
import recorded
import websockets.exceptions
from openpi_client.action_chunk_broker import ActionChunkBroker
from openpi_client.websocket_client_policy import WebsocketClientPolicy
from piserve import PolicyClient
from piserve import websocket_client_policy as drop_in
from server_process import metrics
from serving import (
    config_text,
    in_threads,
    serving,
    total,
    wait_until,
    write_config,
)
from websocket_front import (
    ON,
    RANDOM,
    SLOW,
    aloha,
    connect,
    droid,
    image,
    libero,
)

ANSWERED = 'piserve_requests_completed_total{code="OK",method="WebsocketInfer"}'


def observations(config):
    if config == "pi05_droid":
        scalar = droid()
        scalar["observation/gripper_position"] = np.float32(0.25)
        numbers = droid()
        numbers["observation/gripper_position"] = np.array(0.5)
        numbers["observation/joint_position"] = np.arange(7, dtype=np.float32)
        text = droid()
        text["prompt"] = "caf\u00e9".encode()
        return [droid(), scalar, numbers, text]
    if config == "pi05_aloha":
        alone = aloha()
        alone["images"] = {"cam_high": image(3, 480, 640)}
        floats = aloha()
        floats["images"]["cam_high"] = RANDOM.random((3, 224, 224))
        floats["images"]["cam_left_wrist"] = RANDOM.random(
            (3, 224, 224), dtype=np.float32
        )
        return [aloha(), alone, floats]
    planes = libero()
    planes["observation/image"] = image(3, 224, 224)
    floats = libero()
    floats["observation/image"] = RANDOM.random((224, 224, 3))
    floats["observation/wrist_image"] = RANDOM.random((9, 7, 3)).astype("f2")
    lists = libero([0, 0.5, -1, 0, 0, 0, 0, 1])
    strided = libero(np.arange(16.0)[::2] / 16)
    strided["observation/image"] = image(128, 256, 3)[::-1, ::-2]
    words = libero()
    words["prompt"] = np.array("put the red block on the pad")
    return [libero(), planes, floats, lists, strided, words]


ROBOTS = {
    "pi05_libero": piserve.LIBERO,
    "pi05_droid": piserve.DROID,
    "pi05_aloha": piserve.ALOHA,
}


@pytest.mark.parametrize("config", ROBOTS)
def test_answers_are_those_of_grpc(config):
    """For a policy to which equal observations are equal. The robot's profile
    is what the server tells of it, and no other robot is served."""
    with serving(
        ON,
        "--policy=blind",
        f"--policy_config={config}",
        program="piserve_test_server",
    ) as server:
        policy = connect(server)
        seen = []
        address = server.addresses.public
        with PolicyClient(address, timeout=30, robot=ROBOTS[config]) as client:
            for observation in observations(config):
                actions = policy.infer(observation)["actions"]
                want = client.infer(observation)["actions"]
                assert actions.dtype == np.float64
                np.testing.assert_array_equal(actions, want)
                seen.append(actions.tobytes())
        assert len(set(seen)) == len(seen), "the policy tells none apart"
        for other in ROBOTS.values():
            if other is not ROBOTS[config]:
                with (
                    PolicyClient(address, timeout=30, robot=other) as client,
                    pytest.raises(piserve.PolicyMismatch),
                ):
                    client.infer(observation)


def shape_of(value):
    """The value with its numbers taken out."""
    if isinstance(value, dict):
        return {key: shape_of(item) for key, item in value.items()}
    return (value.dtype, value.shape) if hasattr(value, "dtype") else "number"


def test_the_class_that_stands_in_for_openpis_gives_the_same_dicts(
    blind_server,
):
    """A robot that changes its import sees no difference but the wire."""
    theirs = connect(blind_server)
    host, port = blind_server.addresses.public.split(":")
    ours = drop_in.WebsocketClientPolicy(host, int(port), timeout=30)
    assert ours.get_server_metadata() == theirs.get_server_metadata()
    for observation in observations("pi05_libero"):
        got, want = ours.infer(observation), theirs.infer(observation)
        assert shape_of(got) == shape_of(want)
        np.testing.assert_array_equal(got["actions"], want["actions"])
    ours.close()


def test_real_policies_answer_for_every_robot(tmp_path):
    """Their noise is random, so that shapes and ranges are what is known."""
    flag = write_config(tmp_path, config_text("all_tiny", **SLOW))
    shapes = {
        "pi0_libero": (libero, 7),
        "pi05_libero": (libero, 7),
        "pi0_aloha_towel": (aloha, 14),
        "pi05_droid": (droid, 8),
    }
    with serving(flag, ON) as server:
        for name, (observe, size) in shapes.items():
            policy = WebsocketClientPolicy(
                f"ws://{server.addresses.websocket}/{name}"
            )
            metadata = policy.get_server_metadata()
            if name == "pi0_aloha_towel":
                assert metadata == {"reset_pose": [0, -1.5, 1.5, 0, 0, 0]}
            else:
                assert metadata == {}
            address = server.addresses.public
            with PolicyClient(address, policy=name) as client:
                horizon = client.policy_info().action_horizon
            observation = observe()
            first = policy.infer(observation)
            second = policy.infer(observation)
            assert set(first) == {"actions", "policy_timing", "server_timing"}
            assert first["actions"].shape == (horizon, size)
            assert np.isfinite(first["actions"]).all()
            assert not np.array_equal(first["actions"], second["actions"])
            assert first["policy_timing"]["infer_ms"] > 0
            assert (
                first["policy_timing"]["infer_ms"]
                < first["server_timing"]["infer_ms"]
            )
            assert "prev_total_ms" not in first["server_timing"]
            assert (
                second["server_timing"]["prev_total_ms"]
                > first["server_timing"]["infer_ms"]
            )
        with pytest.raises(websockets.exceptions.InvalidStatus) as caught:
            connect(server)  # several are hosted, none is named
        assert caught.value.response.status_code == 404
        assert b"POLICY_REQUIRED" in caught.value.response.body


def test_the_default_prompt_is_used_where_none_is_sent(tmp_path):
    text = config_text("pi0_aloha_towel_tiny", **SLOW)
    observation = aloha()
    del observation["prompt"]
    with serving(write_config(tmp_path, text), ON) as server:
        assert connect(server).infer(observation)["actions"].shape[1] == 14


def test_openpis_broker_hands_out_the_chunk_step_by_step(blind_server):
    observation = libero()
    policy = connect(blind_server)
    chunk = policy.infer(observation)["actions"]
    broker = ActionChunkBroker(policy, action_horizon=5)
    for step in (0, 1, 2, 3, 4, 0):
        action = broker.infer(observation)["actions"]
        np.testing.assert_array_equal(action, chunk[step])


def test_each_of_many_clients_gets_its_own_answers(blind_server):
    grid = [libero(np.full(8, k / 64)) for k in range(24)]
    alone = connect(blind_server)
    want = [alone.infer(observation)["actions"] for observation in grid]
    assert len({chunk.tobytes() for chunk in want}) == len(grid)
    waves = total(blind_server, "piserve_batch_rows_count")
    rows = total(blind_server, "piserve_batch_rows_sum")

    def robot(index):
        policy = connect(blind_server)
        for turn in range(10):
            k = (5 * index + 7 * turn) % len(grid)
            actions = policy.infer(grid[k])["actions"]
            np.testing.assert_array_equal(actions, want[k])

    in_threads(12, robot)
    rows = total(blind_server, "piserve_batch_rows_sum") - rows
    waves = total(blind_server, "piserve_batch_rows_count") - waves
    assert rows == 120
    assert waves < rows, "no two connections shared a wave"


def test_requests_count_beside_grpcs(blind_server):
    before = metrics(blind_server.get("/metrics"))[ANSWERED]
    policy = connect(blind_server)
    policy.infer(libero())
    with PolicyClient(blind_server.addresses.public) as client:
        client.infer(libero())
    wait_until(
        lambda: metrics(blind_server.get("/metrics"))[ANSWERED] == before + 1
    )
    assert total(blind_server, "piserve_websocket_connections") >= 1
    assert total(blind_server, "piserve_inflight_requests") == 0


def test_recorded_observations_are_taken(blind_server):
    """What openpi's own client sent when the goldens were recorded."""
    policy = connect(blind_server)
    for recording in recorded.load("pi05_libero").recordings:
        actions = policy.infer(recording.observation)["actions"]
        assert actions.shape == (10, 7)
