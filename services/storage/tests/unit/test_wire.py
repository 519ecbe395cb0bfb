"""Packed columns are those of a message, whatever the numbers."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tidewire.storage.v1 import storage_pb2 as pb
from tidewire_storage.wire import packed_doubles, packed_fixed64, packed_varints

NUMBER = {field.name: field.number for field in pb.ReportResponse.DESCRIPTOR.fields}


@settings(deadline=None)
@given(
    st.lists(st.integers(0, (1 << 32) - 1) | st.integers(0, 200), max_size=200),
    st.lists(st.integers(0, (1 << 63) - 1) | st.integers(0, 200), max_size=200),
    st.lists(st.integers(-(1 << 63), (1 << 63) - 1), max_size=200),
    st.lists(st.floats(allow_nan=False), max_size=200),
)
def test_generated_code_reads_the_same(
    small: list[int], whole: list[int], fixed: list[int], real: list[float]
) -> None:
    data = b"".join(
        [
            packed_varints(NUMBER["subject_index"], np.array(small, np.int64)),
            packed_varints(NUMBER["readings"], np.array(whole, np.int64)),
            packed_fixed64(NUMBER["first_time_unix_us"], np.array(fixed, np.int64)),
            packed_doubles(NUMBER["avg"], np.array(real)),
        ]
    )
    assert pb.ReportResponse.FromString(data) == pb.ReportResponse(
        subject_index=small, readings=whole, first_time_unix_us=fixed, avg=real
    )
