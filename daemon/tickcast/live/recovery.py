"""Where a restart goes on: decided from what was committed, what the broker still holds, and what the settings say.

Pure decisions; `buses/kafka.py` asks the broker, `restore.py` acts.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from tickcast.columns import Source
from tickcast.errors import BadPositions
from tickcast.io.kafka.client import Committed
from tickcast.io.kafka.consumer import Bounds
from tickcast.io.store.history import Kept, Mark
from tickcast.settings import Settings
from tickcast.settings.buses import KafkaSettings
from tickcast.settings.stream import BarSettings

NOTE_VERSION = 1
NS_PER_MS = 10**6
BEGINNING_NS, END_NS = -(1 << 62), (1 << 63) - 1

Lack = Literal["", "open bars", "windows"]


def note(settings: KafkaSettings, partitions: int, heartbeat_ns: int, since: int = 0) -> dict[str, Any]:
    """What stands beside a committed offset: enough to see later that the deployment has changed.

    Below the offset `since` the topic had fewer partitions, and symbols lay elsewhere.
    """
    return {"v": NOTE_VERSION, "slots": settings.slots, "partitions": partitions, "beat": heartbeat_ns, "since": since}


def since(found: Committed | None, partitions: int) -> int:
    """The offset from which on the topic has had this number of partitions."""
    if found is None:
        return 0
    return int(found.note.get("since", 0)) if found.note.get("partitions") in (None, partitions) else found.offset


def was_added(source: Source, found: Mapping[Source, Committed]) -> bool:
    """A partition that the topic did not have at the last commits: nobody has read it, whatever `kafka.start` says."""
    counts = [committed.note.get("partitions", 0) for (topic, _), committed in found.items() if topic == source[0]]
    return source not in found and bool(counts) and source[1] >= min(counts)


def all_partitions(counts: Mapping[str, int]) -> list[Source]:
    return [(topic, p) for topic, count in counts.items() for p in range(count)]


def own_partitions(settings: KafkaSettings, counts: Mapping[str, int]) -> list[Source]:
    own = [at for at in all_partitions(counts) if at[1] % settings.slots == settings.slot]
    if not own:
        raise BadPositions(
            f"slot {settings.slot} of {settings.slots} owns no partition of {', '.join(counts)}",
            remedy="lower kafka.slots, or give the topics more partitions",
        )
    return own


def refuse_changed_layout(
    settings: KafkaSettings, counts: Mapping[str, int], committed: Mapping[Source, Committed]
) -> None:
    """Other slots or partitions than at the last commit: keys and state would lie elsewhere."""
    for (topic, partition), found in committed.items():
        was_slots, was_partitions = found.note.get("slots"), found.note.get("partitions")
        if was_slots not in (None, settings.slots):
            raise BadPositions(
                f"{topic}/{partition} was committed by one of {was_slots} slots, kafka.slots is {settings.slots}",
                remedy="stop all slots and run: tickcast reshard",
            )
        if was_partitions not in (None, counts[topic]):
            raise BadPositions(
                f"{topic} had {was_partitions} partitions at the last commit and has {counts[topic]} now",
                remedy="stop all slots and run: tickcast reshard",
            )


class Placement(NamedTuple):
    """Where each of our partitions stands, by what was committed and what the broker holds."""

    partitions: Mapping[str, int]  # of each topic
    low: dict[Source, int]  # oldest offset that the broker holds
    committed: dict[Source, int]  # where reading goes on
    since: dict[Source, int]  # from which on the topic has had this number of partitions
    beats: dict[Source, int]  # event time of the last heartbeat
    decided: frozenset[Source]  # those without a commit, or one that the broker no longer holds: by the settings
    is_new: bool  # some have no commit


def place(
    settings: KafkaSettings,
    counts: Mapping[str, int],
    found: Mapping[Source, Committed],
    bounds: Mapping[Source, Bounds],
) -> Placement:
    """Of the partitions in `bounds`."""
    committed = {at: _position(settings, at, found.get(at), bound) for at, bound in bounds.items()}
    return Placement(
        partitions=counts,
        low={at: bound.low for at, bound in bounds.items()},
        committed=committed,
        since={at: since(found.get(at), counts[at[0]]) for at in bounds},
        beats={at: int(found[at].note.get("beat", 0)) if at in found else 0 for at in bounds},
        decided=frozenset(at for at in bounds if at not in found or found[at].offset != committed[at]),
        is_new=any(at not in found for at in bounds),
    )


def _position(settings: KafkaSettings, source: Source, found: Committed | None, bounds: Bounds) -> int:
    if found is None:
        return bounds.low if settings.start == "earliest" else bounds.high
    if bounds.low <= found.offset <= bounds.high:
        return found.offset
    if settings.lost_offsets == "fail":
        raise BadPositions(
            f"{source[0]}/{source[1]} was committed at {found.offset}, the broker holds {bounds.low} to {bounds.high}",
            remedy="ticks are lost: set kafka.lost_offsets = earliest or latest to go on without them",
        )
    return bounds.low if settings.lost_offsets == "earliest" else bounds.high


def usable(state: Mapping[Source, int], place: Placement) -> str:
    """Why a snapshot of these positions cannot be gone on from; empty = it can."""
    for source, position in state.items():
        if source not in place.low:
            return f"it holds {source}, which is not this slot's"
        if position < place.low[source]:
            return f"what follows it in {source} is no longer kept by the broker"
    return ""


class PartitionStart(NamedTuple):
    """Where a partition is read from when there is no snapshot, and what of it is in the windows by then.

    The windows hold its bars that were closed by records below `below` and end at `upto_ns` or before. Time bars that
    begin there or later are built from ticks alone, and ticks before it are late.
    """

    offset: int
    below: int
    upto_ns: int
    newest_ns: int | None  # the largest event time below `offset`; None = nothing was read there
    lacks: Lack = ""  # what the undisturbed daemon would have had besides


def start(settings: Settings, kept: Kept, *, bars_needed: int, committed: int, low: int) -> PartitionStart:
    """Never beyond the committed offset, nor what is stored below it, and never below what the broker holds."""
    marks = [mark for mark in kept.marks if low <= mark.next_offset <= committed]
    stored = committed if kept.next_offset is None else min(max(kept.next_offset, low), committed)
    if kept.closed_ns is None:
        return _rewound(settings, marks, bars_needed, committed, stored)
    if settings.bars.kind == "time":
        for mark in reversed(marks):
            boundary_ns = _next_boundary(settings.bars, mark)
            if boundary_ns <= kept.closed_ns:  # all bars before it are stored, all after it begin above the mark
                return PartitionStart(mark.next_offset, committed, boundary_ns, mark.watermark_ns)
    upto_ns = kept.closed_ns if settings.bars.kind == "time" else END_NS
    return PartitionStart(
        stored, committed, upto_ns, kept.closed_ns, "" if _is_every_tick(settings.bars) else "open bars"
    )


def reread(settings: Settings, start: PartitionStart, *, committed: int, low: int, most: int) -> PartitionStart:
    """For a partition that was another's: its last ticks fill the windows where the store cannot, or is far behind."""
    if start.lacks != "windows" and committed - start.offset <= most:
        return start
    offset = max(committed - most, low)
    return PartitionStart(offset, 0, END_NS, None, "" if _is_every_tick(settings.bars) or offset == 0 else "open bars")


