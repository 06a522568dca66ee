# SPDX-License-Identifier: Apache-2.0
from google.protobuf import any_pb2 as _any_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

CAMERA_USE_IGNORED: CameraUse
CAMERA_USE_OPTIONAL: CameraUse
CAMERA_USE_REQUIRED: CameraUse
CAMERA_USE_UNSPECIFIED: CameraUse
DATA_TYPE_FLOAT32: DataType
DATA_TYPE_UNSPECIFIED: DataType
DESCRIPTOR: _descriptor.FileDescriptor
IMAGE_ENCODING_JPEG: ImageEncoding
IMAGE_ENCODING_PNG: ImageEncoding
IMAGE_ENCODING_RGB8: ImageEncoding
IMAGE_ENCODING_UNSPECIFIED: ImageEncoding
REQUEST_CLASS_BULK: RequestClass
REQUEST_CLASS_CONTROL: RequestClass
REQUEST_CLASS_EVALUATION: RequestClass
REQUEST_CLASS_UNSPECIFIED: RequestClass

class ActionPrefix(_message.Message):
    __slots__ = ["actions", "delay_steps", "execution_horizon"]
    ACTIONS_FIELD_NUMBER: _ClassVar[int]
    DELAY_STEPS_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_HORIZON_FIELD_NUMBER: _ClassVar[int]
    actions: Array
    delay_steps: int
    execution_horizon: int
    def __init__(self, actions: _Optional[_Union[Array, _Mapping]] = ..., delay_steps: _Optional[int] = ..., execution_horizon: _Optional[int] = ...) -> None: ...

