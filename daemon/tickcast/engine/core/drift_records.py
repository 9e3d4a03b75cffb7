"""Detectors -> the records that a person reads, beside which stand distances of values from the reference. It only
tells.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from tickcast.columns import F64, Source
from tickcast.engine.core.detectors import ENDED, RAISED, DetectorLimits
from tickcast.engine.core.families import FAMILIES, JOINT, RANGE, Seen
from tickcast.engine.core.watched import Watched
from tickcast.records import Drift, DriftStream, ModelCard
from tickcast.reference import Reference

MOST_STREAMS = 8  # that a record tells of
LEAST_VALUES = 30.0  # of which a distance is told
RARE = 1e-4  # share of a bin that holds nothing
EVENTS: dict[int, Literal["raised", "ended"]] = {RAISED: "raised", ENDED: "ended"}


class DriftNames(NamedTuple):
    """Of what the numbers stand for."""

    sources: Sequence[Source]
    cards: Sequence[ModelCard]
    groups: Sequence[str]
    channels: Sequence[str]


def record_of(seen: Seen, watched: Watched, names: DriftNames, limits: DetectorLimits, *, at: tuple[int, int]) -> Drift:
    """Of the (partition, family) `at`."""
    partition, family = at
    alarm = seen.detectors.alarm[partition * len(FAMILIES) + family]
    begin, end = watched.streams.begin[family : family + 2]
    base = partition * len(watched.streams.block)
    own = seen.detectors.stream[base + begin : base + end]
    order = np.lexsort((-own["shown"], 1 - own["named"]))[:MOST_STREAMS]
    return Drift(
        family=FAMILIES[family], topic=names.sources[partition][0], partition=names.sources[partition][1],
        state="alarm" if alarm["on"] else "quiet", event=EVENTS.get(int(alarm["event"]), ""),
        statistic=float(alarm["statistic"]), threshold=limits.threshold, bars=float(alarm["bars"]),
        since_ns=int(alarm["since"]), alarms=int(alarm["raised"]), watched=int(alarm["watched"]),
        streams=[
            _stream(own[s], watched, names, family, int(s), _distances(seen, watched, partition, family, int(s)))
            for s in order if own[s]["blocks"]
        ],
        as_of_ns=int(alarm["as_of"]),
    )  # fmt: skip


def _stream(
    stream: np.void, watched: Watched, names: DriftNames, family: int, s: int, distances: tuple[float | None, ...]
) -> DriftStream:
    groups, channels = len(names.groups), len(names.channels)
    of_values = family in (RANGE, JOINT)
    card = names.cards[watched.first if of_values else s // groups]
    group = s // channels if family == RANGE else s % groups
    left = float(watched.left[watched.streams.begin[family] + s])
    psi, ks, wasserstein = distances
    return DriftStream(
        model=f"{card.name}@{card.version}", group=names.groups[group],
        channel=names.channels[s % channels] if family == RANGE else "", named=bool(stream["named"]),
        statistic=float(stream["shown"]), share=float(stream["share"]), limit=float(stream["limit"]),
        block_bars=float(watched.streams.block[watched.streams.begin[family] + s]),
        autocorrelation=None if np.isnan(left) else left, psi=psi, ks=ks, wasserstein=wasserstein,
    )  # fmt: skip


def _distances(seen: Seen, watched: Watched, partition: int, family: int, s: int) -> tuple[float | None, ...]:
    """Of a channel's values lately; None of anything else."""
    if family != RANGE or watched.reference is None:
        return None, None, None
    lineup = watched.lineup
    bins = seen.recent.bins[partition * lineup.groups * lineup.channels + s]
    if bins.sum() < LEAST_VALUES:
        return None, None, None
    return distances(bins / bins.sum(), watched.reference, s % lineup.channels)


def distances(bins: F64, reference: Reference, channel: int) -> tuple[float, float, float | None]:
    """PSI, KS and Wasserstein of shares by bin from the reference's. The last is the area between both distribution
    functions, in widths of the central 90 %, as far as the sketch reaches; None where that has no width."""
    then, edges = reference.bins[channel], reference.edges[channel]
    now, was = np.maximum(bins, RARE), np.maximum(then, RARE)
    apart = np.concatenate([[0.0], np.cumsum(bins - then)])
    area = float((np.diff(edges) * (abs(apart[1:]) + abs(apart[:-1])) / 2).sum())
    width = float(reference.high[channel] - reference.low[channel])
    wasserstein = area / width if 0 < width < np.inf else None
    return float(((now - was) * np.log(now / was)).sum()), float(abs(apart).max()), wasserstein
