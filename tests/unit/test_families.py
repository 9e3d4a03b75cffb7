"""What closed bars count for, by a plain look at every row; and blocks that fill from mark to mark."""

from collections import defaultdict

import numpy as np
import pytest

from tickcast.engine.core import detectors as d
from tickcast.engine.core import families as f
from tickcast.engine.core.channels import BINS, MISSING, ODD, Measured
from tickcast.engine.core.scoring import LabelRows, SettledRows

MODELS, GROUPS, CHANNELS, LAST_VALUE, PARTITIONS, SYMBOLS, ROWS = 3, 2, 2, 1, 2, 5, 3000
LINEUP = f.Lineup(MODELS, GROUPS, CHANNELS, LAST_VALUE, 0.99)
CELLS = MODELS * GROUPS
GROUP = np.array([0, 1, 0, 1, 1], np.int32)
NEVER = 1e300


class Stream:
    """By definition: sums of a block, and evidence."""

    def __init__(self, block: float, offset: float, slope: float) -> None:
        self.block, self.offset, self.slope = block, offset, slope
        self.evidence = np.zeros(len(d.STAKES))
        self.labels: list[tuple[float, float, float]] = []
        self.marked = self.bars = 0

    def mark(self, *, per_bar: bool) -> None:
        came, self.marked = len(self.labels) - self.marked, len(self.labels)
        self.bars += bool(came) if per_bar else came
        if came and self.bars >= self.block:
            hits, weight, expected = np.array(self.labels).T
            if weight.sum() > 0:
                y = np.clip(self.offset + self.slope * hits.sum() / weight.sum(), 0, 1)
                self.evidence = (self.evidence + self.bars) * (1 + d.STAKES * (y / (1.2 * expected.mean()) - 1))
            self.labels, self.marked, self.bars = [], 0, 0


def market(seed: int) -> tuple[SettledRows, LabelRows, Measured]:
    """Rows of two partitions, whose symbols live in one of them each, with marks of some rows."""
    rng = np.random.default_rng(seed)
    symbol = rng.integers(0, SYMBOLS, ROWS).astype(np.int32)
    partition = (symbol % PARTITIONS).astype(np.int32)
    mark = np.zeros(ROWS, np.int64)
    for p in range(PARTITIONS):
        own = partition == p
        mark[own] = np.cumsum(rng.random(own.sum()) < 0.3) + 1
    nothing = np.zeros(ROWS)
    rows = SettledRows(
        symbol=symbol, ordinal=np.arange(ROWS), close=nothing, as_of=np.arange(ROWS) * 10, mask=np.ones(ROWS, np.uint8),
        void_before=np.zeros(ROWS, np.int64), mark=mark, partition=partition, question=np.full(ROWS, -1),
    )  # fmt: skip
    cell = partition * CELLS + rng.integers(0, MODELS, ROWS) * GROUPS + GROUP[symbol]
    cell[rng.random(ROWS) < 0.2] = -1
    labels = LabelRows(
        cell.astype(np.int32), (rng.random(ROWS) < 0.2).astype(np.uint8), rng.random(ROWS), rng.random(ROWS)
    )
    place = rng.integers(0, BINS, (ROWS, CHANNELS)) + ODD * (rng.random((ROWS, CHANNELS)) < 0.15)
    place[rng.random((ROWS, CHANNELS)) < 0.05] = MISSING
    far = np.where((place == MISSING).any(axis=1), MISSING, rng.random(ROWS) < 0.1)
    return rows, labels, Measured(place.astype(np.uint8), far.astype(np.uint8), np.zeros(ROWS, np.uint8))


def streams() -> d.Streams:
    begin = f.families_of(LINEUP)
    count = int(begin[-1])
    offset, slope = np.zeros(count), np.ones(count)
    offset[CELLS : 2 * CELLS], slope[CELLS : 2 * CELLS] = -0.5, 1.0
    return d.Streams(begin, np.resize([20.0, 5.0, 11.0], count), offset, slope)


def expected() -> f.Expected:
    rng = np.random.default_rng(1)
    return f.Expected(
        missed=0.1, loss=0.5 + rng.random((MODELS, SYMBOLS)), known=np.array([0, 1, 2, 3, 3], np.int32),
        odd=0.05 + 0.2 * rng.random((4, CHANNELS)), far=0.05 + 0.1 * rng.random(4),
    )  # fmt: skip


