"""Shares partitions out anew: another number of slots, or topics that have grown. It runs while all slots are stopped.

It takes every slot's fence, gives each partition's rows to its new owner's store, and then commits where all were, as
the new slots, in one transaction: until that is through the old slots may go on as if nothing had been. An engine's
snapshot is of a whole slot, so there is none afterwards: windows are filled from the bars, adaptive state starts anew.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

from tickcast.clock import Clock
from tickcast.columns import Source
from tickcast.errors import BadPositions, BadSettings, BadStore, BrokerAway
from tickcast.io.kafka import client
from tickcast.io.kafka.client import Committed
from tickcast.io.kafka.delivery import Delivery
from tickcast.io.kafka.reader import KafkaReader
from tickcast.io.kafka.topics import Topic, partitions_of
from tickcast.io.store import snapshot
from tickcast.io.store.handover import Handover
from tickcast.live import recovery
from tickcast.live.restore import snapshot_folder
from tickcast.settings import Settings
from tickcast.settings.buses import KafkaSettings

LOOK_S = 0.1


class Resharded(NamedTuple):
    partitions: int
    rows: int  # that another store holds now


async def reshard(settings_of: Callable[[int], Settings], slots: int, clock: Clock) -> Resharded:
    """`settings_of` a slot, at the new number of slots."""
    settings = settings_of(0)
    kafka = settings.kafka
    if kafka.assignment != "static":
        raise BadSettings("kafka.assignment is 'group', and a group shares out by itself", remedy="start more daemons")
    _refuse_shared({slot: settings_of(slot) for slot in range(slots)})
    await client.reach(kafka, max_wait_s=0, waiting=lambda problem, pause_s: None)
    ticks = await partitions_of(kafka, [Topic(name, "topics.ticks") for name in settings.topics.ticks])
    for slot in range(slots):
        recovery.own_partitions(settings_of(slot).kafka, ticks)
    old = max(int(found.note.get("slots", 1)) for found in (await _committed(settings, ticks)).values())
    each = {slot: settings_of(slot) for slot in range(max(old, slots))}
    _refuse_shared(each)
    _refuse_missing(each, old)
    try:
        with Handover.open(each, lambda source: source[1] % slots, at_ns=clock.now_ns()) as handover:
            return await _hand_over(handover, each, ticks)
    except OSError as error:
        raise BadStore(
            f"a slot's folder cannot be used: {error}", remedy="see store.path and snapshot.folder, then run it again"
        ) from None


def _refuse_shared(each: Mapping[int, Settings]) -> None:
    if len({one.store.path for one in each.values()}) < len(each):
        raise BadSettings(
            f"the slots share one store.path, {each[0].store.path}", remedy="write {slot} where its folder is named"
        )


async def _hand_over(handover: Handover, each: Mapping[int, Settings], ticks: Mapping[str, int]) -> Resharded:
    settings = each[0]
    async with AsyncExitStack() as stack:
        fences = [
            await stack.enter_async_context(Delivery.open(_alone(one), max_away_s=settings.runtime.max_wait_s))
            for one in each.values()
        ]
        positions = await _positions(settings, ticks)
        rows = await asyncio.to_thread(handover.copy)
        for one in each.values():
            snapshot.drop(snapshot_folder(one))
        notes = {at: _note(settings.kafka, ticks[at[0]], found) for at, found in positions.items()}
        fences[0].seal()
        await fences[0].commit({at: p.offset for at, p in positions.items()}, notes)
        await _until_seen(settings, notes)
    await asyncio.to_thread(handover.forget)
    return Resharded(len(positions), rows)


def _refuse_missing(each: Mapping[int, Settings], old: int) -> None:
    for slot in range(old):
        path = each[slot].store.path
        if not path.exists():
            raise BadStore(f"slot {slot} had a store, and {path} is not there", remedy="bring it there, see store.path")


def _note(settings: KafkaSettings, partitions: int, old: Committed) -> dict[str, Any]:
    return recovery.note(settings, partitions, int(old.note.get("beat", 0)), recovery.since(old, partitions))


def _alone(settings: Settings) -> KafkaSettings:
    """To take the fence and commit; nothing is published."""
    return settings.kafka.model_copy(update={"delivery": "at_least_once"})


async def _committed(settings: Settings, ticks: Mapping[str, int]) -> dict[Source, Committed]:
    found = await client.committed(settings.kafka, recovery.all_partitions(ticks))
    if not found:
        raise BadPositions(
            f"kafka.group '{settings.kafka.group}' has committed nothing",
            remedy="there is nothing to share out: start the slots",
        )
    return found


async def _positions(settings: Settings, ticks: Mapping[str, int]) -> dict[Source, Committed]:
    """Where all partitions go on; those that were added begin at their beginning. Final, as the fences are ours."""
    found = await _committed(settings, ticks)
    added = [at for at in recovery.all_partitions(ticks) if recovery.was_added(at, found)]
    if not added:
        return found
    async with KafkaReader.open(settings.kafka, added) as reader:
        return found | {at: Committed(bounds.low, {}) for at, bounds in (await reader.bounds()).items()}


async def _until_seen(settings: Settings, notes: Mapping[Source, object]) -> None:
    """The broker may show a commit a moment after it has taken it."""
    try:
        async with asyncio.timeout(settings.kafka.call_timeout_s):
            while {at: c.note for at, c in (await client.committed(settings.kafka, notes)).items()} != notes:
                await asyncio.sleep(LOOK_S)
    except TimeoutError:
        raise BrokerAway(
            f"the broker took the commits of kafka.group '{settings.kafka.group}' and does not show them",
            remedy="run it again before a slot starts; kafka.call_timeout_s is the limit",
        ) from None
