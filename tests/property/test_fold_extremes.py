"""No tick, whatever its numbers, crashes, hangs or is lost; and no grouping of ticks changes what comes of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from fuzz_fold import EDGES, fuzz_fold
from kit import T0, Folding, settings
from tickcast.errors import Reason

SECOND = 10**9
times = st.one_of(
    st.sampled_from([int(edge) for edge in EDGES]), st.integers(-(1 << 63), (1 << 63) - 1),
    st.integers(T0, T0 + 9 * SECOND), st.sampled_from([T0 + 3600 * SECOND, T0 + 10**6 * SECOND]),
)  # fmt: skip
numbers = st.one_of(st.floats(), st.sampled_from([1e308, 5e-324, 1e150, -0.0]), st.just(1.0))


@pytest.mark.slow
@given(
    ticks=st.lists(st.tuples(st.sampled_from("AB"), times, numbers, numbers), max_size=40),
    stamp=times,
    sequence=times,
    lateness=st.sampled_from([0, 2500]),
    kind=st.sampled_from(["time", "tick", "volume"]),
)
@hypothesis_settings(max_examples=60, deadline=None)
def test_any_tick_is_accepted_late_held_or_refused_and_nothing_else(ticks, stamp, sequence, lateness, kind) -> None:  # type: ignore[no-untyped-def]
    s = settings(bars__lateness_ms=lateness, bars__kind=kind, symbols__limit=4)
    whole = Folding(s).feed(ticks, stamp_ns=stamp, sequence=sequence)
    single = Folding(s).feed(ticks, chunk=1, stamp_ns=stamp, sequence=sequence)
    np.testing.assert_array_equal(whole.builder.counts(), single.builder.counts())
    assert sorted(whole.refused) == sorted(single.refused)
    quiet = [Reason.ACCEPTED, Reason.LATE, Reason.HELD]
    assert len(whole.refused) + whole.builder.counts()[quiet].sum() == len(ticks)


def test_hostile_ticks_go_through_the_whole_core_and_none_is_lost() -> None:
    assert fuzz_fold(np.random.default_rng(5), 4000) >= 4000
