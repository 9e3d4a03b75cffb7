"""`{slot}` in paths, and what is decided about partitions that were another's or were added."""

from pathlib import Path

import pytest

from tickcast.errors import BadSettings
from tickcast.io.kafka.client import Committed
from tickcast.live import recovery
from tickcast.live.recovery import PartitionStart
from tickcast.settings import Settings, load

SLOTS = {"bus.kind": "kafka", "kafka.slots": "3", "kafka.slot": "2"}


def settings(**overrides: str) -> Settings:
    return load(overrides={key.replace("__", "."): value for key, value in overrides.items()}, environ={})[0]


def test_the_slot_stands_where_the_paths_say_so():
    paths = {"store.path": "a/{slot}/b-{slot}.duckdb", "store.archive": "c/{slot}", "snapshot.folder": "{slot}"}
    found = load(overrides=SLOTS | paths | {"runtime.folder": "run{slot}"}, environ={})[0]
    assert (found.store.path, found.store.archive) == (Path("a/2/b-2.duckdb"), Path("c/2"))
    assert (found.snapshot.folder, found.runtime.folder) == (Path("2"), Path("run2"))


@pytest.mark.parametrize("key", ["store.path", "store.archive", "snapshot.folder"])
def test_slots_that_would_share_a_folder_are_refused(key):
    paths = {"store.path": "a/{slot}/b.duckdb"}
    with pytest.raises(BadSettings, match=f"the folder of {key} must have {{slot}} in its name"):
        load(overrides=SLOTS | paths | {key: "all/of-{slot}.duckdb" if key == "store.path" else "all"}, environ={})


def test_one_slot_and_other_buses_need_no_slot_in_their_paths():
    assert settings(bus__kind="kafka", store__path="a.duckdb").store.path == Path("a.duckdb")
    assert settings(kafka__slots="3", store__path="a.duckdb").store.path == Path("a.duckdb")


def test_since_is_where_the_topic_had_another_number_of_partitions_last():
    assert recovery.since(None, 4) == 0
    assert recovery.since(Committed(70, {"partitions": 4, "since": 9}), 4) == 9
    assert recovery.since(Committed(70, {"partitions": 4, "since": 9}), 6) == 70
    assert recovery.since(Committed(70, {}), 6) == 0


def test_a_partition_was_added_when_some_commit_knew_fewer():
    found = {("t", 0): Committed(5, {"partitions": 2}), ("t", 1): Committed(5, {"partitions": 3})}
    assert [recovery.was_added(("t", number), found) for number in range(4)] == [False, False, True, True]
    assert not recovery.was_added(("other", 9), found)
    assert not recovery.was_added(("t", 1), {("t", 0): Committed(5, {"partitions": 2})})


EVERY_TICK, MINUTES = settings(bars__kind="tick"), settings(bars__every_ms="60000")
NEAR, FAR, COLD = (
    PartitionStart(900, 1000, 7, 7),
    PartitionStart(100, 1000, 7, 7),
    PartitionStart(1000, 1000, 7, None, "windows"),
)


@pytest.mark.parametrize(
    ("start", "low", "expected"),
    [
        (NEAR, 0, (900, 1000, "")),
        (FAR, 0, (800, 0, "")),
        (COLD, 0, (800, 0, "")),
        (COLD, 950, (950, 0, "")),
    ],
)
def test_the_last_ticks_are_read_again_where_the_store_is_far_behind_or_knows_nothing(start, low, expected):
    found = recovery.reread(EVERY_TICK, start, committed=1000, low=low, most=200)
    assert (found.offset, found.below, found.lacks) == expected


def test_reading_again_from_the_middle_cuts_bars_that_are_open_there():
    assert recovery.reread(MINUTES, COLD, committed=1000, low=0, most=200).lacks == "open bars"
    assert recovery.reread(MINUTES, COLD, committed=1000, low=0, most=2000).lacks == ""
