import datetime

from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.rpc import status_pb2 as _status_pb2
from tidewire.type.v1 import telemetry_pb2 as _telemetry_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RefusalReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REFUSAL_REASON_UNSPECIFIED: _ClassVar[RefusalReason]
    DEVICE_UNKNOWN: _ClassVar[RefusalReason]
    DEVICE_BLOCKED: _ClassVar[RefusalReason]
    NOT_YOUR_DEVICE: _ClassVar[RefusalReason]
    QUOTA_TENANT: _ClassVar[RefusalReason]
    QUOTA_DEVICE: _ClassVar[RefusalReason]
    CLOCK_SKEW: _ClassVar[RefusalReason]
    NOT_FINITE: _ClassVar[RefusalReason]
    BAD_METRIC: _ClassVar[RefusalReason]
    TOO_MANY_METRICS: _ClassVar[RefusalReason]
REFUSAL_REASON_UNSPECIFIED: RefusalReason
DEVICE_UNKNOWN: RefusalReason
DEVICE_BLOCKED: RefusalReason
NOT_YOUR_DEVICE: RefusalReason
QUOTA_TENANT: RefusalReason
QUOTA_DEVICE: RefusalReason
CLOCK_SKEW: RefusalReason
NOT_FINITE: RefusalReason
BAD_METRIC: RefusalReason
TOO_MANY_METRICS: RefusalReason

class PublishTelemetryResponse(_message.Message):
    __slots__ = ("batch_id", "sequence", "accepted_readings", "refused_readings", "refusals", "missed_batches", "retry_delay", "status")
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_READINGS_FIELD_NUMBER: _ClassVar[int]
    REFUSED_READINGS_FIELD_NUMBER: _ClassVar[int]
    REFUSALS_FIELD_NUMBER: _ClassVar[int]
    MISSED_BATCHES_FIELD_NUMBER: _ClassVar[int]
    RETRY_DELAY_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    batch_id: str
    sequence: int
    accepted_readings: int
    refused_readings: int
    refusals: _containers.RepeatedCompositeFieldContainer[Refusal]
    missed_batches: int
    retry_delay: _duration_pb2.Duration
    status: _status_pb2.Status
    def __init__(self, batch_id: _Optional[str] = ..., sequence: _Optional[int] = ..., accepted_readings: _Optional[int] = ..., refused_readings: _Optional[int] = ..., refusals: _Optional[_Iterable[_Union[Refusal, _Mapping]]] = ..., missed_batches: _Optional[int] = ..., retry_delay: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("reason", "frame", "rows", "readings", "first_rows", "message")
    REASON_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    READINGS_FIELD_NUMBER: _ClassVar[int]
    FIRST_ROWS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    reason: RefusalReason
    frame: int
    rows: int
    readings: int
    first_rows: _containers.RepeatedScalarFieldContainer[int]
    message: str
    def __init__(self, reason: _Optional[_Union[RefusalReason, str]] = ..., frame: _Optional[int] = ..., rows: _Optional[int] = ..., readings: _Optional[int] = ..., first_rows: _Optional[_Iterable[int]] = ..., message: _Optional[str] = ...) -> None: ...
