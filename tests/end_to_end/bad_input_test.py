# SPDX-License-Identifier: Apache-2.0
"""Every row of "Bad input" in docs/contract.md, over the wire."""

import grpc
import images
import numpy as np
import pytest
import recorded
from piserve._proto import policy_pb2
from recorded import image
from serving import (
    RawClient,
    Refusal,
    array,
    assert_equal_to_openpi,
    request_for,
    serving_config,
)

INVALID = grpc.StatusCode.INVALID_ARGUMENT
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
NOT_FOUND = grpc.StatusCode.NOT_FOUND

RGB8 = policy_pb2.IMAGE_ENCODING_RGB8
JPEG = policy_pb2.IMAGE_ENCODING_JPEG
PNG = policy_pb2.IMAGE_ENCODING_PNG


@pytest.fixture
def request_message(libero, libero_info):
    return request_for(libero.recordings[0], libero_info, request_id="r")


def with_image(encoding, data, width=0, height=0):
    """A change that replaces the first camera's image."""

    def change(request):
        first = request.images[0]
        first.encoding, first.data = encoding, data
        first.width, first.height = width, height

    return change


def rgb8(width, height, data_bytes):
    return with_image(RGB8, bytes(data_bytes), width, height)


def noise(values):
    return lambda request: request.noise.CopyFrom(array(values))


def state(index, value):
    return lambda request: request.state.__setitem__(index, value)


def put(**fields):
    def change(request):
        for name, value in fields.items():
            setattr(request, name, value)

    return change


def noise_with(value):
    values = recorded.noise(1, (10, 32)).copy()
    values[3, 5] = value
    return noise(values)


PICTURE = image(1, 48, 64)
JPEG_FILE = images.jpeg(PICTURE)
PROGRESSIVE = images.jpeg(PICTURE, progressive=True)
PNG_FILE = images.png(PICTURE)

# name: (change, field of BadRequest)
BAD_FIELDS = {
    # state and cameras
    "state too short": (lambda r: r.state.pop(), "state"),
    "state too long": (lambda r: r.state.append(0), "state"),
    "no state": (lambda r: r.ClearField("state"), "state"),
    "camera unknown": (
        lambda r: r.images.add(name="left", encoding=RGB8),
        "images[2]",
    ),
    "camera doubled": (lambda r: r.images.append(r.images[0]), "images[2]"),
    "camera missing": (lambda r: r.images.pop(), "images"),
    "no cameras": (lambda r: r.ClearField("images"), "images"),
    # not finite
    "NaN in state": (state(3, float("nan")), "state[3]"),
    "infinity in state": (state(0, float("inf")), "state[0]"),
    "NaN in noise": (noise_with(np.nan), "noise"),
    "infinity in noise": (noise_with(-np.inf), "noise"),
    # raw pixels
    "bytes fewer than h*w*3": (rgb8(64, 48, 64 * 48 * 3 - 1), "images[0]"),
    "bytes more than h*w*3": (rgb8(64, 48, 64 * 48 * 3 + 1), "images[0]"),
    "bytes of one channel": (rgb8(64, 48, 64 * 48), "images[0]"),
    "a width of 0": (rgb8(0, 48, 0), "images[0]"),
    "a height of 0": (rgb8(64, 0, 0), "images[0]"),
    "a side over 4096": (rgb8(4097, 20, 4097 * 20 * 3), "images[0]"),
    "sides whose product overflows": (rgb8(65536, 65536, 0), "images[0]"),
    "side ratio over 224": (rgb8(1000, 3, 3000 * 3), "images[0]"),
    "no encoding": (with_image(0, b"abc", 1, 1), "images[0]"),
    "an encoding of tomorrow": (with_image(17, b"abc", 1, 1), "images[0]"),
    # files, judged by their header
    "JPEG bomb": (
        with_image(JPEG, images.jpeg_resized(JPEG_FILE, 65500, 65500)),
        "images[0]",
    ),
    "JPEG over 4 Mpx": (
        with_image(JPEG, images.jpeg_resized(JPEG_FILE, 4000, 2000)),
        "images[0]",
    ),
    "PNG bomb": (
        with_image(PNG, images.png_header(100_000, 100_000)),
        "images[0]",
    ),
    "PNG over 4 Mpx": (
        with_image(PNG, images.png_header(4000, 2000)),
        "images",
    ),
    "PNG side ratio": (with_image(PNG, images.png_header(900, 4)), "images[0]"),
    "JPEG of many scans": (
        with_image(JPEG, images.jpeg_with_scans(PROGRESSIVE, 70)),
        "images[0]",
    ),
    "CMYK JPEG": (
        with_image(JPEG, images.jpeg(np.zeros((8, 8, 4), np.uint8))),
        "images[0]",
    ),
    "PNG of 16 bits": (with_image(PNG, images.png_16_bit(8, 8)), "images[0]"),
    "animated PNG": (with_image(PNG, images.animated_png(PICTURE)), "images"),
    "size unlike the header's": (
        with_image(PNG, PNG_FILE, 48, 64),
        "images[0]",
    ),
    # files, found out while decoding
    "truncated JPEG": (with_image(JPEG, JPEG_FILE[:-200]), "images[0]"),
    "truncated PNG": (with_image(PNG, PNG_FILE[:-200]), "images[0]"),
    "JPEG that is a header": (with_image(JPEG, JPEG_FILE[:64]), "images[0]"),
    "lying JPEG": (
        with_image(JPEG, images.jpeg_resized(JPEG_FILE, 640, 480)),
        "images[0]",
    ),
    "lying PNG": (with_image(PNG, images.png_header(640, 480)), "images[0]"),
    "PNG called JPEG": (with_image(JPEG, PNG_FILE), "images[0]"),
    "JPEG called PNG": (with_image(PNG, JPEG_FILE), "images[0]"),
    "noise called JPEG": (with_image(JPEG, bytes(range(256)) * 9), "images[0]"),
    "an empty file": (with_image(PNG, b""), "images[0]"),
    # prompt
    "prompt over 1 KiB": (put(prompt="a" * 1025), "prompt"),
    "prompt with NUL": (put(prompt="pick\0up"), "prompt"),
    "prompt of too many tokens": (put(prompt="?!" * 60), "prompt"),
    "no prompt and no default one": (
        lambda r: r.ClearField("prompt"),
        "prompt",
    ),
    # start and steps
    "noise of too few steps": (noise(np.zeros((9, 32), "f4")), "noise"),
    "noise of too few dimensions": (noise(np.zeros((10, 7), "f4")), "noise"),
    "noise of three axes": (noise(np.zeros((1, 10, 32), "f4")), "noise"),
    "noise of too few bytes": (
        lambda r: setattr(r.noise, "data", r.noise.data[:-4]),
        "noise",
    ),
    "noise without a type": (lambda r: setattr(r.noise, "dtype", 0), "noise"),
    "zero steps": (put(num_steps=0), "num_steps"),
    # names
    "request id too long": (put(request_id="r" * 65), "request_id"),
    "robot id too long": (put(robot_id="r" * 65), "robot_id"),
    "episode id too long": (put(episode_id="r" * 65), "episode_id"),
    "traceparent too long": (put(traceparent="t" * 65), "traceparent"),
    "supersede without a robot": (
        put(supersede_older=True),
        "supersede_older",
    ),
    "a class of tomorrow": (lambda r: setattr(r, "class", 9), "class"),
    # not acted on yet
    "action prefix": (
        lambda r: r.action_prefix.SetInParent(),
        "action_prefix",
    ),
}


