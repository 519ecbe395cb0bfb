from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TelemetryRecord(_message.Message):
    __slots__ = ("tables", "readings", "received_time_unix_us")
    TABLES_FIELD_NUMBER: _ClassVar[int]
    READINGS_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_TIME_UNIX_US_FIELD_NUMBER: _ClassVar[int]
    tables: _containers.RepeatedCompositeFieldContainer[TelemetryTable]
    readings: int
    received_time_unix_us: int
    def __init__(self, tables: _Optional[_Iterable[_Union[TelemetryTable, _Mapping]]] = ..., readings: _Optional[int] = ..., received_time_unix_us: _Optional[int] = ...) -> None: ...

class TelemetryTable(_message.Message):
    __slots__ = ("tenant_uid", "metrics", "device_uids", "device_index", "time_unix_us", "values", "segment_publisher_uids", "segment_batch_ids", "segment_digests", "segment_sequences", "segment_row_counts", "segment_readings", "segment_received_time_unix_us")
    TENANT_UID_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_UIDS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_INDEX_FIELD_NUMBER: _ClassVar[int]
    TIME_UNIX_US_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_PUBLISHER_UIDS_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_BATCH_IDS_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_DIGESTS_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_ROW_COUNTS_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_READINGS_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_RECEIVED_TIME_UNIX_US_FIELD_NUMBER: _ClassVar[int]
    tenant_uid: bytes
    metrics: _containers.RepeatedScalarFieldContainer[str]
    device_uids: bytes
    device_index: _containers.RepeatedScalarFieldContainer[int]
    time_unix_us: _containers.RepeatedScalarFieldContainer[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    segment_publisher_uids: bytes
    segment_batch_ids: bytes
    segment_digests: _containers.RepeatedScalarFieldContainer[int]
    segment_sequences: _containers.RepeatedScalarFieldContainer[int]
    segment_row_counts: _containers.RepeatedScalarFieldContainer[int]
    segment_readings: _containers.RepeatedScalarFieldContainer[int]
    segment_received_time_unix_us: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, tenant_uid: _Optional[bytes] = ..., metrics: _Optional[_Iterable[str]] = ..., device_uids: _Optional[bytes] = ..., device_index: _Optional[_Iterable[int]] = ..., time_unix_us: _Optional[_Iterable[int]] = ..., values: _Optional[_Iterable[float]] = ..., segment_publisher_uids: _Optional[bytes] = ..., segment_batch_ids: _Optional[bytes] = ..., segment_digests: _Optional[_Iterable[int]] = ..., segment_sequences: _Optional[_Iterable[int]] = ..., segment_row_counts: _Optional[_Iterable[int]] = ..., segment_readings: _Optional[_Iterable[int]] = ..., segment_received_time_unix_us: _Optional[_Iterable[int]] = ...) -> None: ...
