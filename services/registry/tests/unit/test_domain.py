"""The rules of tenants, devices, their tree and their keys."""

from dataclasses import replace

import pytest

from tidewire_kit.errors import EtagMismatch, FailedPrecondition, InvalidArgument
from tidewire_kit.ids import TenantId, Uid, new_uid
from tidewire_registry.domain import devices, tenants
from tidewire_registry.domain.devices import Device, DeviceDraft, DeviceState, Location
from tidewire_registry.domain.hierarchy import MAX_ANCESTORS, check_no_cycle, moved_tree, resolve_drafts
from tidewire_registry.domain.tenants import Quotas, Retention, Tenant, TenantState
from tidewire_registry.domain.values import check_etag, check_labels, etag

TENANT = TenantId(new_uid())


def device(
    id_: str = "pump", *, state: DeviceState = DeviceState.ENROLLED, up: tuple[Uid, ...] = ()
) -> Device:
    made = devices.created(DeviceDraft(id_), TENANT, new_uid(), up, 1)
    return replace(made, state=state)


def tenant(state: TenantState = TenantState.ACTIVE) -> Tenant:
    return Tenant(TENANT, "acme", "", state, Quotas(), Retention(), {}, 1, 1, 1)


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ({f"k{i}": "" for i in range(65)}, "65 labels"),
        ({"Site": "x"}, "lower-case"),
        ({"": "x"}, "empty"),
        ({"site": "x" * 129}, "128"),
        ({"site": "a\nb"}, "control"),
        ({"k" * 64: "x"}, "63"),
    ],
)
def test_labels_beyond_their_limits_are_refused(labels: dict[str, str], says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        check_labels(labels, "device.labels")


def test_labels_at_their_limits_are_taken() -> None:
    check_labels({f"k{i}_.-": "é" * 128 for i in range(64)}, "device.labels")


@pytest.mark.parametrize(
    ("draft", "field"),
    [
        (DeviceDraft("d", display_name="x" * 129), "device.display_name"),
        (DeviceDraft("d", type="Big Pump"), "device.type"),
        (DeviceDraft("d", location=Location(91, 0)), "device.location.latitude"),
        (DeviceDraft("d", location=Location(0, float("nan"))), "device.location.longitude"),
        (DeviceDraft("d", parent_id="d"), "device.parent"),
        (DeviceDraft("d", labels={"A": ""}, where="requests[3].device"), "requests[3].device.labels"),
    ],
)
def test_a_bad_field_is_named(draft: DeviceDraft, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        draft.check()
    assert caught.value.field == field


@pytest.mark.parametrize("state", [DeviceState.ENROLLED, DeviceState.ACTIVE, DeviceState.QUARANTINED])
def test_a_device_in_use_can_be_blocked_and_unblocked(state: DeviceState) -> None:
    old = device(state=state)
    blocked = devices.blocked(old, 5)
    assert (blocked.state, blocked.revision, blocked.updated_us) == (DeviceState.BLOCKED, 2, 5)
    assert devices.blocked(blocked, 6) is blocked
    assert devices.unblocked(blocked, True, 7).state is DeviceState.ACTIVE
    assert devices.unblocked(blocked, False, 7).state is DeviceState.ENROLLED


@pytest.mark.parametrize("state", [DeviceState.ENROLLED, DeviceState.ACTIVE, DeviceState.RETIRED])
def test_only_a_blocked_device_can_be_unblocked(state: DeviceState) -> None:
    with pytest.raises(FailedPrecondition, match=state.name):
        devices.unblocked(device(state=state), True, 1)


@pytest.mark.parametrize("state", [DeviceState.RETIRED, DeviceState.ERASED])
def test_a_device_out_of_use_is_not_blocked_and_gets_no_credential(state: DeviceState) -> None:
    with pytest.raises(FailedPrecondition):
        devices.blocked(device(state=state), 1)
    with pytest.raises(FailedPrecondition):
        devices.given_credential(device(state=state), 1)


def test_a_first_credential_makes_a_device_active() -> None:
    activated = devices.given_credential(device(), 9)
    assert activated is not None
    assert (activated.state, activated.revision) == (DeviceState.ACTIVE, 2)
    assert devices.given_credential(device(state=DeviceState.BLOCKED), 9) is None


def test_a_tenant_is_blocked_and_unblocked() -> None:
    blocked = tenants.blocked(tenant(), 5)
    assert (blocked.state, blocked.revision) == (TenantState.BLOCKED, 2)
    assert tenants.blocked(blocked, 6) is blocked
    assert tenants.unblocked(blocked, 6).state is TenantState.ACTIVE
    with pytest.raises(FailedPrecondition):
        tenants.unblocked(tenant(), 6)


@pytest.mark.parametrize(
    ("broken", "field"),
    [
        (replace(tenant(), quotas=Quotas(devices=-1)), "tenant.quotas.devices"),
        (replace(tenant(), quotas=Quotas(metrics_per_device=1001)), "tenant.quotas.metrics_per_device"),
        (replace(tenant(), retention=Retention(raw_us=1)), "tenant.retention.raw_duration"),
        (replace(tenant(), display_name="a\tb"), "tenant.display_name"),
    ],
)
def test_a_tenants_bad_field_is_named(broken: Tenant, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        broken.check()
    assert caught.value.field == field


def test_etags_differ_by_revision_and_by_object() -> None:
    one, other = new_uid(), new_uid()
    assert len({etag(one, 1), etag(one, 2), etag(other, 1)}) == 3
    check_etag("", one, 3, "x")
    check_etag(etag(one, 3), one, 3, "x")
    with pytest.raises(EtagMismatch):
        check_etag(etag(other, 3), one, 3, "x")


def drafts(*pairs: tuple[str, str]) -> list[DeviceDraft]:
    return [
        DeviceDraft(id_, parent_id=up, where=f"requests[{i}].device") for i, (id_, up) in enumerate(pairs)
    ]


def test_parents_may_come_in_the_same_batch_in_any_order() -> None:
    site = device("site", up=(new_uid(),))
    given = drafts(("leaf", "gw"), ("gw", "site"), ("lone", ""))
    uids = [new_uid() for _ in given]
    assert resolve_drafts(given, uids, {"site": site}) == [
        (uids[1], site.uid, *site.ancestors),
        (site.uid, *site.ancestors),
        (),
    ]


@pytest.mark.parametrize(
    ("pairs", "field", "says"),
    [
        ([("a", "b"), ("b", "a")], "requests[1].device.parent", "own ancestor"),
        ([("a", "nobody")], "requests[0].device.parent", "does not exist in this tenant"),
        (
            [(f"d{i}", f"d{i + 1}" if i < 16 else "") for i in range(17)],
            "requests[0].device.parent",
            "16 levels",
        ),
    ],
)
def test_impossible_trees_are_refused(pairs: list[tuple[str, str]], field: str, says: str) -> None:
    given = drafts(*pairs)
    with pytest.raises(InvalidArgument, match=says) as caught:
        resolve_drafts(given, [new_uid() for _ in given], {})
    assert caught.value.field == field


def test_a_tree_of_16_levels_is_taken() -> None:
    given = drafts(*[(f"d{i}", f"d{i + 1}" if i < 15 else "") for i in range(16)])
    assert len(resolve_drafts(given, [new_uid() for _ in given], {})[0]) == MAX_ANCESTORS


def test_a_move_changes_all_descendants_and_keeps_what_is_between() -> None:
    old_top, new_top = new_uid(), new_uid()
    gateway = device("gw", up=(old_top,))
    child = device("child", up=(gateway.uid, old_top))
    grandchild = device("grandchild", up=(child.uid, gateway.uid, old_top))
    moved = moved_tree(gateway, (new_top,), [child, grandchild])
    assert [(d.id, d.ancestors, d.revision) for d in moved] == [
        ("child", (gateway.uid, new_top), 2),
        ("grandchild", (child.uid, gateway.uid, new_top), 2),
    ]
    with pytest.raises(FailedPrecondition, match="deep"):
        moved_tree(gateway, tuple(new_uid() for _ in range(14)), [child, grandchild])


def test_a_device_is_never_its_own_ancestor() -> None:
    gateway = device("gw")
    child = device("child", up=(gateway.uid,))
    for parent in (gateway, child):
        with pytest.raises(InvalidArgument, match="own ancestor"):
            check_no_cycle(gateway, parent)
    check_no_cycle(child, gateway)
