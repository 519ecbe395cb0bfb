from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TelemetryBatch(_message.Message):
    __slots__ = ("batch_id", "sequence", "devices", "frames")
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    batch_id: str
    sequence: int
    devices: _containers.RepeatedScalarFieldContainer[str]
    frames: _containers.RepeatedCompositeFieldContainer[TelemetryFrame]
    def __init__(self, batch_id: _Optional[str] = ..., sequence: _Optional[int] = ..., devices: _Optional[_Iterable[str]] = ..., frames: _Optional[_Iterable[_Union[TelemetryFrame, _Mapping]]] = ...) -> None: ...

class TelemetryFrame(_message.Message):
    __slots__ = ("metrics", "device_index", "time_unix_us", "values")
    METRICS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_INDEX_FIELD_NUMBER: _ClassVar[int]
    TIME_UNIX_US_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    metrics: _containers.RepeatedScalarFieldContainer[str]
    device_index: _containers.RepeatedScalarFieldContainer[int]
    time_unix_us: _containers.RepeatedScalarFieldContainer[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, metrics: _Optional[_Iterable[str]] = ..., device_index: _Optional[_Iterable[int]] = ..., time_unix_us: _Optional[_Iterable[int]] = ..., values: _Optional[_Iterable[float]] = ...) -> None: ...