class Array(_message.Message):
    __slots__ = ["data", "dtype", "shape"]
    DATA_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    dtype: DataType
    shape: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, dtype: _Optional[_Union[DataType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ...) -> None: ...

class Block(_message.Message):
    __slots__ = ["name", "size", "unit"]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    name: str
    size: int
    unit: str
    def __init__(self, name: _Optional[str] = ..., unit: _Optional[str] = ..., size: _Optional[int] = ...) -> None: ...

class Camera(_message.Message):
    __slots__ = ["model_slot", "name", "use"]
    MODEL_SLOT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    USE_FIELD_NUMBER: _ClassVar[int]
    model_slot: str
    name: str
    use: CameraUse
    def __init__(self, name: _Optional[str] = ..., use: _Optional[_Union[CameraUse, str]] = ..., model_slot: _Optional[str] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ["code", "details", "message"]
    CODE_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: int
    details: _containers.RepeatedCompositeFieldContainer[_any_pb2.Any]
    message: str
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., details: _Optional[_Iterable[_Union[_any_pb2.Any, _Mapping]]] = ...) -> None: ...

class GetPolicyInfoRequest(_message.Message):
    __slots__ = ["policy"]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    policy: str
    def __init__(self, policy: _Optional[str] = ...) -> None: ...

class GetPolicyInfoResponse(_message.Message):
    __slots__ = ["policies"]
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    policies: _containers.RepeatedCompositeFieldContainer[PolicyInfo]
    def __init__(self, policies: _Optional[_Iterable[_Union[PolicyInfo, _Mapping]]] = ...) -> None: ...

class Image(_message.Message):
    __slots__ = ["data", "encoding", "height", "name", "width"]
    DATA_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    encoding: ImageEncoding
    height: int
    name: str
    width: int
    def __init__(self, name: _Optional[str] = ..., encoding: _Optional[_Union[ImageEncoding, str]] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class InferRequest(_message.Message):
    __slots__ = ["observation"]
    OBSERVATION_FIELD_NUMBER: _ClassVar[int]
    observation: ObservationRequest
    def __init__(self, observation: _Optional[_Union[ObservationRequest, _Mapping]] = ...) -> None: ...

class InferResponse(_message.Message):
    __slots__ = ["result"]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    result: InferResult
    def __init__(self, result: _Optional[_Union[InferResult, _Mapping]] = ...) -> None: ...

class InferResult(_message.Message):
    __slots__ = ["actions", "deadline_us", "graph_rows", "model_digest", "num_steps", "policy", "request_id", "seed", "stages", "wave_rows"]
    ACTIONS_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_US_FIELD_NUMBER: _ClassVar[int]
    GRAPH_ROWS_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    NUM_STEPS_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    WAVE_ROWS_FIELD_NUMBER: _ClassVar[int]
    actions: Array
    deadline_us: int
    graph_rows: int
    model_digest: str
    num_steps: int
    policy: str
    request_id: str
    seed: int
    stages: _containers.RepeatedCompositeFieldContainer[StageTime]
    wave_rows: int
    def __init__(self, request_id: _Optional[str] = ..., actions: _Optional[_Union[Array, _Mapping]] = ..., seed: _Optional[int] = ..., policy: _Optional[str] = ..., model_digest: _Optional[str] = ..., deadline_us: _Optional[int] = ..., wave_rows: _Optional[int] = ..., graph_rows: _Optional[int] = ..., num_steps: _Optional[int] = ..., stages: _Optional[_Iterable[_Union[StageTime, _Mapping]]] = ...) -> None: ...

class InferStreamRequest(_message.Message):
    __slots__ = ["observation", "timeout_us"]
    OBSERVATION_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_US_FIELD_NUMBER: _ClassVar[int]
    observation: ObservationRequest
    timeout_us: int
    def __init__(self, observation: _Optional[_Union[ObservationRequest, _Mapping]] = ..., timeout_us: _Optional[int] = ...) -> None: ...

class InferStreamResponse(_message.Message):
    __slots__ = ["error", "request_id", "result"]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    error: Error
    request_id: str
    result: InferResult
    def __init__(self, request_id: _Optional[str] = ..., result: _Optional[_Union[InferResult, _Mapping]] = ..., error: _Optional[_Union[Error, _Mapping]] = ...) -> None: ...

class ObservationRequest(_message.Message):
    __slots__ = ["action_prefix", "age_us", "episode_id", "images", "max_age_us", "model_digest", "noise", "num_steps", "policy", "prompt", "request_id", "robot_id", "seed", "sequence", "state", "supersede_older", "traceparent"]
    ACTION_PREFIX_FIELD_NUMBER: _ClassVar[int]
    AGE_US_FIELD_NUMBER: _ClassVar[int]
    CLASS_FIELD_NUMBER: _ClassVar[int]
    EPISODE_ID_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    MAX_AGE_US_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    NOISE_FIELD_NUMBER: _ClassVar[int]
    NUM_STEPS_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ROBOT_ID_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SUPERSEDE_OLDER_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    action_prefix: ActionPrefix
    age_us: int
    episode_id: str
    images: _containers.RepeatedCompositeFieldContainer[Image]
    max_age_us: int
    model_digest: str
    noise: Array
    num_steps: int
    policy: str
    prompt: str
    request_id: str
    robot_id: str
    seed: int
    sequence: int
    state: _containers.RepeatedScalarFieldContainer[float]
    supersede_older: bool
    traceparent: str
    def __init__(self, policy: _Optional[str] = ..., model_digest: _Optional[str] = ..., request_id: _Optional[str] = ..., robot_id: _Optional[str] = ..., episode_id: _Optional[str] = ..., sequence: _Optional[int] = ..., supersede_older: bool = ..., age_us: _Optional[int] = ..., max_age_us: _Optional[int] = ..., traceparent: _Optional[str] = ..., prompt: _Optional[str] = ..., state: _Optional[_Iterable[float]] = ..., images: _Optional[_Iterable[_Union[Image, _Mapping]]] = ..., noise: _Optional[_Union[Array, _Mapping]] = ..., seed: _Optional[int] = ..., num_steps: _Optional[int] = ..., action_prefix: _Optional[_Union[ActionPrefix, _Mapping]] = ..., **kwargs) -> None: ...

class PolicyInfo(_message.Message):
    __slots__ = ["action", "action_horizon", "backend", "batch_sizes", "cameras", "control_rate_hz", "default_prompt", "default_steps", "metadata", "model_digest", "name", "noise_shape", "policy_config", "precision", "preprocessing_checksum", "prompt_tokens_max", "state", "step_counts", "supports_prefix", "tokenizer_sha256"]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    ACTION_HORIZON_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZES_FIELD_NUMBER: _ClassVar[int]
    CAMERAS_FIELD_NUMBER: _ClassVar[int]
    CONTROL_RATE_HZ_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_PROMPT_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_STEPS_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    NOISE_SHAPE_FIELD_NUMBER: _ClassVar[int]
    POLICY_CONFIG_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    PREPROCESSING_CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_MAX_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STEP_COUNTS_FIELD_NUMBER: _ClassVar[int]
    SUPPORTS_PREFIX_FIELD_NUMBER: _ClassVar[int]
    TOKENIZER_SHA256_FIELD_NUMBER: _ClassVar[int]
    action: _containers.RepeatedCompositeFieldContainer[Block]
    action_horizon: int
    backend: str
    batch_sizes: _containers.RepeatedScalarFieldContainer[int]
    cameras: _containers.RepeatedCompositeFieldContainer[Camera]
    control_rate_hz: float
    default_prompt: str
    default_steps: int
    metadata: _struct_pb2.Struct
    model_digest: str
    name: str
    noise_shape: _containers.RepeatedScalarFieldContainer[int]
    policy_config: str
    precision: str
    preprocessing_checksum: str
    prompt_tokens_max: int
    state: _containers.RepeatedCompositeFieldContainer[Block]
    step_counts: _containers.RepeatedScalarFieldContainer[int]
    supports_prefix: bool
    tokenizer_sha256: str
    def __init__(self, name: _Optional[str] = ..., model_digest: _Optional[str] = ..., policy_config: _Optional[str] = ..., precision: _Optional[str] = ..., cameras: _Optional[_Iterable[_Union[Camera, _Mapping]]] = ..., state: _Optional[_Iterable[_Union[Block, _Mapping]]] = ..., action: _Optional[_Iterable[_Union[Block, _Mapping]]] = ..., action_horizon: _Optional[int] = ..., noise_shape: _Optional[_Iterable[int]] = ..., prompt_tokens_max: _Optional[int] = ..., default_prompt: _Optional[str] = ..., step_counts: _Optional[_Iterable[int]] = ..., default_steps: _Optional[int] = ..., batch_sizes: _Optional[_Iterable[int]] = ..., control_rate_hz: _Optional[float] = ..., metadata: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., preprocessing_checksum: _Optional[str] = ..., tokenizer_sha256: _Optional[str] = ..., supports_prefix: bool = ..., backend: _Optional[str] = ...) -> None: ...

class StageTime(_message.Message):
    __slots__ = ["duration_us", "stage"]
    DURATION_US_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    duration_us: int
    stage: str
    def __init__(self, stage: _Optional[str] = ..., duration_us: _Optional[int] = ...) -> None: ...

class ImageEncoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class RequestClass(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class DataType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class CameraUse(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []
