# SPDX-License-Identifier: Apache-2.0
"""What openpi answered, asked of the running server: the same observations and
noise give the same actions, within the bounds of FP32 mode."""

import io
import time

import numpy as np
import pytest
import recorded
from PIL import Image
from piserve import ActionChunkBroker, PolicyClient
from piserve._proto import policy_pb2
from serving import (
    RawClient,
    assert_equal_to_openpi,
    request_for,
    serving_config,
)


@pytest.fixture(scope="module", params=recorded.config_names())
def config(request):
    return recorded.load(request.param)


@pytest.fixture(scope="module")
def server(config):
    with serving_config(f"{config.name}_tiny") as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    with PolicyClient(server.addresses.public, timeout=30) as client:
        yield client


@pytest.mark.parametrize("index", range(3))
def test_actions_equal_openpis(client, config, index):
    recording = config.recordings[index]
    reply = client.infer(recording.observation, noise=recording.noise)
    difference = recording.difference(reply["actions"])
    print(f"{config.name}[{index}]: {difference}")
    assert difference.within, difference
    assert reply["seed"] is None


def test_actions_over_a_stream_equal_openpis(server, client, config):
    info = client.policy_info()
    requests = [
        policy_pb2.InferStreamRequest(
            observation=request_for(recording, info, request_id=str(index)),
            timeout_us=20_000_000,
        )
        for index, recording in enumerate(config.recordings)
    ]
    with RawClient(server.addresses.public) as raw:
        answers = raw.stream(requests)
    assert sorted(answers) == ["0", "1", "2"]
    for index, recording in enumerate(config.recordings):
        (result,) = answers[str(index)]
        assert_equal_to_openpi(recording, result)


def test_png_gives_the_same_actions_as_raw_pixels(server, client, config):
    recording = config.recordings[0]
    info = client.policy_info()
    raw_request = request_for(recording, info)
    png_request = request_for(recording, info)
    for image in png_request.images:
        pixels = np.frombuffer(image.data, np.uint8)
        pixels = pixels.reshape(image.height, image.width, 3)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        image.data = file.getvalue()
        image.encoding = policy_pb2.IMAGE_ENCODING_PNG
    with RawClient(server.addresses.public) as raw:
        first, second = raw.infer(raw_request), raw.infer(png_request)
    assert_equal_to_openpi(recording, second)
    assert first.actions == second.actions


def test_a_seed_gives_the_same_actions_again(client, config):
    observation = config.recordings[0].observation
    first = client.infer(observation, seed=7)
    again = client.infer(observation, seed=7)
    other = client.infer(observation, seed=8)
    drawn = client.infer(observation)
    np.testing.assert_array_equal(first["actions"], again["actions"])
    assert first["seed"] == 7
    assert np.abs(first["actions"] - other["actions"]).max() > 1e-3
    replayed = client.infer(observation, seed=drawn["seed"])
    np.testing.assert_array_equal(drawn["actions"], replayed["actions"])


def test_broker_runs_through_a_chunk(client, config):
    recording = config.recordings[0]
    broker = ActionChunkBroker(client, action_horizon=3)
    steps = [broker.infer(recording.observation) for _ in range(4)]
    width = recording.actions.shape[1]
    assert [step["actions"].shape for step in steps] == [(width,)] * 4
    assert len({step["request_id"] for step in steps}) == 2


def test_policy_info_describes_the_robot(client, config):
    info = client.policy_info()
    recording = config.recordings[0]
    horizon, width = recording.actions.shape
    assert info.policy_config == config.name
    assert info.precision == "float32"
    assert info.action_horizon == horizon
    assert sum(block.size for block in info.action) == width
    assert list(info.noise_shape) == [horizon, 32]
    assert info.prompt_tokens_max == config.description["max_token_len"]
    prompt = config.description["default_prompt"]
    assert info.HasField("default_prompt") == (prompt is not None)
    assert info.default_prompt == (prompt or "")
    metadata = {
        key: [item.number_value for item in value.list_value.values]
        for key, value in info.metadata.fields.items()
    }
    assert metadata == config.description["policy_metadata"]
    assert len(info.model_digest) == 64
    assert not info.supports_prefix


def test_time_on_the_wire_fits_in_the_clients(client, config):
    recording = config.recordings[0]
    start = time.monotonic()
    reply = client.infer(recording.observation, noise=recording.noise)
    elapsed_ms = (time.monotonic() - start) * 1e3
    assert 0 < reply["policy_timing"]["infer_ms"] <= elapsed_ms
    assert reply["server_timing"]["infer_ms"] <= elapsed_ms
    assert reply["deadline_ms"] <= 30_000
