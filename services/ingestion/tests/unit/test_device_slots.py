"""What is remembered of lists of devices is bounded, however long and however different the lists are."""

from typing import Any

from tidewire_ingestion.application import tenants
from tidewire_ingestion.application.tenants import DeviceSlots


def test_remembered_lists_are_bounded_in_names(bench: Any, monkeypatch: Any) -> None:
    for number in range(40):
        bench.world.add_device(bench.tenant, f"d{number}")
    monkeypatch.setattr(tenants, "_MAX_NAMES", 100, raising=False)
    slots = DeviceSlots(bench.world.directory.tenant(bench.tenant.uid))
    lists = [[f"d{number}" for number in range(20 + extra)] for extra in range(20)]
    for names in lists:
        found = slots.find(names, 1)
        assert found is not None
        assert found.tolist() == list(range(len(names)))
    held = [names for names, _ in slots._known.values()]
    assert sum(map(len, held)) <= 100
    assert held[-1] is lists[-1], "the newest are kept"
    assert slots.find(lists[-1], 1) is slots.find(lists[-1], 1)
    assert slots.find([f"d{number % 40}" for number in range(101)], 1) is not None
