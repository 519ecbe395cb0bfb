"""A set of conditions decides the same as each of them alone."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tidewire_kit.cel import Frame, compile_expression, parse
from tidewire_kit.cel.program_set import BY_ROW, ProgramSet

limits = st.sampled_from(["-1.0", "0.0", "0", "1.5", "2", "1e3"])
signs = st.sampled_from(["<", "<=", ">", ">=", "=="])
thresholds = st.one_of(
    st.builds("{} {} {}".format, st.sampled_from("tuv"), signs, limits),
    st.builds("{} {} {}".format, limits, signs, st.sampled_from("tuv")),
    st.just("t > u || v < 1.0"),
)
values = st.lists(st.sampled_from([-1.0, 0.0, 1.0, 1.5, 2.0, math.nan]), min_size=4, max_size=4)


@settings(max_examples=100, deadline=None)
@given(st.lists(thresholds, max_size=12), values, values)
def test_a_set_decides_as_each_program_alone(texts: list[str], t: list[float], u: list[float]) -> None:
    programs = [compile_expression(parse(text)) for text in texts]
    together = ProgramSet(programs)

    def frame() -> Frame:
        return Frame(4, {"t": np.array(t), "u": np.array(u)})

    verdicts = together.verdicts(frame())
    left_out = set(range(len(programs)))
    for index, truth in together.evaluate(frame()):
        left_out.remove(index)
        alone = programs[index].evaluate(frame())
        assert truth.truth.tolist() == alone.truth.tolist()
        assert truth.known.tolist() == alone.known.tolist()
    for index, program in enumerate(programs):
        alone = program.evaluate(frame())
        if index in left_out:
            assert not alone.truth.any()
        if verdicts[index] != BY_ROW:
            assert set(alone.truth[alone.known].tolist()) <= {bool(verdicts[index])}
