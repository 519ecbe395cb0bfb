"""GetLatest and ListSeries: what is known of each (device, metric) without opening a block, by device and metric."""

from collections.abc import Sequence
from dataclasses import dataclass

from tidewire_kit.ids import TenantId
from tidewire_storage.application import page_token
from tidewire_storage.application.names import Names
from tidewire_storage.domain.series import NEVER
from tidewire_storage.ports import BlockReader

_DEVICES_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class SeriesEntry:
    """One metric of one device."""

    device_id: str
    metric: str
    first_us: int
    last_us: int
    value: float
    """The newest reading."""


@dataclass(frozen=True, slots=True)
class SeriesPage:
    """Entries by device and metric."""

    entries: list[SeriesEntry]
    next_page_token: str


class SeriesDirectory:
    """The use case behind both."""

    def __init__(self, store: BlockReader, names: Names) -> None:
        self._store = store
        self._names = names

    async def page(
        self, tenant: TenantId, device_ids: Sequence[str], metrics: Sequence[str], size: int, token: str
    ) -> SeriesPage:
        """At most `size` entries. `device_ids` empty: all devices with readings; `metrics` empty: all.

        NotFound for an unknown device, InvalidArgument for a token of another question.
        """
        wanted = sorted(set(device_ids))
        chosen = frozenset(metrics)
        question = (tenant, tuple(wanted), tuple(sorted(chosen)))
        after_device, _, after_metric = page_token.read(token, question).partition(" ")
        uid_of = {device_id: self._names.device(tenant, device_id)[0] for device_id in wanted}
        if wanted:
            wanted = [device_id for device_id in wanted if device_id >= after_device]
        else:
            wanted = self._names.after(tenant, after_device)
        entries: list[SeriesEntry] = []
        for first in range(0, len(wanted), _DEVICES_AT_ONCE):
            some = wanted[first : first + _DEVICES_AT_ONCE]
            known = uid_of or self._uids(tenant, some)
            found = await self._states(tenant, [known[device_id] for device_id in some if device_id in known])
            for device_id in some:
                states = found.get(known.get(device_id, b""), {})
                for metric in sorted(states):
                    if chosen and metric not in chosen:
                        continue
                    if device_id == after_device and metric <= after_metric:
                        continue
                    if len(entries) == size:
                        last = entries[-1]
                        return SeriesPage(
                            entries, page_token.make(question, f"{last.device_id} {last.metric}")
                        )
                    first_us, last_us, value, _ = states[metric]
                    entries.append(SeriesEntry(device_id, metric, first_us, last_us, value))
        return SeriesPage(entries, "")

    def _uids(self, tenant: TenantId, device_ids: Sequence[str]) -> dict[str, bytes]:
        devices = self._names.tenant(tenant).devices
        slots = [(device_id, devices.slot_of.get(device_id)) for device_id in device_ids]
        return {device_id: devices.uids[slot].tobytes() for device_id, slot in slots if slot is not None}

    async def _states(
        self, tenant: TenantId, uids: Sequence[bytes]
    ) -> dict[bytes, dict[str, tuple[int, int, float, int]]]:
        """uid → metric → (first, last, value, arrival), over all metric sets."""
        found: dict[bytes, dict[str, tuple[int, int, float, int]]] = {}
        for states in await self._store.series(tenant, uids):
            first, last = states.first_us.T.tolist(), states.last_us.T.tolist()
            value, arrival = states.value.T.tolist(), states.arrival.T.tolist()
            for number, uid in enumerate(states.device_uids):
                of_device = found.setdefault(uid.tobytes(), {})
                for metric, facts in zip(
                    states.metrics,
                    zip(first[number], last[number], value[number], arrival[number], strict=True),
                    strict=True,
                ):
                    if facts[1] == NEVER:
                        continue
                    held = of_device.get(metric)
                    if held is None:
                        of_device[metric] = facts
                        continue
                    newer = facts if (facts[1], facts[3]) > (held[1], held[3]) else held
                    of_device[metric] = (min(held[0], facts[0]), *newer[1:])
        return found
