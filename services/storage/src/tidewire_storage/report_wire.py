"""Between the messages of Report and the use case's values."""

from datetime import date

import numpy as np
from google.type.date_pb2 import Date

from tidewire.storage.v1 import storage_pb2 as pb
from tidewire_kit.errors import InvalidArgument
from tidewire_kit.ids import check_label
from tidewire_storage import conversions as convert
from tidewire_storage.application.report import Asked, ReportPart
from tidewire_storage.domain.aggregates import Function
from tidewire_storage.domain.periods import Granularity, Periods
from tidewire_storage.wire import packed_doubles, packed_fixed64, packed_varints

MOST_DAYS = 366
_EPOCH = date(1970, 1, 1)
_FIELD = {field.name: field.number for field in pb.ReportResponse.DESCRIPTOR.fields}
_GRANULARITY = {
    pb.REPORT_GRANULARITY_UNSPECIFIED: Granularity.MONTH,
    pb.REPORT_GRANULARITY_MONTH: Granularity.MONTH,
    pb.REPORT_GRANULARITY_DAY: Granularity.DAY,
}


def report_asked(request: pb.ReportRequest) -> Asked:
    """What a request asks for, checked as far as that goes without asking anybody."""
    if request.granularity not in _GRANULARITY:
        raise InvalidArgument("granularity", f"{request.granularity} is none; see ReportGranularity")
    if request.group_by_label:
        check_label(request.group_by_label, "", field="group_by_label")
    first, end = _days(request)
    return Asked(
        Periods((first - _EPOCH).days, (end - _EPOCH).days, _GRANULARITY[request.granularity]),
        convert.device_ids(request.devices),
        request.filter,
        convert.metric_names(request.metrics),
        request.group_by_label,
    )


def _days(request: pb.ReportRequest) -> tuple[date, date]:
    if request.HasField("month"):
        if request.HasField("start_date") or request.HasField("end_date"):
            raise InvalidArgument("month", "goes without start_date and end_date; leave one of them out")
        if request.month.day:
            raise InvalidArgument("month", "has a day; send day 0 for the whole month")
        first = _date(request.month, "month")
        end = (first.year + first.month // 12, first.month % 12 + 1, 1)
        if end[0] > 9999:
            raise InvalidArgument("month", "is the last there is; ask for an earlier one")
        return first, date(*end)
    if not request.HasField("start_date") or not request.HasField("end_date"):
        field = "end_date" if request.HasField("start_date") else "start_date"
        raise InvalidArgument(field, "is missing; send month, or start_date and end_date")
    first, last = _date(request.start_date, "start_date"), _date(request.end_date, "end_date")
    if last <= first:
        raise InvalidArgument("end_date", "is not after start_date; it is the first day that is left out")
    if (last - first).days > MOST_DAYS:
        raise InvalidArgument(
            "end_date",
            f"is {(last - first).days:,} days after start_date; ask for at most {MOST_DAYS} at once",
        )
    return first, last


def _date(message: Date, field: str) -> date:
    try:
        return date(message.year, message.month, message.day or 1)
    except (ValueError, OverflowError):
        raise InvalidArgument(
            field,
            f"{message.year}-{message.month}-{message.day} is no date; send year 1 to 9999, month 1 to 12, and a day "
            "of that month, or 0",
        ) from None


def report_part_encoded(part: ReportPart) -> bytes:
    """A part as a ReportResponse's bytes."""
    partials, tallies = part.tallies.partials, part.tallies
    texts = pb.ReportResponse(
        subjects=part.subjects, metrics=part.metrics, progress=part.progress, tier=convert.TIERS[part.tier]
    )
    columns = [
        packed_varints(_FIELD["subject_index"], part.subject),
        packed_varints(_FIELD["metric_index"], part.metric),
        packed_varints(_FIELD["readings"], partials.count),
        packed_varints(_FIELD["devices"], part.members),
        packed_varints(_FIELD["active_devices"], tallies.devices),
        packed_varints(_FIELD["active_days"], tallies.active_days),
        packed_fixed64(_FIELD["period_start_unix_us"], partials.bucket),
        packed_fixed64(_FIELD["first_time_unix_us"], partials.first_us),
        packed_fixed64(_FIELD["last_time_unix_us"], partials.last_us),
        packed_doubles(_FIELD["min"], partials.least),
        packed_doubles(_FIELD["max"], partials.greatest),
        packed_doubles(_FIELD["avg"], partials.column(Function.AVG)),
        packed_doubles(_FIELD["sum"], partials.total),
        packed_doubles(_FIELD["stddev"], partials.column(Function.STDDEV)),
        packed_doubles(_FIELD["first"], partials.first),
        packed_doubles(_FIELD["last"], partials.last),
        packed_doubles(_FIELD["coverage"], part.coverage),
        packed_doubles(_FIELD["estimated_bytes"], partials.count * np.float64(part.bytes_per_reading)),
    ]
    return b"".join([texts.SerializeToString(), *columns])
