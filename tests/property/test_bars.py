"""The folding kernel against a plain Python oracle, whatever the chunks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import plain
from kit import T0, Folding, Tick, settings
from tickcast.engine.core.bars import fold
from tickcast.errors import Reason

SECOND = 10**9
MS = 10**6
ASTRAY_MS = 9_000_000  # a tick that alone is so far ahead: the market does not follow it
steps = st.one_of(
    st.integers(-1500, 3000), st.integers(-5, 5), st.sampled_from([0, 1000, 20_000, 130_000, 4_000_000, ASTRAY_MS])
)
tapes = st.lists(
    st.tuples(st.sampled_from("ABC"), steps, st.integers(1, 50), st.integers(0, 4)), min_size=1, max_size=120
)


def ticks_of(tape: list[tuple[str, int, int, int]]) -> list[Tick]:
    now, ticks = T0, []
    for symbol, step_ms, price, size in tape:
        ticks.append((symbol, now + step_ms * MS, float(price), float(size)))
        now += max(step_ms, 0) * MS * (step_ms != ASTRAY_MS)
    return ticks


def as_rows(bars: list[plain.Bar]) -> list[tuple[object, ...]]:
    return [(b.symbol, b.as_of, b.tie, b.open, b.high, b.low, b.close, b.volume, b.ticks, b.mask, b.gap) for b in bars]


def rows_of(folding: Folding) -> list[tuple[object, ...]]:
    if not folding.closed:
        return []
    b, names = folding.bars, folding.symbols.names()
    columns = (b.as_of, b.tie, b.open, b.high, b.low, b.close, b.volume, b.ticks, b.mask, b.gap)
    return [(names[s], *(c[i].item() for c in columns)) for i, s in enumerate(b.symbol)]


CASES = [
    ({"bars__every_ms": 1000}, {"every": SECOND}),
    ({"bars__every_ms": 1000, "bars__lateness_ms": 1700}, {"every": SECOND, "lateness": 1700 * MS}),
    ({"bars__every_ms": 700, "bars__on_gap": "join"}, {"every": 700 * MS, "on_gap": "join"}),
    ({"bars__every_ms": 1000, "bars__on_gap": "cold"}, {"every": SECOND, "on_gap": "cold"}),
    ({"bars__kind": "tick", "bars__every_ticks": 3}, {"kind": "tick", "every": 3}),
    ({"bars__kind": "tick", "bars__lateness_ms": 500}, {"kind": "tick", "every": 1, "lateness": 500 * MS}),
    ({"bars__kind": "volume", "bars__every_size": 5.0}, {"kind": "volume", "every": 5.0}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("ours", "theirs"), CASES)
@given(tape=tapes, chunk=st.sampled_from([1, 3, 7, 1000]))
@hypothesis_settings(max_examples=60, deadline=None)
def test_fold_equals_the_plain_oracle_for_any_tape_and_chunk(
    ours: dict[str, object], theirs: dict[str, object], tape: list[tuple[str, int, int, int]], chunk: int
) -> None:
    assert fold.py_func.__name__ == "fold"  # the kernel under test, called through the Folder
    ticks = ticks_of(tape)
    oracle = plain.PlainBars(longest_fill=108, **theirs)
    for tick in ticks:
        oracle.tick(*tick)
    folding = Folding(settings(**ours)).feed(ticks, chunk=chunk)
    assert rows_of(folding) == as_rows(oracle.bars)
    outcomes = list(oracle.outcomes.values())
    for reason, word in (
        (Reason.ACCEPTED, plain.ACCEPTED),
        (Reason.LATE, plain.LATE),
        (Reason.HELD, plain.HELD),
        (Reason.JUMP, plain.JUMP),
    ):
        assert folding.count(reason) == outcomes.count(word)
    assert folding.builder.counts().sum() == len(ticks)
    assert folding.refused == [
        (i, Reason.JUMP) for i, outcome in sorted(oracle.outcomes.items()) if outcome == plain.JUMP
    ]


@pytest.mark.slow
@given(tape=tapes)
@hypothesis_settings(max_examples=40, deadline=None)
def test_the_ring_holds_the_last_bars_of_every_symbol(tape: list[tuple[str, int, int, int]]) -> None:
    folding = Folding(settings(bars__every_ms=1000)).feed(ticks_of(tape), chunk=11)
    if not folding.closed:
        return
    closed, ring = folding.bars, folding.builder.bars
    for code in np.unique(closed.symbol):
        rows = np.flatnonzero(closed.symbol == code)[-ring.wrap :]
        at = ring.start[code] + (closed.ordinal[rows] & ring.wrap)
        np.testing.assert_array_equal(ring.close[at], closed.close[rows])
        np.testing.assert_array_equal(ring.as_of[at], closed.as_of[rows])
