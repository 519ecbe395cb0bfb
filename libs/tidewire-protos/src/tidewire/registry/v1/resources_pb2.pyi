import datetime

from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.api import resource_pb2 as _resource_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.type import latlng_pb2 as _latlng_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Tenant(_message.Message):
    __slots__ = ("name", "uid", "display_name", "state", "quotas", "retention", "labels", "create_time", "update_time", "etag")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Tenant.State]
        ACTIVE: _ClassVar[Tenant.State]
        BLOCKED: _ClassVar[Tenant.State]
        DELETING: _ClassVar[Tenant.State]
    STATE_UNSPECIFIED: Tenant.State
    ACTIVE: Tenant.State
    BLOCKED: Tenant.State
    DELETING: Tenant.State
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    QUOTAS_FIELD_NUMBER: _ClassVar[int]
    RETENTION_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    name: str
    uid: str
    display_name: str
    state: Tenant.State
    quotas: TenantQuotas
    retention: TenantRetention
    labels: _containers.ScalarMap[str, str]
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    etag: str
    def __init__(self, name: _Optional[str] = ..., uid: _Optional[str] = ..., display_name: _Optional[str] = ..., state: _Optional[_Union[Tenant.State, str]] = ..., quotas: _Optional[_Union[TenantQuotas, _Mapping]] = ..., retention: _Optional[_Union[TenantRetention, _Mapping]] = ..., labels: _Optional[_Mapping[str, str]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., etag: _Optional[str] = ...) -> None: ...

class TenantQuotas(_message.Message):
    __slots__ = ("readings_per_second", "burst_readings", "batches_per_second", "device_readings_per_second", "devices", "metrics_per_device", "stored_bytes")
    READINGS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    BURST_READINGS_FIELD_NUMBER: _ClassVar[int]
    BATCHES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    DEVICE_READINGS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    METRICS_PER_DEVICE_FIELD_NUMBER: _ClassVar[int]
    STORED_BYTES_FIELD_NUMBER: _ClassVar[int]
    readings_per_second: int
    burst_readings: int
    batches_per_second: int
    device_readings_per_second: int
    devices: int
    metrics_per_device: int
    stored_bytes: int
    def __init__(self, readings_per_second: _Optional[int] = ..., burst_readings: _Optional[int] = ..., batches_per_second: _Optional[int] = ..., device_readings_per_second: _Optional[int] = ..., devices: _Optional[int] = ..., metrics_per_device: _Optional[int] = ..., stored_bytes: _Optional[int] = ...) -> None: ...

class TenantRetention(_message.Message):
    __slots__ = ("raw_duration", "rollup_duration")
    RAW_DURATION_FIELD_NUMBER: _ClassVar[int]
    ROLLUP_DURATION_FIELD_NUMBER: _ClassVar[int]
    raw_duration: _duration_pb2.Duration
    rollup_duration: _duration_pb2.Duration
    def __init__(self, raw_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., rollup_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Device(_message.Message):
    __slots__ = ("name", "uid", "display_name", "type", "labels", "parent", "location", "state", "create_time", "update_time", "etag")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Device.State]
        ENROLLED: _ClassVar[Device.State]
        ACTIVE: _ClassVar[Device.State]
        BLOCKED: _ClassVar[Device.State]
        QUARANTINED: _ClassVar[Device.State]
        RETIRED: _ClassVar[Device.State]
        ERASED: _ClassVar[Device.State]
    STATE_UNSPECIFIED: Device.State
    ENROLLED: Device.State
    ACTIVE: Device.State
    BLOCKED: Device.State
    QUARANTINED: Device.State
    RETIRED: Device.State
    ERASED: Device.State
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    LOCATION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    name: str
    uid: str
    display_name: str
    type: str
    labels: _containers.ScalarMap[str, str]
    parent: str
    location: _latlng_pb2.LatLng
    state: Device.State
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    etag: str
    def __init__(self, name: _Optional[str] = ..., uid: _Optional[str] = ..., display_name: _Optional[str] = ..., type: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., parent: _Optional[str] = ..., location: _Optional[_Union[_latlng_pb2.LatLng, _Mapping]] = ..., state: _Optional[_Union[Device.State, str]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., etag: _Optional[str] = ...) -> None: ...

class Credential(_message.Message):
    __slots__ = ("name", "public_key_pem", "algorithm", "expire_time", "create_time")
    class Algorithm(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ALGORITHM_UNSPECIFIED: _ClassVar[Credential.Algorithm]
        ED25519: _ClassVar[Credential.Algorithm]
        ES256: _ClassVar[Credential.Algorithm]
    ALGORITHM_UNSPECIFIED: Credential.Algorithm
    ED25519: Credential.Algorithm
    ES256: Credential.Algorithm
    NAME_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_PEM_FIELD_NUMBER: _ClassVar[int]
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    name: str
    public_key_pem: str
    algorithm: Credential.Algorithm
    expire_time: _timestamp_pb2.Timestamp
    create_time: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., public_key_pem: _Optional[str] = ..., algorithm: _Optional[_Union[Credential.Algorithm, str]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