@pytest.mark.parametrize("per_bar", [True, False])
def test_every_label_and_value_counts_where_it_belongs(per_bar: bool) -> None:
    rows, labels, brought = market(seed=2)
    of, means = streams(), expected()
    seen = f.Seen.nothing(PARTITIONS, of, LINEUP)
    limits = d.DetectorLimits(NEVER, 1.0, 1.0, 1.2, per_bar)
    newest = np.array([rows.mark[rows.partition == p].max() + 1 for p in range(PARTITIONS)])
    end = f.follow(
        seen.detectors, of, limits, seen.recent, seen.place, LINEUP, means, GROUP, rows, labels, brought, newest, 0
    )
    assert end == -1
    plain = by_definition(rows, labels, brought, of, means, per_bar=per_bar)
    count = len(of.block)
    for p in range(PARTITIONS):
        for s in range(count):
            np.testing.assert_allclose(
                seen.detectors.evidence[p * count + s], plain[p, s].evidence, rtol=1e-9, err_msg=f"{p} {s}"
            )
    assert seen.place["mark"].tolist() == newest.tolist()
    assert (seen.detectors.stream["blocks"] > 0).sum() == PARTITIONS * count - idle()
    now = sum(seen.recent.bins.sum(axis=1))
    assert 0 < now < np.count_nonzero(brought.place != MISSING)


def idle() -> int:
    """Streams of groups that have no symbol in a partition, and of last value, which has no skill to lose."""
    there = {(s % PARTITIONS, int(GROUP[s])) for s in range(SYMBOLS)}
    missing = PARTITIONS * GROUPS - len(there)
    return missing * (2 * MODELS + CHANNELS + 1) + len(there)


def by_definition(
    rows: SettledRows, labels: LabelRows, brought: Measured, of: d.Streams, means: f.Expected, *, per_bar: bool
) -> dict[tuple[int, int], Stream]:
    plain = {(p, s): Stream(of.block[s], of.offset[s], of.slope[s])
             for p in range(PARTITIONS) for s in range(len(of.block))}  # fmt: skip
    opened: dict[int, int] = defaultdict(int)
    for r in range(ROWS):
        p, s = int(rows.partition[r]), int(rows.symbol[r])
        if rows.mark[r] != opened[p]:
            opened[p] = int(rows.mark[r])
            for (at, _), stream in plain.items():
                if at == p:
                    stream.mark(per_bar=per_bar)
        if labels.cell[r] >= 0:
            cell = int(labels.cell[r]) - p * CELLS
            plain[p, cell].labels.append((float(labels.missed[r]), 1.0, means.missed))
            if cell // GROUPS != LAST_VALUE:
                beside = means.loss[cell // GROUPS, s] * labels.loss_naive[r]
                plain[p, CELLS + cell].labels.append((labels.loss[r], beside, 0.5))
        for c in range(CHANNELS):
            if brought.place[r, c] != MISSING:
                stream = plain[p, 2 * CELLS + GROUP[s] * CHANNELS + c]
                stream.labels.append((float(brought.place[r, c] >= ODD), 1.0, means.odd[means.known[s], c]))
        if brought.far[r] != MISSING:
            stream = plain[p, 2 * CELLS + GROUPS * CHANNELS + GROUP[s]]
            stream.labels.append((float(brought.far[r]), 1.0, means.far[means.known[s]]))
    for stream in plain.values():
        stream.mark(per_bar=per_bar)
    return plain


def test_it_stops_where_an_alarm_begins_and_goes_on_from_there() -> None:
    rows, labels, brought = market(seed=3)
    of = streams()
    seen, other = (f.Seen.nothing(PARTITIONS, of, LINEUP) for _ in range(2))
    newest, limits = np.zeros(PARTITIONS, np.int64), d.DetectorLimits(50.0, 1.0, 25.0, 1.2, True)
    at, stops = 0, []
    while at >= 0:
        given = (GROUP, rows, labels, brought, newest, at)
        at = f.follow(seen.detectors, of, limits, seen.recent, seen.place, LINEUP, expected(), *given)
        stops.append(at)
        assert (at < 0) == (not seen.detectors.alarm["event"].any())
        seen.detectors.alarm["event"] = d.NOTHING
    assert len(stops) > 10
    assert stops == [*sorted(stops[:-1]), -1]
    for half in (slice(0, 1000), slice(1000, None)):
        some = [type(part)._make(column[half] for column in part) for part in (rows, labels, brought)]
        at = 0
        while at >= 0:
            at = f.follow(
                other.detectors, of, limits, other.recent, other.place, LINEUP, expected(), GROUP, *some, newest, at
            )
            other.detectors.alarm["event"] = d.NOTHING
    for one, two in zip(seen.detectors, other.detectors, strict=True):
        assert one.tobytes() == two.tobytes()