def _rewound(
    settings: Settings, marks: Sequence[Mark], bars_needed: int, committed: int, stored: int
) -> PartitionStart:
    """No bars are stored: read so much again that the windows fill, as far as there are marks."""
    bars = settings.bars
    if not marks:
        return PartitionStart(stored, committed, END_NS, None, "windows" if stored else "")
    enough = [mark for mark in marks if _fills(settings, mark, marks[-1], bars_needed, committed)]
    mark = enough[-1] if enough else marks[0]
    upto_ns = _next_boundary(bars, mark) if bars.kind == "time" else END_NS
    whole = bars.kind == "time" or _is_every_tick(bars) or mark.watermark_ns is None
    lacks: Lack = "windows" if not enough else "" if whole else "open bars"
    return PartitionStart(mark.next_offset, committed, upto_ns, mark.watermark_ns, lacks)


def _fills(settings: Settings, mark: Mark, newest: Mark, bars_needed: int, committed: int) -> bool:
    """Whether the ticks from the mark on are enough for full windows, of symbols that are never silent."""
    if mark.watermark_ns is None or newest.watermark_ns is None:
        return mark.watermark_ns is None
    if settings.bars.kind == "time":
        return mark.watermark_ns <= newest.watermark_ns - (bars_needed + 1) * settings.bars.every_ms * NS_PER_MS
    ticks = settings.bars.every_ticks if settings.bars.kind == "tick" else 1  # of a bar, at least
    return mark.next_offset <= committed - bars_needed * ticks * settings.symbols.limit


def _next_boundary(bars: BarSettings, mark: Mark) -> int:
    """The first beginning of a time bar that lies after every tick below the mark."""
    every_ns = bars.every_ms * NS_PER_MS
    return BEGINNING_NS if mark.watermark_ns is None else (mark.watermark_ns // every_ns + 1) * every_ns


def _is_every_tick(bars: BarSettings) -> bool:
    return bars.kind == "tick" and bars.every_ticks == 1