@pytest.mark.parametrize("name", BAD_FIELDS)
def test_bad_field_is_refused_by_name(raw, request_message, name):
    change, field = BAD_FIELDS[name]
    change(request_message)
    answer = raw.infer(request_message)
    assert isinstance(answer, Refusal), "actions came of it"
    assert answer.code == INVALID, answer
    assert answer.reason, answer
    assert answer.field.removeprefix("observation.").startswith(field), answer
    assert "/" not in answer.message.replace("observation/", ""), "a path?"


def spliced(message, name, value):
    """The bytes of a message with a string's bytes replaced."""
    setattr(message, name, "@" * len(value))
    whole = policy_pb2.InferRequest(observation=message).SerializeToString()
    return whole.replace(b"@" * len(value), value, 1)


def appended(message, more):
    """A message with more fields of the observation after its own."""
    wire = message.SerializeToString() + more
    length, size = b"", len(wire)
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return b"\x0a" + length + bytes([size]) + wire


WIRE = {
    "prompt not UTF-8": (
        lambda m: spliced(m, "prompt", b"\xc3\x28\xff"),
        "prompt",
    ),
    "request id not UTF-8": (
        lambda m: spliced(m, "request_id", b"\xff\xfe"),
        "request_id",
    ),
    "noise and seed": (
        lambda m: appended(
            m, policy_pb2.ObservationRequest(seed=3).SerializeToString()
        ),
        "",
    ),
    "an unknown field": (lambda m: appended(m, b"\xa0\x3f\x01"), ""),
    "a message cut off": (lambda m: appended(m, b"")[:-9], ""),
    "no protobuf at all": (lambda m: b"GET / HTTP/1.1\r\n\r\n", ""),
    "nothing": (lambda m: b"", ""),
}


@pytest.mark.parametrize("name", WIRE)
def test_bad_bytes_are_refused(raw, request_message, name):
    make, field = WIRE[name]
    answer = raw.infer(make(request_message))
    assert isinstance(answer, Refusal), "actions came of it"
    assert answer.code == INVALID, answer
    assert answer.reason and answer.field, answer
    assert answer.field.removeprefix("observation.").startswith(field), answer


