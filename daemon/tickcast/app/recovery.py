"""Where a restart goes on: decided from what was committed, what the broker still holds, and what the settings say.

Pure decisions; `kafka_bus` asks the broker and acts.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tickcast.bus_settings import Kafka
from tickcast.edges.kafka.client import Committed
from tickcast.edges.kafka.reader import Bounds
from tickcast.errors import BadPositions

Source = tuple[str, int]
NOTE_VERSION = 1


def note(settings: Kafka, partitions: int, heartbeat_ns: int) -> dict[str, Any]:
    """What stands beside a committed offset: enough to see later that the deployment has changed."""
    return {"v": NOTE_VERSION, "slots": settings.slots, "partitions": partitions, "beat": heartbeat_ns}


def own_partitions(settings: Kafka, counts: Mapping[str, int]) -> list[Source]:
    own = [(topic, p) for topic, count in counts.items() for p in range(count) if p % settings.slots == settings.slot]
    if not own:
        raise BadPositions(
            f"slot {settings.slot} of {settings.slots} owns no partition of {', '.join(counts)}",
            remedy="lower kafka.slots, or give the topics more partitions",
        )
    return own


def refuse_changed_layout(settings: Kafka, counts: Mapping[str, int], committed: Mapping[Source, Committed]) -> None:
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


def committed_positions(
    settings: Kafka, own: Sequence[Source], committed: Mapping[Source, Committed], bounds: Mapping[Source, Bounds]
) -> dict[Source, int]:
    """Where reading goes on, by the commits; a partition that has none begins as the settings say."""
    return {source: _position(settings, source, committed.get(source), bounds[source]) for source in own}


def _position(settings: Kafka, source: Source, found: Committed | None, bounds: Bounds) -> int:
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


def usable(state: Mapping[Source, int], committed: Mapping[Source, int], bounds: Mapping[Source, Bounds]) -> str:
    """Why a snapshot of these positions cannot be gone on from; empty = it can."""
    for source, position in state.items():
        if source not in committed:
            return f"it holds {source}, which is not this slot's"
        if position < bounds[source].low:
            return f"what follows it in {source} is no longer kept by the broker"
    return ""
