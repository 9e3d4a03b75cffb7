"""What a process leaves of its last turn, and what the next one makes of it; lives are ended by leaving a turn open."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tickcast.columns import RawBatch
from tickcast.errors import BadSettings
from tickcast.loop import last_turn
from tickcast.loop.last_turn import LastTurn

TOPIC = "ticks"


def batch(first: int, end: int, partition: int = 0) -> RawBatch:
    offsets = np.arange(first, end)
    spans = np.zeros(len(offsets), np.int64)
    return RawBatch(TOPIC, partition, np.zeros(1, np.uint8), spans, spans, offsets, spans - 1)


@contextmanager
def life(folder: Path) -> Iterator[LastTurn]:
    with LastTurn.open(folder, [TOPIC], limit_s=60) as last:
        yield last


def die_in(folder: Path, *batches: RawBatch, mixed: bool = False, opening: bool = False) -> None:
    with life(folder) as last:
        last.begin(batches, mixed=mixed, opening=opening)


def spans(folder: Path) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Suspects and what is set aside, as the next life finds them."""
    with life(folder) as last:
        return [(s.first, s.end) for s in last.suspects], [(s.first, s.end) for s in last.aside]


def test_a_turn_that_ended_leaves_nothing_and_one_that_did_not_its_messages(tmp_path):
    with life(tmp_path) as last:
        last.begin([batch(0, 9)])
        last.end()
    assert spans(tmp_path) == ([], [])
    die_in(tmp_path, batch(9, 20), batch(3, 4, partition=1))
    assert spans(tmp_path) == ([(9, 20), (3, 4)], [])


def test_only_what_died_alone_twice_is_set_aside_and_the_others_of_its_turn_stay_suspects(tmp_path):
    die_in(tmp_path, batch(10, 20))
    for first in (10, 13):
        assert spans(tmp_path) == ([(first, 20)], [])
        with life(tmp_path) as last:
            for offset in range(10, 13):
                last.begin([batch(offset, offset + 1)])
                last.end()
            assert [(s.first, s.end) for s in last.suspects] == [(13, 20)]
        die_in(tmp_path, batch(13, 14))
    assert spans(tmp_path) == ([(13, 20)], [(13, 14)])
    with life(tmp_path) as last:
        assert last.set_aside() == {"ticks/0": 1}


def test_chance_sets_nothing_aside(tmp_path):
    die_in(tmp_path, batch(10, 11))
    die_in(tmp_path, batch(12, 13))  # at another message
    die_in(tmp_path, batch(10, 11))
    assert spans(tmp_path)[1] == []
    with life(tmp_path) as last:
        last.begin([batch(10, 11)])  # it passes
        last.end()
    die_in(tmp_path, batch(10, 11))
    die_in(tmp_path, batch(10, 11), mixed=True)  # perhaps over what came beside it
    assert spans(tmp_path)[1] == []
    die_in(tmp_path, batch(10, 11))
    assert spans(tmp_path)[1] == [(10, 11)]


def test_a_loss_of_power_is_no_message_s_doing(tmp_path, monkeypatch):
    for boot in range(4):
        monkeypatch.setattr(last_turn, "_boot", lambda boot=boot: boot)
        die_in(tmp_path, batch(10, 11))
    monkeypatch.setattr(last_turn, "_boot", lambda: 9)
    assert spans(tmp_path) == ([], [])


def test_what_is_suspected_where_reading_does_not_begin_again_is_forgotten(tmp_path):
    die_in(tmp_path, batch(10, 20), batch(5, 8, partition=1))
    with life(tmp_path) as last:
        last.starts_at({(TOPIC, 0): 15, (TOPIC, 1): 8})
        assert [(s.partition, s.first) for s in last.suspects] == [(0, 10)]


def test_more_partitions_than_there_is_room_for_and_a_file_of_others_do_no_harm(tmp_path):
    die_in(tmp_path, *(batch(0, 5, partition) for partition in range(last_turn.ROOM + 9)))
    assert len(spans(tmp_path)[0]) == last_turn.ROOM
    (tmp_path / last_turn.NAME).write_bytes(b"\xff" * last_turn.FILE_BYTES)
    assert spans(tmp_path) == ([], [])


def test_two_daemons_do_not_share_it(tmp_path):
    with life(tmp_path), pytest.raises(BadSettings, match=r"runtime\.folder"), life(tmp_path):
        pass
