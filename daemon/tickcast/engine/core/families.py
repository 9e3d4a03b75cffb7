"""The four families of streams, and what each counts of a closed bar. They decide nothing: detectors do.

| family | stream | a label | a hit | expected |
|---|---|---|---|---|
| coverage | model and group | settled, first scored step | outside of the outer quantiles | what the levels say |
| skill | model and group | the same | its loss, in those that last value's lets expect | one half, by `Streams` |
| range | group and channel | a value | outside of the central 90 %, or the one before again | its symbol's share |
| joint | group | a bar with all values | beyond the 95 % point of the distance | its symbol's share |

A partition has streams of its own, so that what is found depends on its ticks alone.
"""

from typing import Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from tickcast.columns import F64, I32, I64
from tickcast.compiled import inlined_njit, lean_njit
from tickcast.engine.core.channels import BINS, MISSING, ODD
from tickcast.engine.core.detectors import Detectors, Streams, add, close_mark, fresh_detectors

Kind = Literal["coverage", "skill", "range", "joint"]
FAMILIES: tuple[Kind, ...] = ("coverage", "skill", "range", "joint")
COVERAGE, SKILL, RANGE, JOINT = range(len(FAMILIES))

PLACE = np.dtype([("mark", "i8"), ("as_of", "i8")], align=True)  # of a partition: its open mark, its newest bar


class Expected(NamedTuple):
    """What labels should be, while all is as it was."""

    missed: float  # share outside of the outer quantiles
    loss: F64  # [models, symbols] in losses of last value
    known: I32  # [symbols] rows of the reference
    odd: F64  # [S + 1, F]
    far: F64  # [S + 1]


class Lineup(NamedTuple):
    """How many of what there are."""

    models: int
    groups: int
    channels: int
    last_value: int  # its number: it has no skill to lose
    keep: float  # of what is recent, from one bar to the next


class Recent(NamedTuple):
    """Where values lay lately, by bin of the reference's sketch, with exponential forgetting."""

    bins: F64  # [partitions x groups x F, BINS]
    came: F64  # [partitions] rows since the last mark


def fresh_recent(partitions: int, lineup: Lineup) -> Recent:
    return Recent(np.zeros((partitions * lineup.groups * lineup.channels, BINS)), np.zeros(partitions))


class Seen(NamedTuple):
    """All that the watch remembers."""

    detectors: Detectors
    recent: Recent
    place: npt.NDArray[np.void]  # PLACE [partitions]

    @classmethod
    def nothing(cls, partitions: int, streams: Streams, lineup: Lineup) -> Self:
        return cls(
            fresh_detectors(partitions, streams), fresh_recent(partitions, lineup),
            np.zeros(partitions, PLACE),
        )  # fmt: skip

    def with_more(self, more: "Seen") -> "Seen":
        """And that of partitions behind these."""
        return Seen(
            Detectors._make(map(np.concatenate, zip(self.detectors, more.detectors, strict=True))),
            Recent._make(map(np.concatenate, zip(self.recent, more.recent, strict=True))),
            np.concatenate([self.place, more.place]),
        )  # fmt: skip


def families_of(lineup: Lineup) -> I64:
    """The first stream of each family, and where the last one ends."""
    cells = lineup.models * lineup.groups
    counts = [cells, cells, lineup.groups * lineup.channels, lineup.groups if lineup.channels else 0]
    return np.cumsum([0, *counts])


@lean_njit
def follow(detectors, streams, limits, recent, place, lineup, expected, group, rows, labels, measured, newest, start):  # type: ignore[no-untyped-def]
    """Count closed bars from row `start` on, and pass marks; by partition, `newest` is the mark to end at. Returns the
    row to go on with where an alarm began or ended, or -1.
    """
    for r in range(start, len(rows.symbol)):
        p = rows.partition[r]
        if rows.mark[r] != place[p].mark:
            place[p].mark = rows.mark[r]
            if _pass_mark(detectors, streams, limits, recent, place, lineup, p):
                return r
        place[p].as_of = rows.as_of[r]
        stream = detectors.stream[p * len(streams.block) : (p + 1) * len(streams.block)]
        s = rows.symbol[r]
        _count_label(stream, streams.begin, lineup, expected, labels, r, s)
        if lineup.channels:
            recent.came[p] += 1.0
            _count_values(stream, streams.begin, recent.bins, lineup, expected, p, group[s], measured, r, s)
    for p in range(len(newest)):
        if place[p].mark < newest[p]:
            place[p].mark = newest[p]
            if _pass_mark(detectors, streams, limits, recent, place, lineup, p):
                return len(rows.symbol)
    return -1


@inlined_njit
def _count_label(stream, begin, lineup, expected, labels, r, s):  # type: ignore[no-untyped-def]
    if labels.cell[r] < 0:
        return
    cell = labels.cell[r] % (lineup.models * lineup.groups)  # without the partition
    model = cell // lineup.groups
    add(stream[begin[0] + cell], labels.missed[r], 1.0, expected.missed)
    if model != lineup.last_value:
        add(stream[begin[1] + cell], labels.loss[r], expected.loss[model, s] * labels.loss_naive[r], 0.5)


@inlined_njit
def _count_values(stream, begin, bins, lineup, expected, p, group, measured, r, s):  # type: ignore[no-untyped-def]
    known = expected.known[s]
    first = group * lineup.channels
    for f in range(lineup.channels):
        if measured.place[r, f] == MISSING:
            continue
        odd = measured.place[r, f] >= ODD
        add(stream[begin[2] + first + f], odd, 1.0, expected.odd[known, f])
        k = measured.place[r, f] - ODD if odd else measured.place[r, f]
        bins[p * lineup.groups * lineup.channels + first + f, k] += 1.0
    if measured.far[r] != MISSING:
        add(stream[begin[3] + group], measured.far[r], 1.0, expected.far[known])


@lean_njit
def _pass_mark(detectors, streams, limits, recent, place, lineup, p):  # type: ignore[no-untyped-def]
    if lineup.channels and recent.came[p] > 0.0:
        keep = lineup.keep if limits.per_bar else lineup.keep ** recent.came[p]
        width = lineup.groups * lineup.channels
        for i in range(p * width, (p + 1) * width):
            for k in range(BINS):
                recent.bins[i, k] *= keep
        recent.came[p] = 0.0
    return close_mark(detectors, streams, limits, p, place[p].as_of)
