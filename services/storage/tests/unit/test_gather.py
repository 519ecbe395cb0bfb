import pytest

from tidewire_kit.ids import TenantId, new_uid
from tidewire_kit.owner import NO_ENTRIES, AdmittedRecord, LedgerCounts, PieceOfTable, hour_of
from tidewire_storage.application.encoding import Buried, encode_flush
from tidewire_storage.application.gather import HOUR_US, EpochLimits, Gather
from tidewire_storage.domain.blocks import TopicPartitionKey
from tidewire_storage.ports import StoredProgress
from tidewire_testkit.telemetry import make_table

TENANT, OTHER = TenantId(new_uid()), TenantId(new_uid())
DEVICE, SECOND_DEVICE = new_uid(), new_uid()
PARTITION = ("telemetry", 2)
PLACE = TopicPartitionKey(new_uid(), 2)
NEW = StoredProgress(None, 0, None, NO_ENTRIES)
NOON = 1_700_000_000_000_000 // HOUR_US * HOUR_US


def record(offset: int, at_us: int = NOON, tenant: TenantId = TENANT, device: bytes = DEVICE, rows: int = 1):
    table = make_table(tenant, ["m"], [(device, n, [1.0]) for n in range(rows)])
    ledger = [((tenant, hour_of(at_us)), LedgerCounts(accepted=rows))]
    return AdmittedRecord(PARTITION, offset, at_us, [PieceOfTable(table, 0)], ledger, NO_ENTRIES)


def gather(limits: EpochLimits | None = None) -> Gather:
    new = Gather(limits or EpochLimits())
    new.begin(PARTITION, PLACE, NEW)
    return new


def test_an_epoch_ends_with_the_hour_of_log_time() -> None:
    gathering = gather()
    for offset, at in ((0, NOON), (1, NOON + HOUR_US - 1), (2, NOON + HOUR_US), (3, NOON + 3 * HOUR_US)):
        gathering.take(record(offset, at))
    (sealed,) = gathering.seal()
    assert [(run.epoch, run.first_offset, run.end_offset, run.cut) for run in sealed.runs] == [
        (0, 0, 2, True),
        (1, 2, 3, True),
        (2, 3, 4, False),
    ]
    encoded = encode_flush([sealed], Buried())
    assert [block.facts.hour_us for block in encoded.blocks] == [NOON, NOON + HOUR_US, NOON + 3 * HOUR_US]
    gathering.take(record(4, NOON + 4 * HOUR_US))
    (later,) = gathering.seal()
    assert [(run.epoch, run.first_offset, run.end_offset, run.cut) for run in later.runs] == [
        (2, 4, 4, True),
        (3, 4, 5, False),
    ], "the cut of an epoch whose rows are stored already"
    assert later.expected_offset == 4


def test_an_epoch_ends_with_its_bytes_also_over_several_flushes() -> None:
    gathering = gather(EpochLimits(gathered_bytes=100))
    epochs = []
    for offset in range(12):
        gathering.take(record(offset))
        if offset % 2:
            (sealed,) = gathering.seal()
            epochs += [(run.epoch, run.end_offset) for run in sealed.runs if run.cut]
    assert epochs == [(0, 5), (1, 10)]


def test_it_goes_on_in_the_stored_epoch() -> None:
    gathering = gather()
    gathering.take(record(0))
    (sealed,) = gathering.seal()
    again = Gather(EpochLimits())
    again.begin(PARTITION, PLACE, StoredProgress(1, 1, None, NO_ENTRIES))
    again.take(record(0))
    assert again.seal() == [], "what is stored is not taken again"
    assert sealed.next_offset == 1


def test_forgetting_takes_the_counts_back() -> None:
    gathering = gather()
    gathering.take(record(0, rows=7))
    assert (gathering.cells, gathering.readings, gathering.records) == (7, 7, 1)
    gathering.forget([PARTITION])
    assert (gathering.cells, gathering.readings, gathering.records) == (0, 0, 0)
    with pytest.raises(KeyError):
        gathering.take(record(1))


def test_a_tenant_has_a_block_of_its_own_and_the_deleted_have_none() -> None:
    gathering = gather()
    gathering.take(record(0, rows=2))
    gathering.take(record(1, rows=3, device=SECOND_DEVICE))
    gathering.take(record(2, rows=4, tenant=OTHER))
    sealed = gathering.seal()
    encoded = encode_flush(sealed, Buried())
    assert {block.key.tenant: block.facts.readings for block in encoded.blocks} == {TENANT: 5, OTHER: 4}
    buried = Buried(frozenset({OTHER}), {TENANT: frozenset({DEVICE})})
    encoded = encode_flush(sealed, buried)
    assert {block.key.tenant: block.facts.readings for block in encoded.blocks} == {TENANT: 3}
    counts = encoded.ledger[TENANT, NOON]
    assert (counts.accepted, counts.stored, counts.purged) == (5, 5, 2)
    counts = encoded.ledger[OTHER, NOON]
    assert (counts.accepted, counts.stored, counts.purged) == (4, 4, 4)
    assert [(place, states.tenant) for place, states in encoded.states] == [(PLACE, TENANT)]
    assert encoded.partitions[0].ledger == encoded.ledger
