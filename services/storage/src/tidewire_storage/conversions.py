"""Between messages and the use cases' values; checks what can be checked without asking anybody."""

import re
from collections.abc import Sequence

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from tidewire.storage.v1 import storage_pb2 as pb
from tidewire.type.v1.columns_pb2 import SeriesColumns
from tidewire.type.v1.event_pb2 import Event as EventMessage
from tidewire.type.v1.event_pb2 import Severity as SeverityMessage
from tidewire_kit.errors import InvalidArgument
from tidewire_kit.events import Severity
from tidewire_kit.ids import check_device_name, check_metric, tenant_name, uid_hex
from tidewire_storage.application.accounts import LedgerAnswer
from tidewire_storage.application.aggregate import Aggregated, Question, Tier
from tidewire_storage.application.latest import SeriesPage
from tidewire_storage.application.names import Names
from tidewire_storage.application.read_series import SeriesPart
from tidewire_storage.domain.aggregates import Function
from tidewire_storage.ports import StoredEvent, TenantUsage
from tidewire_storage.wire import EncodedResponse, message_field, packed_doubles, packed_fixed64

MOST_DEVICES = 10_000
MOST_METRICS = 1_000
MOST_LEDGER_ENTRIES = 30_000
PURGED_TENANT = "tenants/-"

_FUNCTIONS: dict[int, Function] = {
    pb.COUNT: Function.COUNT,
    pb.MIN: Function.MIN,
    pb.MAX: Function.MAX,
    pb.AVG: Function.AVG,
    pb.SUM: Function.SUM,
    pb.FIRST: Function.FIRST,
    pb.LAST: Function.LAST,
    pb.STDDEV: Function.STDDEV,
    pb.P50: Function.P50,
    pb.P95: Function.P95,
    pb.P99: Function.P99,
}
_ENUM = {function: pb.AggregateFunction.ValueType(number) for number, function in _FUNCTIONS.items()}
TIERS = {
    Tier.RAW: pb.RAW,
    Tier.COLD: pb.COLD,
    Tier.ROLLUP_1M: pb.ROLLUP_1M,
    Tier.ROLLUP_1H: pb.ROLLUP_1H,
    Tier.ROLLUP_1D: pb.ROLLUP_1D,
}
_LABEL_KEY = re.compile(r"[a-z][a-z0-9_.-]{0,62}")
_MICROSECOND_NANOS = 1_000
_EVENT_TYPE = re.compile(r"[a-z][a-z0-9_.-]{0,62}")
_FIRST_SECONDS, _LAST_SECONDS = -62_135_596_800, 253_402_300_799


