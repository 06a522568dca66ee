# SPDX-License-Identifier: Apache-2.0
"""Observation dicts of openpi's client to requests.

Only dtype and layout are settled here (HWC, float to uint8); resizing,
normalising and tokenising are the server's. What openpi would refuse is
refused before it is sent, with the key of the dict that is at fault.

Source: openpi policies/{libero,droid,aloha}_policy.py (_parse_image,
_decode_aloha), transforms.py (TokenizePrompt).
"""

from __future__ import annotations

from typing import Any, Callable, Mapping, Optional, Tuple

import numpy as np

from piserve._proto import policy_pb2
from piserve.errors import InvalidObservation, PolicyMismatch

_JPEG_MAGIC = b"\xff\xd8"
_PNG_MAGIC = b"\x89PNG"

_ALOHA_CAMERAS = frozenset(
    ("cam_high", "cam_low", "cam_left_wrist", "cam_right_wrist")
)


def observation_request(
    obs: Mapping[str, Any], info: policy_pb2.PolicyInfo
) -> policy_pb2.ObservationRequest:
    """The request for an observation, in the form that `info` asks for.

    Sets `policy`, `prompt`, `state` and `images`. Keys that the policy does not
    use are dropped, as openpi does.

    Raises InvalidObservation if the observation does not fit the policy, and
    PolicyMismatch if the policy is for a robot that is not known here.
    """
    if not isinstance(obs, Mapping):
        raise InvalidObservation(
            f"got {type(obs).__name__} as observation, want a dict",
            reason="OBSERVATION_TYPE",
        )
    robot = _robot_of(info)
    request = policy_pb2.ObservationRequest(policy=info.name)
    robot.add_images(request, obs, info)
    state = robot.state(obs)
    want = sum(block.size for block in info.state)
    if state.shape != (want,):
        raise InvalidObservation(
            f"got shape {list(state.shape)}, want [{want}]",
            reason="STATE_LENGTH",
            field=robot.state_key,
        )
    request.state.extend(state.tolist())
    prompt = _prompt(obs, info, robot.prompt_bytes)
    if prompt is not None:
        request.prompt = prompt
    return request


# --------------------------------------------------------------------- robots


class _Robot:
    """How one robot's dict is read: LIBERO's way, which others vary."""

    state_key = "observation/state"
    prompt_bytes = False

    def state(self, obs: Mapping[str, Any]) -> np.ndarray:
        return _numbers(_need(obs, self.state_key), self.state_key)

    def add_images(
        self,
        request: policy_pb2.ObservationRequest,
        obs: Mapping[str, Any],
        info: policy_pb2.PolicyInfo,
    ) -> None:
        for camera in info.cameras:
            if camera.name in obs:
                _add_image(request, camera, obs[camera.name], hwc_uint8)
            elif camera.use == policy_pb2.CAMERA_USE_REQUIRED:
                raise _missing(camera.name)


class _Droid(_Robot):
    state_key = "observation/joint_position"
    prompt_bytes = True

    def state(self, obs: Mapping[str, Any]) -> np.ndarray:
        gripper_key = "observation/gripper_position"
        gripper = _numbers(_need(obs, gripper_key), gripper_key)
        if gripper.ndim == 0:
            gripper = gripper[np.newaxis]
        joints = _numbers(_need(obs, self.state_key), self.state_key)
        for key, value in ((self.state_key, joints), (gripper_key, gripper)):
            if value.ndim != 1:
                raise InvalidObservation(
                    f"got {value.ndim} dimensions, want 1",
                    reason="STATE_LENGTH",
                    field=key,
                )
        return np.concatenate([joints, gripper])


class _Aloha(_Robot):
    state_key = "state"

    def add_images(
        self,
        request: policy_pb2.ObservationRequest,
        obs: Mapping[str, Any],
        info: policy_pb2.PolicyInfo,
    ) -> None:
        images = _need(obs, "images")
        if not isinstance(images, Mapping):
            raise InvalidObservation(
                f"got {type(images).__name__}, want a dict of cameras",
                reason="IMAGE_TYPE",
                field="images",
            )
        cameras = {_short(camera.name): camera for camera in info.cameras}
        for name in images:
            if name not in cameras:
                raise InvalidObservation(
                    f"no such camera, want one of {sorted(cameras)}",
                    reason="CAMERA_UNKNOWN",
                    field=f"images/{name}",
                )
        for name, camera in cameras.items():
            if name in images:
                _add_image(request, camera, images[name], chw_uint8)
            elif camera.use == policy_pb2.CAMERA_USE_REQUIRED:
                raise _missing(f"images/{name}")


def _robot_of(info: policy_pb2.PolicyInfo) -> _Robot:
    names = {camera.name for camera in info.cameras}
    if "observation/image" in names:
        return _Robot()
    if "observation/exterior_image_1_left" in names:
        return _Droid()
    if {_short(name) for name in names} <= _ALOHA_CAMERAS and names:
        return _Aloha()
    raise PolicyMismatch(
        f"policy {info.name!r} has cameras {sorted(names)}: none of LIBERO's, "
        "DROID's or ALOHA's",
        reason="ROBOT_UNKNOWN",
    )


def _short(camera: str) -> str:
    return camera.rsplit("/", 1)[-1]


def _need(obs: Mapping[str, Any], key: str) -> Any:
    if key not in obs:
        raise InvalidObservation(
            f"missing, got keys {sorted(map(str, obs))}",
            reason="KEY_MISSING",
            field=key,
        )
    return obs[key]


