"""The generated test of access tables finds what it is for."""

import pytest

from tidewire.registry.v1 import registry_pb2
from tidewire_kit.identity import Role
from tidewire_testkit.access_table import walk_access_table
from tidewire_testkit.toy_service import ACCESS, DESCRIPTOR

REGISTRY = registry_pb2.DESCRIPTOR.services_by_name["RegistryService"]


async def test_a_table_is_obeyed() -> None:
    await walk_access_table(DESCRIPTOR, ACCESS)


async def test_an_empty_entry_is_for_nobody() -> None:
    await walk_access_table(REGISTRY, {method.name: frozenset() for method in REGISTRY.methods})


async def test_every_role_can_be_let_in() -> None:
    await walk_access_table(DESCRIPTOR, {name: frozenset(Role) for name in ACCESS})


async def test_a_missing_entry_is_found() -> None:
    with pytest.raises(TypeError, match="StreamTelemetry"):
        await walk_access_table(DESCRIPTOR, {"PublishTelemetry": frozenset()})