def time_us(stamp: Timestamp, field: str) -> int:
    """Microseconds since 1970; a fraction of one counts as the next, so that [start, end) stays what was asked."""
    if not _FIRST_SECONDS <= stamp.seconds <= _LAST_SECONDS or not 0 <= stamp.nanos < 1_000_000_000:
        raise InvalidArgument(field, "is not a time between the years 1 and 9999; send a valid Timestamp")
    return stamp.seconds * 1_000_000 + -(-stamp.nanos // _MICROSECOND_NANOS)


def span_us(
    request: pb.ReadSeriesRequest | pb.AggregateRequest | pb.ListEventsRequest | pb.GetLedgerRequest,
) -> tuple[int | None, int | None]:
    """(start, end) of a request; None where absent. InvalidArgument when the end is not after the start."""
    start = time_us(request.start_time, "start_time") if request.HasField("start_time") else None
    end = time_us(request.end_time, "end_time") if request.HasField("end_time") else None
    if start is not None and end is not None and end <= start:
        raise InvalidArgument("end_time", "is not after start_time; swap them or leave one out")
    return start, end


def bucket_us(duration: Duration) -> int:
    """Width of a bucket in µs; at least a second."""
    width = duration.seconds * 1_000_000 + duration.nanos // _MICROSECOND_NANOS
    if width < 1_000_000 or duration.nanos % _MICROSECOND_NANOS or duration.seconds > 315_576_000_000:
        raise InvalidArgument("bucket_duration", "must be at least 1 second, in whole microseconds")
    return width


def page_size(size: int, default: int, most: int) -> int:
    """0 means the default, more than the most counts as the most, negative is refused."""
    if size < 0:
        raise InvalidArgument("page_size", "is negative; send 0 for the default")
    return min(size or default, most)


def row_limit(rows: int) -> int:
    """`max_rows` as given; negative is refused."""
    if rows < 0:
        raise InvalidArgument("max_rows", "is negative; send 0 for all rows")
    return rows


def metric_names(names: Sequence[str], *, required: bool = False) -> list[str]:
    """Valid metric names."""
    if required and not names:
        raise InvalidArgument("metrics", "is empty; name at least one metric")
    if len(names) > MOST_METRICS:
        raise InvalidArgument("metrics", f"has {len(names)} names; ask for at most {MOST_METRICS:,} at once")
    return [check_metric(name, field=f"metrics[{number}]") for number, name in enumerate(names)]


def device_ids(names: Sequence[str]) -> list[str]:
    """Valid device ids."""
    if len(names) > MOST_DEVICES:
        why = f"has {len(names)} ids; ask for at most {MOST_DEVICES:,} at once, or select them with filter"
        raise InvalidArgument("devices", why)
    return [check_device_name(name, field=f"devices[{number}]") for number, name in enumerate(names)]


def label_key(text: str) -> str:
    """A valid label's key, or none."""
    if text and _LABEL_KEY.fullmatch(text) is None:
        why = f"{text[:80]!r} is no label's key: [a-z][a-z0-9_.-]{{0,62}}; give the key alone, such as site"
        raise InvalidArgument("group_by_label", why)
    return text


def question(request: pb.AggregateRequest) -> Question:
    """What Aggregate is asked."""
    start, end = span_us(request)
    if request.across_devices and request.group_by_label:
        raise InvalidArgument("group_by_label", "goes without across_devices; leave one of them out")
    return Question(
        metric_names(request.metrics, required=True),
        functions(request.functions),
        start,
        end,
        bucket_us(request.bucket_duration) if request.HasField("bucket_duration") else None,
        request.across_devices,
        label_key(request.group_by_label),
    )


def event_type(text: str) -> str:
    """A valid type of events, or none."""
    if text and _EVENT_TYPE.fullmatch(text) is None:
        raise InvalidArgument(
            "type", f"{text[:80]!r} is not valid; use [a-z][a-z0-9_.-]{{0,62}}, or none for all"
        )
    return text


def severity(number: int) -> int:
    """A known severity."""
    if number not in set(Severity):
        raise InvalidArgument(
            "min_severity", f"{number} is none; use TRACE, DEBUG, INFO, WARN, ERROR or FATAL"
        )
    return number


def functions(numbers: Sequence[int]) -> list[Function]:
    """Known functions, each once."""
    if not numbers:
        raise InvalidArgument("functions", "is empty; name at least one function")
    found = []
    for position, number in enumerate(numbers):
        if number not in _FUNCTIONS:
            raise InvalidArgument(
                f"functions[{position}]", f"{number} is not a function; see AggregateFunction"
            )
        if _FUNCTIONS[number] in found:
            raise InvalidArgument(f"functions[{position}]", "is asked for twice; name each function once")
        found.append(_FUNCTIONS[number])
    return found


def part_encoded(name: str, part: SeriesPart) -> EncodedResponse:
    """A part of ReadSeries, as a ReadSeriesResponse's bytes."""
    columns = [
        SeriesColumns(device=name, metrics=part.metrics).SerializeToString(),
        packed_fixed64(SeriesColumns.TIME_UNIX_US_FIELD_NUMBER, part.time_unix_us),
        packed_doubles(SeriesColumns.VALUES_FIELD_NUMBER, *part.values),
    ]
    token = pb.ReadSeriesResponse(next_page_token=part.next_page_token).SerializeToString()
    return EncodedResponse(
        message_field(pb.ReadSeriesResponse.COLUMNS_FIELD_NUMBER, b"".join(columns)) + token
    )


def page_to_series(page: SeriesPage) -> pb.ListSeriesResponse:
    """A page of ListSeries."""
    message = pb.ListSeriesResponse(next_page_token=page.next_page_token)
    message.series.extend(
        pb.Series(
            device=entry.device_id,
            metric=entry.metric,
            first_time=timestamp(entry.first_us),
            last_time=timestamp(entry.last_us),
        )
        for entry in page.entries
    )
    return message


def aggregated_to_message(answer: Aggregated, asked: Sequence[Function]) -> pb.AggregateResponse:
    """The answer of Aggregate."""
    message = pb.AggregateResponse(tier=TIERS[answer.tier])
    for series in answer.series:
        one = message.series.add(device=series.device_id, metric=series.metric, group=series.group)
        one.bucket_start_unix_us.extend(series.bucket_start_us.tolist())
        for function, column in zip(asked, series.columns, strict=True):
            one.columns.add(function=_ENUM[function], values=column.tolist())
    return message


def ledger_to_message(answer: LedgerAnswer, names: Names) -> pb.GetLedgerResponse:
    """The ledger. InvalidArgument when it would not fit in a message."""
    if len(answer.account.lines) > MOST_LEDGER_ENTRIES:
        raise InvalidArgument(
            "start_time",
            f"the answer would have more than {MOST_LEDGER_ENTRIES:,} entries; ask for less time, or for one tenant",
            reason="ANSWER_TOO_LARGE",
        )
    message = pb.GetLedgerResponse(
        difference_readings=answer.account.difference,
        in_flight_readings=answer.in_flight_readings,
        lag_records=answer.lag_records,
    )
    for line in answer.account.lines:
        tenant, hour_us = line.key
        name = names.tenant_id(tenant)
        message.entries.add(
            tenant=PURGED_TENANT if name is None else tenant_name(name),
            hour_time=timestamp(hour_us),
            accepted_readings=line.accepted,
            stored_readings=line.stored,
            duplicate_readings=line.duplicate,
            dead_lettered_readings=line.dead_lettered,
            present_readings=line.present,
            purged_readings=line.purged,
        )
    return message


def event_to_message(device_id: str, stored: StoredEvent) -> EventMessage:
    """An event of ListEvents."""
    event = stored.event
    return EventMessage(
        event_id=event.event_id,
        device=device_id,
        type=event.type,
        time=timestamp(event.time_us),
        severity=SeverityMessage.ValueType(event.severity),
        content_type=event.content_type,
        body=event.body,
        receive_time=timestamp(stored.received_us),
    )


def usage_to_message(usage: TenantUsage) -> pb.StorageUsage:
    """What a tenant keeps."""
    return pb.StorageUsage(
        tenant_uid=uid_hex(usage.tenant),
        accepted_readings=usage.accepted_readings,
        stored_readings=usage.stored_readings,
        stored_bytes=usage.stored_bytes,
    )


def timestamp(at_us: int) -> Timestamp:
    """A time of ours as a message."""
    stamp = Timestamp()
    stamp.FromMicroseconds(at_us)
    return stamp
