import datetime

from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.api import resource_pb2 as _resource_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from tidewire.type.v1 import columns_pb2 as _columns_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AggregateFunction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    AGGREGATE_FUNCTION_UNSPECIFIED: _ClassVar[AggregateFunction]
    COUNT: _ClassVar[AggregateFunction]
    MIN: _ClassVar[AggregateFunction]
    MAX: _ClassVar[AggregateFunction]
    AVG: _ClassVar[AggregateFunction]
    SUM: _ClassVar[AggregateFunction]
    FIRST: _ClassVar[AggregateFunction]
    LAST: _ClassVar[AggregateFunction]
    STDDEV: _ClassVar[AggregateFunction]
AGGREGATE_FUNCTION_UNSPECIFIED: AggregateFunction
COUNT: AggregateFunction
MIN: AggregateFunction
MAX: AggregateFunction
AVG: AggregateFunction
SUM: AggregateFunction
FIRST: AggregateFunction
LAST: AggregateFunction
STDDEV: AggregateFunction

class GetLatestRequest(_message.Message):
    __slots__ = ("parent", "devices", "metrics", "page_size", "page_token")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    parent: str
    devices: _containers.RepeatedScalarFieldContainer[str]
    metrics: _containers.RepeatedScalarFieldContainer[str]
    page_size: int
    page_token: str
    def __init__(self, parent: _Optional[str] = ..., devices: _Optional[_Iterable[str]] = ..., metrics: _Optional[_Iterable[str]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class GetLatestResponse(_message.Message):
    __slots__ = ("values", "next_page_token")
    VALUES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedCompositeFieldContainer[LatestValue]
    next_page_token: str
    def __init__(self, values: _Optional[_Iterable[_Union[LatestValue, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class LatestValue(_message.Message):
    __slots__ = ("device", "metric", "time_unix_us", "value")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    TIME_UNIX_US_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    device: str
    metric: str
    time_unix_us: int
    value: float
    def __init__(self, device: _Optional[str] = ..., metric: _Optional[str] = ..., time_unix_us: _Optional[int] = ..., value: _Optional[float] = ...) -> None: ...

class ListSeriesRequest(_message.Message):
    __slots__ = ("parent", "devices", "page_size", "page_token")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    parent: str
    devices: _containers.RepeatedScalarFieldContainer[str]
    page_size: int
    page_token: str
    def __init__(self, parent: _Optional[str] = ..., devices: _Optional[_Iterable[str]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListSeriesResponse(_message.Message):
    __slots__ = ("series", "next_page_token")
    SERIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    series: _containers.RepeatedCompositeFieldContainer[Series]
    next_page_token: str
    def __init__(self, series: _Optional[_Iterable[_Union[Series, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class Series(_message.Message):
    __slots__ = ("device", "metric", "first_time", "last_time")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    FIRST_TIME_FIELD_NUMBER: _ClassVar[int]
    LAST_TIME_FIELD_NUMBER: _ClassVar[int]
    device: str
    metric: str
    first_time: _timestamp_pb2.Timestamp
    last_time: _timestamp_pb2.Timestamp
    def __init__(self, device: _Optional[str] = ..., metric: _Optional[str] = ..., first_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ReadSeriesRequest(_message.Message):
    __slots__ = ("device", "metrics", "start_time", "end_time", "max_rows", "page_token")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    MAX_ROWS_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    device: str
    metrics: _containers.RepeatedScalarFieldContainer[str]
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    max_rows: int
    page_token: str
    def __init__(self, device: _Optional[str] = ..., metrics: _Optional[_Iterable[str]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., max_rows: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ReadSeriesResponse(_message.Message):
    __slots__ = ("columns", "next_page_token")
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    columns: _columns_pb2.SeriesColumns
    next_page_token: str
    def __init__(self, columns: _Optional[_Union[_columns_pb2.SeriesColumns, _Mapping]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class AggregateRequest(_message.Message):
    __slots__ = ("parent", "devices", "metrics", "functions", "start_time", "end_time", "bucket_duration", "across_devices")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    FUNCTIONS_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    BUCKET_DURATION_FIELD_NUMBER: _ClassVar[int]
    ACROSS_DEVICES_FIELD_NUMBER: _ClassVar[int]
    parent: str
    devices: _containers.RepeatedScalarFieldContainer[str]
    metrics: _containers.RepeatedScalarFieldContainer[str]
    functions: _containers.RepeatedScalarFieldContainer[AggregateFunction]
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    bucket_duration: _duration_pb2.Duration
    across_devices: bool
    def __init__(self, parent: _Optional[str] = ..., devices: _Optional[_Iterable[str]] = ..., metrics: _Optional[_Iterable[str]] = ..., functions: _Optional[_Iterable[_Union[AggregateFunction, str]]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., bucket_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., across_devices: _Optional[bool] = ...) -> None: ...

class AggregateResponse(_message.Message):
    __slots__ = ("series",)
    SERIES_FIELD_NUMBER: _ClassVar[int]
    series: _containers.RepeatedCompositeFieldContainer[AggregateSeries]
    def __init__(self, series: _Optional[_Iterable[_Union[AggregateSeries, _Mapping]]] = ...) -> None: ...

class AggregateSeries(_message.Message):
    __slots__ = ("device", "metric", "bucket_start_unix_us", "columns")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    BUCKET_START_UNIX_US_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    device: str
    metric: str
    bucket_start_unix_us: _containers.RepeatedScalarFieldContainer[int]
    columns: _containers.RepeatedCompositeFieldContainer[AggregateColumn]
    def __init__(self, device: _Optional[str] = ..., metric: _Optional[str] = ..., bucket_start_unix_us: _Optional[_Iterable[int]] = ..., columns: _Optional[_Iterable[_Union[AggregateColumn, _Mapping]]] = ...) -> None: ...

class AggregateColumn(_message.Message):
    __slots__ = ("function", "values")
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    function: AggregateFunction
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, function: _Optional[_Union[AggregateFunction, str]] = ..., values: _Optional[_Iterable[float]] = ...) -> None: ...

class GetLedgerRequest(_message.Message):
    __slots__ = ("tenant", "start_time", "end_time")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    def __init__(self, tenant: _Optional[str] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class GetLedgerResponse(_message.Message):
    __slots__ = ("entries", "difference_readings", "in_flight_readings", "lag_records")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCE_READINGS_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_READINGS_FIELD_NUMBER: _ClassVar[int]
    LAG_RECORDS_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[LedgerEntry]
    difference_readings: int
    in_flight_readings: int
    lag_records: int
    def __init__(self, entries: _Optional[_Iterable[_Union[LedgerEntry, _Mapping]]] = ..., difference_readings: _Optional[int] = ..., in_flight_readings: _Optional[int] = ..., lag_records: _Optional[int] = ...) -> None: ...

class LedgerEntry(_message.Message):
    __slots__ = ("tenant", "hour_time", "accepted_readings", "stored_readings", "duplicate_readings", "dead_lettered_readings", "present_readings", "purged_readings")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    HOUR_TIME_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_READINGS_FIELD_NUMBER: _ClassVar[int]
    STORED_READINGS_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_READINGS_FIELD_NUMBER: _ClassVar[int]
    DEAD_LETTERED_READINGS_FIELD_NUMBER: _ClassVar[int]
    PRESENT_READINGS_FIELD_NUMBER: _ClassVar[int]
    PURGED_READINGS_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    hour_time: _timestamp_pb2.Timestamp
    accepted_readings: int
    stored_readings: int
    duplicate_readings: int
    dead_lettered_readings: int
    present_readings: int
    purged_readings: int
    def __init__(self, tenant: _Optional[str] = ..., hour_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., accepted_readings: _Optional[int] = ..., stored_readings: _Optional[int] = ..., duplicate_readings: _Optional[int] = ..., dead_lettered_readings: _Optional[int] = ..., present_readings: _Optional[int] = ..., purged_readings: _Optional[int] = ...) -> None: ...

class GetStorageUsageRequest(_message.Message):
    __slots__ = ("tenant",)
    TENANT_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    def __init__(self, tenant: _Optional[str] = ...) -> None: ...

class GetStorageUsageResponse(_message.Message):
    __slots__ = ("usages",)
    USAGES_FIELD_NUMBER: _ClassVar[int]
    usages: _containers.RepeatedCompositeFieldContainer[StorageUsage]
    def __init__(self, usages: _Optional[_Iterable[_Union[StorageUsage, _Mapping]]] = ...) -> None: ...

class StorageUsage(_message.Message):
    __slots__ = ("tenant_uid", "accepted_readings", "stored_readings", "stored_bytes")
    TENANT_UID_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_READINGS_FIELD_NUMBER: _ClassVar[int]
    STORED_READINGS_FIELD_NUMBER: _ClassVar[int]
    STORED_BYTES_FIELD_NUMBER: _ClassVar[int]
    tenant_uid: str
    accepted_readings: int
    stored_readings: int
    stored_bytes: int
    def __init__(self, tenant_uid: _Optional[str] = ..., accepted_readings: _Optional[int] = ..., stored_readings: _Optional[int] = ..., stored_bytes: _Optional[int] = ...) -> None: ...

class CutEpochsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CutEpochsResponse(_message.Message):
    __slots__ = ("partitions",)
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    partitions: int
    def __init__(self, partitions: _Optional[int] = ...) -> None: ...
