import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from tidewire.registry.v1 import resources_pb2 as _resources_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RegistryChange(_message.Message):
    __slots__ = ("revision", "deleted", "publish_time", "tenant", "device", "credential", "signing_key", "heartbeat")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    PUBLISH_TIME_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    CREDENTIAL_FIELD_NUMBER: _ClassVar[int]
    SIGNING_KEY_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    revision: int
    deleted: bool
    publish_time: _timestamp_pb2.Timestamp
    tenant: _resources_pb2.Tenant
    device: DeviceState
    credential: CredentialState
    signing_key: SigningKey
    heartbeat: RegistryHeartbeat
    def __init__(self, revision: _Optional[int] = ..., deleted: _Optional[bool] = ..., publish_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., tenant: _Optional[_Union[_resources_pb2.Tenant, _Mapping]] = ..., device: _Optional[_Union[DeviceState, _Mapping]] = ..., credential: _Optional[_Union[CredentialState, _Mapping]] = ..., signing_key: _Optional[_Union[SigningKey, _Mapping]] = ..., heartbeat: _Optional[_Union[RegistryHeartbeat, _Mapping]] = ...) -> None: ...

class DeviceState(_message.Message):
    __slots__ = ("tenant_uid", "device_uid", "ancestor_uids", "device")
    TENANT_UID_FIELD_NUMBER: _ClassVar[int]
    DEVICE_UID_FIELD_NUMBER: _ClassVar[int]
    ANCESTOR_UIDS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    tenant_uid: bytes
    device_uid: bytes
    ancestor_uids: _containers.RepeatedScalarFieldContainer[bytes]
    device: _resources_pb2.Device
    def __init__(self, tenant_uid: _Optional[bytes] = ..., device_uid: _Optional[bytes] = ..., ancestor_uids: _Optional[_Iterable[bytes]] = ..., device: _Optional[_Union[_resources_pb2.Device, _Mapping]] = ...) -> None: ...

class CredentialState(_message.Message):
    __slots__ = ("tenant_uid", "device_uid", "credential_uid", "credential")
    TENANT_UID_FIELD_NUMBER: _ClassVar[int]
    DEVICE_UID_FIELD_NUMBER: _ClassVar[int]
    CREDENTIAL_UID_FIELD_NUMBER: _ClassVar[int]
    CREDENTIAL_FIELD_NUMBER: _ClassVar[int]
    tenant_uid: bytes
    device_uid: bytes
    credential_uid: bytes
    credential: _resources_pb2.Credential
    def __init__(self, tenant_uid: _Optional[bytes] = ..., device_uid: _Optional[bytes] = ..., credential_uid: _Optional[bytes] = ..., credential: _Optional[_Union[_resources_pb2.Credential, _Mapping]] = ...) -> None: ...

class SigningKey(_message.Message):
    __slots__ = ("key_id", "public_key_pem", "algorithm")
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_PEM_FIELD_NUMBER: _ClassVar[int]
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    key_id: str
    public_key_pem: str
    algorithm: str
    def __init__(self, key_id: _Optional[str] = ..., public_key_pem: _Optional[str] = ..., algorithm: _Optional[str] = ...) -> None: ...

class RegistryHeartbeat(_message.Message):
    __slots__ = ("write_time",)
    WRITE_TIME_FIELD_NUMBER: _ClassVar[int]
    write_time: _timestamp_pb2.Timestamp
    def __init__(self, write_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
