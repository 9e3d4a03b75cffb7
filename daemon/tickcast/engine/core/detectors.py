"""E-detectors on blocks: evidence that a share has risen above what it should be at most. They know of no feature,
model or setting, and raise no alarm by what they look like: only by evidence whose rate of false alarms is bounded.

A stream gathers hits and what they are a share of. When its block is full, the share Y in [0, 1] moves the evidence
of each stake, M <- (M + bars of the block) (1 + stake (Y - expected) / expected): Shiryaev-Roberts, counted in bars.
While the mean of Y given the past is not above `expected`, M less the bars so far falls on average. So at any time that
is chosen by looking, M is on average at most the number of bars until then; and so is any mean of such M, over stakes
and over the streams of a family. Hence an alarm at M >= N comes at most once in N bars on average.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tickcast.columns import F64, I64
from tickcast.compiled import inlined_njit, lean_njit

STAKES = np.geomspace(0.1, 0.95, 16)
"""Parts of 1 / expected, the stake that loses all at a share of none. Smaller ones win on changes smaller than what is
tolerated, and keep for long what evidence they have."""
CEILING = 1e15  # of evidence: beyond it nothing is to be learnt, and nothing overflows
MOST_EXPECTED = 0.95  # of a share
NOTHING, RAISED, ENDED = range(3)  # what became of an alarm

STREAM = np.dtype(
    [
        ("hits", "f8"), ("weight", "f8"),  # of the open block: what was hit, and of what
        ("expected", "f8"), ("labels", "f8"), ("marked", "f8"),  # sum of what Y should be; labels, and those marked
        ("bars", "f8"),
        ("blocks", "i8"),  # closed since the start
        ("share", "f8"), ("limit", "f8"),  # Y of the last closed block, and what was expected of it at most
        ("shown", "f8"),  # evidence at the last evaluation, before any restart
        ("named", "u1"),  # by the last alarm
    ],
    align=True,
)  # fmt: skip

ALARM = np.dtype(
    [
        ("on", "u1"), ("event", "u1"),  # what became of it since somebody looked
        ("since", "i8"),  # event time at which it began or ended; 0 = never
        ("as_of", "i8"), ("statistic", "f8"),  # the last evaluation: mean evidence, in bars
        ("bars", "f8"),  # since the evidence last sufficed
        ("watched", "i8"),  # streams that have closed a block
        ("raised", "i8"),  # alarms so far
    ],
    align=True,
)  # fmt: skip


class Streams(NamedTuple):
    """What the streams of a partition are, family by family."""

    begin: I64  # [families + 1] the first stream of each
    block: F64  # [S] bars
    offset: F64  # [S] Y = offset + slope x hits / weight
    slope: F64


class DetectorLimits(NamedTuple):
    """When an alarm begins and ends."""

    threshold: float  # bars
    cooldown: float  # bars that an alarm lasts at least after the evidence last sufficed
    below: float  # evidence at which it may end
    tolerance: float  # times what a share should be is what it may be
    per_bar: bool  # labels of one mark are of one time bar; else each is of a bar of its own


class Detectors(NamedTuple):
    """By partition: those of the first, then those of the second, and so on."""

    stream: npt.NDArray[np.void]  # STREAM [partitions x S]
    evidence: F64  # [partitions x S, STAKES] in bars
    alarm: npt.NDArray[np.void]  # ALARM [partitions x families]


def fresh_detectors(partitions: int, streams: Streams) -> Detectors:
    count = partitions * len(streams.block)
    alarms = np.zeros(partitions * (len(streams.begin) - 1), ALARM)
    return Detectors(np.zeros(count, STREAM), np.zeros((count, len(STAKES))), alarms)


@inlined_njit
def add(stream, hit, weight, expected):  # type: ignore[no-untyped-def]
    """A label: what of its weight was hit, and what Y should be."""
    stream.hits += hit
    stream.weight += weight
    stream.expected += expected
    stream.labels += 1.0


@lean_njit
def close_mark(detectors, streams, limits, p, as_of):  # type: ignore[no-untyped-def]
    """At a mark of partition p: blocks that are full move the evidence, and alarms begin or end. Returns whether one
    did; its `event` says what.
    """
    families, per_partition, turned = len(streams.begin) - 1, len(streams.block), False
    for family in range(families):
        alarm = detectors.alarm[p * families + family]
        first, end = streams.begin[family], streams.begin[family + 1]
        most, closed = 0.0, False
        for s in range(first, end):
            i = p * per_partition + s
            stream = detectors.stream[i]
            came = stream.labels - stream.marked
            if came == 0.0:
                continue
            bars = 1.0 if limits.per_bar else came
            most = max(most, bars)
            stream.marked = stream.labels
            stream.bars += bars
            if stream.bars >= streams.block[s]:
                _close_block(stream, detectors.evidence[i], streams.offset[s], streams.slope[s], limits.tolerance)
                closed = True
        alarm.bars += most
        if closed:
            base = p * per_partition
            turned |= _evaluate(detectors, alarm, limits, base + first, base + end, as_of)
    return turned


@inlined_njit
def _close_block(stream, evidence, offset, slope, tolerance):  # type: ignore[no-untyped-def]
    """Where there was nothing to hit, or so much is expected that nothing could be too much, it is no block."""
    limit = tolerance * stream.expected / stream.labels
    if stream.weight > 0.0 and limit < MOST_EXPECTED:
        y = min(max(offset + slope * stream.hits / stream.weight, 0.0), 1.0)
        for k in range(len(STAKES)):
            evidence[k] = min((evidence[k] + stream.bars) * (1.0 + STAKES[k] * (y / limit - 1.0)), CEILING)
        stream.blocks += 1
        stream.share, stream.limit = y, limit
    _empty(stream)


@inlined_njit
def _empty(stream):  # type: ignore[no-untyped-def]
    stream.hits = stream.weight = stream.expected = stream.labels = stream.marked = stream.bars = 0.0


@lean_njit
def _evaluate(detectors, alarm, limits, first, end, as_of):  # type: ignore[no-untyped-def]
    """Of a family, whose streams are first .. end."""
    total, watched = 0.0, 0
    for i in range(first, end):
        stream = detectors.stream[i]
        if stream.blocks > 0:
            stream.shown = detectors.evidence[i].sum() / len(STAKES)
            total += stream.shown
            watched += 1
    alarm.watched, alarm.as_of = watched, as_of
    alarm.statistic = total / watched if watched else 0.0
    if alarm.statistic >= limits.threshold:
        name_streams(detectors.stream, limits.threshold, first, end)
        restart(detectors, first, end)
        alarm.bars = 0.0
        return _turn(alarm, as_of, 1) if alarm.on == 0 else False
    ends = alarm.on == 1 and alarm.bars >= limits.cooldown and alarm.statistic <= limits.below
    return _turn(alarm, as_of, 0) if ends else False


@inlined_njit
def _turn(alarm, as_of, on):  # type: ignore[no-untyped-def]
    alarm.on, alarm.since, alarm.event = on, as_of, RAISED if on else ENDED
    alarm.raised += on
    return True


@lean_njit
def name_streams(stream, threshold, first, end):  # type: ignore[no-untyped-def]
    """e-d-BH: the k streams of most evidence, for the largest k of which all have K / k of the threshold, where K are
    watched. The share of the named that are named wrongly is so bounded on average. Where all together suffice and none
    stands out so, it is the one of most evidence.
    """
    watched, most = 0, 0.0
    for i in range(first, end):
        watched += stream[i].blocks > 0
        most = max(most, stream[i].shown)
    k, enough = watched, 0
    while k > 0 and enough != k:
        enough = k
        k = 0
        for i in range(first, end):
            k += stream[i].blocks > 0 and stream[i].shown * enough >= threshold * watched
    least = threshold * watched / k if k > 0 else most
    for i in range(first, end):
        stream[i].named = stream[i].blocks > 0 and stream[i].shown >= least


@lean_njit
def restart(detectors, first, end):  # type: ignore[no-untyped-def]
    """The detectors first .. end begin anew, knowing nothing."""
    for i in range(first, end):
        for k in range(len(STAKES)):
            detectors.evidence[i, k] = 0.0
        _empty(detectors.stream[i])