def _missing(field: str) -> InvalidObservation:
    return InvalidObservation(
        "a required camera is missing", reason="CAMERA_MISSING", field=field
    )


def array_of(value: Any, field: str, reason: str) -> np.ndarray:
    try:
        return np.asarray(value)
    except (TypeError, ValueError) as error:  # ragged lists, for one
        raise InvalidObservation(
            f"got no array: {error}", reason=reason, field=field
        ) from error


def _numbers(value: Any, field: str) -> np.ndarray:
    array = array_of(value, field, "STATE_TYPE")
    if array.dtype.kind not in "fiu":
        raise InvalidObservation(
            f"got dtype {array.dtype}, want real numbers",
            reason="STATE_TYPE",
            field=field,
        )
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise InvalidObservation(
            f"value {int(np.argmin(np.isfinite(array)))} is not finite",
            reason="NOT_FINITE",
            field=field,
        )
    return array


# --------------------------------------------------------------------- images


def _add_image(
    request: policy_pb2.ObservationRequest,
    camera: policy_pb2.Camera,
    value: Any,
    convert: Callable[[Any, str], np.ndarray],
) -> None:
    if camera.use == policy_pb2.CAMERA_USE_IGNORED:
        return  # the server would drop it undecoded: spare the bytes
    encoding = _encoding_of(value, camera.name)
    if encoding is not None:
        request.images.add(name=camera.name, encoding=encoding, data=value)
        return
    pixels = convert(value, camera.name)
    request.images.add(
        name=camera.name,
        encoding=policy_pb2.IMAGE_ENCODING_RGB8,
        height=pixels.shape[0],
        width=pixels.shape[1],
        data=pixels.tobytes(),
    )


def _encoding_of(value: Any, field: str) -> Optional[policy_pb2.ImageEncoding]:
    """Bytes of a JPEG or PNG file, an addition to openpi, go as they are."""
    if not isinstance(value, bytes):
        return None
    if value.startswith(_JPEG_MAGIC):
        return policy_pb2.IMAGE_ENCODING_JPEG
    if value.startswith(_PNG_MAGIC):
        return policy_pb2.IMAGE_ENCODING_PNG
    raise InvalidObservation(
        "got bytes that are neither JPEG nor PNG",
        reason="IMAGE_TYPE",
        field=field,
    )


def hwc_uint8(value: Any, field: str) -> np.ndarray:
    """LIBERO's and DROID's images: [h, w, 3], or [3, h, w] by its first size.

    An image of three rows reads as CHW, as in openpi.
    """
    pixels = _to_uint8(value, field)
    if pixels.ndim == 3 and pixels.shape[0] == 3:
        pixels = pixels.transpose(1, 2, 0)
    return _checked(pixels, field, "[h, w, 3] or [3, h, w]")


def chw_uint8(value: Any, field: str) -> np.ndarray:
    """ALOHA's images, always [3, h, w]."""
    pixels = _to_uint8(value, field)
    if pixels.ndim == 3:
        pixels = pixels.transpose(1, 2, 0)
    return _checked(pixels, field, "[3, h, w]")


def _checked(pixels: np.ndarray, field: str, want: str) -> np.ndarray:
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:
        raise InvalidObservation(
            f"got {list(pixels.shape)} as height, width, channels; want {want}",
            reason="IMAGE_SHAPE",
            field=field,
        )
    return np.ascontiguousarray(pixels)


def _to_uint8(value: Any, field: str) -> np.ndarray:
    """float in [0, 1] -> (255 * x) truncated; uint8 as it is.

    Raises where openpi's cast has no defined result: values that do not land in
    0..255, other integer types.
    """
    image = array_of(value, field, "IMAGE_TYPE")
    if image.dtype == np.uint8:
        return image
    if not np.issubdtype(image.dtype, np.floating):
        raise InvalidObservation(
            f"got dtype {image.dtype}, want uint8, or float in [0, 1]",
            reason="IMAGE_TYPE",
            field=field,
        )
    scaled = 255 * image
    if not ((scaled > -1) & (scaled < 256)).all():
        raise InvalidObservation(
            f"got float values from {image.min()} to {image.max()}, "
            "want [0, 1]",
            reason="IMAGE_RANGE",
            field=field,
        )
    converted: np.ndarray = scaled.astype(np.uint8)
    return converted


# --------------------------------------------------------------------- prompt


def _prompt(
    obs: Mapping[str, Any],
    info: policy_pb2.PolicyInfo,
    bytes_allowed: bool,
) -> Optional[str]:
    """The prompt's text; None if the policy's default one is to be used."""
    if "prompt" not in obs:
        if info.HasField("default_prompt"):
            return None
        raise _bad_prompt("missing, and the policy has no default one")
    value = obs["prompt"]
    if isinstance(value, bytes) and bytes_allowed:
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise _bad_prompt(f"not UTF-8: {error}") from error
    if value is None:
        raise _bad_prompt("got None; leave the key out for the default prompt")
    text, got = _text_of(value)
    if text is None:
        raise _bad_prompt(
            f"got {got}, want str or a string array of one element"
        )
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise _bad_prompt(f"not UTF-8: {error}") from error
    return text


def _text_of(value: Any) -> Tuple[Optional[str], str]:
    if isinstance(value, str):
        return str(value), "str"
    got = type(value).__name__
    if isinstance(value, np.ndarray):
        got = f"an array of {value.dtype} {list(value.shape)}"
        item = value.item() if value.size == 1 else None
        if isinstance(item, str):
            return item, got
    return None, got


def _bad_prompt(message: str) -> InvalidObservation:
    return InvalidObservation(message, reason="PROMPT", field="prompt")