@pytest.mark.parametrize(
    ("change", "code", "reason"),
    [
        (put(num_steps=7), PRECONDITION, "STEPS_NOT_OFFERED"),
        (put(model_digest="0" * 64), PRECONDITION, "MODEL_DIGEST_MISMATCH"),
        (put(policy="pi1"), NOT_FOUND, "UNKNOWN_POLICY"),
    ],
)
def test_what_does_not_fit_this_policy_is_refused(
    raw, request_message, change, code, reason
):
    change(request_message)
    answer = raw.infer(request_message)
    assert (answer.code, answer.reason) == (code, reason)


def test_info_of_an_unknown_policy_is_not_found(raw):
    answer = raw.info("pi1")
    assert (answer.code, answer.reason) == (NOT_FOUND, "UNKNOWN_POLICY")


def test_message_over_the_limit_is_grpcs_refusal(raw, request_message):
    request_message.images[0].data = bytes(9 << 20)
    answer = raw.infer(request_message)
    assert answer.code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert answer.reason == ""


def test_three_raw_hd_cameras_fit_the_limit(raw, libero, libero_info):
    recording = libero.recordings[0]
    request = request_for(recording, libero_info)
    for sent in request.images:
        sent.width, sent.height = 1280, 720
        sent.data = bytes(1280 * 720 * 3)
    assert not isinstance(raw.infer(request), Refusal)


def test_no_policy_named_among_several(libero, libero_info):
    with (
        serving_config("all_tiny") as server,
        RawClient(server.addresses.public) as client,
    ):
        request = request_for(libero.recordings[0], libero_info, policy="")
        answer = client.infer(request)
        assert answer.code == INVALID
        assert answer.field.endswith("policy")
        request.policy = "pi0_libero"
        assert not isinstance(client.infer(request), Refusal)
        names = {info.name for info in client.info().policies}
        assert names == set(recorded.config_names())


# ------------------------------------------------------------------- streams


def stream_request(observation, timeout_us=20_000_000, **fields):
    copy = policy_pb2.ObservationRequest()
    copy.CopyFrom(observation)
    for name, value in fields.items():
        setattr(copy, name, value)
    return policy_pb2.InferStreamRequest(
        observation=copy, timeout_us=timeout_us
    )


def test_bad_requests_of_a_stream_harm_no_others(raw, libero, request_message):
    messages = []
    for index in range(6):
        messages.append(stream_request(request_message, request_id=f"g{index}"))
        bad = stream_request(request_message, request_id=f"b{index}")
        bad.observation.state[0] = float("nan")
        messages.append(bad)
    answers = raw.stream(messages)
    assert len(answers) == 12
    for index in range(6):
        (good,), (bad,) = answers[f"g{index}"], answers[f"b{index}"]
        assert_equal_to_openpi(libero.recordings[0], good)
        assert (bad.code, bad.reason) == (INVALID, "STATE_NOT_FINITE")


def test_an_id_in_flight_is_refused_and_the_first_one_answered(
    raw, libero, request_message
):
    answers = raw.stream(
        [stream_request(request_message, request_id="same")] * 2
    )
    first = [a for a in answers["same"] if not isinstance(a, Refusal)]
    second = [a for a in answers["same"] if isinstance(a, Refusal)]
    assert (len(first), len(second)) == (1, 1)
    assert_equal_to_openpi(libero.recordings[0], first[0])
    assert second[0].code == INVALID
    assert second[0].field.endswith("request_id")


def test_a_stream_request_without_an_id_is_refused(raw, request_message):
    (answer,) = raw.stream([stream_request(request_message, request_id="")])[""]
    assert answer.code == INVALID
    assert answer.field.endswith("request_id")


# ----------------------------------------------------------------- deadlines


def test_a_deadline_that_cannot_be_met_is_refused_at_once(raw, request_message):
    (answer,) = raw.stream([stream_request(request_message, timeout_us=200)])[
        "r"
    ]
    assert answer.code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert answer.reason in ("DEADLINE_UNREACHABLE", "DEADLINE_PAST")


def test_no_deadline_is_five_seconds_and_a_long_one_thirty(
    raw, request_message
):
    served = raw.infer(request_message, timeout=None).deadline_us
    assert served == 5_000_000
    assert raw.infer(request_message, timeout=300).deadline_us == 30_000_000
    within = raw.infer(request_message, timeout=9).deadline_us
    assert 5_000_000 < within <= 9_100_000  # gRPC rounds the time up
    for timeout_us, served_us in ((0, 5_000_000), (60_000_000, 30_000_000)):
        message = stream_request(request_message, timeout_us)
        (answer,) = raw.stream([message])["r"]
        assert answer.deadline_us == served_us


def test_an_observation_too_old_is_aborted(raw, request_message):
    request_message.age_us = 2_000_000
    request_message.max_age_us = 1_000_000
    answer = raw.infer(request_message)
    assert answer.code == grpc.StatusCode.ABORTED
    assert answer.reason == "TOO_OLD"


# ---------------------------------------------------------------- afterwards


def test_after_all_that_the_server_answers_as_before(
    libero_server, raw, libero, request_message
):
    assert_equal_to_openpi(libero.recordings[0], raw.infer(request_message))
    assert libero_server.running
