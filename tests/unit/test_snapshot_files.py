"""The files that the engine's state is kept in: whole and fitting, or refused with a reason."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from snapshotkit import KINDS, Running, differences, small_settings, tape, turns
from tickcast.errors import StoreStalled
from tickcast.io.store import snapshot
from tickcast.io.store.snapshot import StoreMark
from tickcast.settings import Settings, load
from tickcast.state import State

KILLS, WAIT_S = 3, 60.0


@pytest.fixture(scope="module")
def options() -> Settings:
    return small_settings(**KINDS[1])


@pytest.fixture(scope="module")
def state(options: Settings) -> State:
    return Running(options).take(turns(tape(3), 3)).engine.snapshot()


def test_a_file_gives_back_every_bit(tmp_path: Path, state: State, options: Settings) -> None:
    path = snapshot.write(tmp_path / "new" / "folder", state, options)
    found = snapshot.newest_valid(path.parent, options, not_beyond=state.positions)
    assert found.state is not None
    assert not found.refused
    assert not [*differences(found.state, state)]
    assert all(array.flags.writeable and array.flags.c_contiguous for array in found.state.arrays.values())


def test_the_two_newest_files_are_kept_and_leftovers_are_not_read(tmp_path: Path, options: Settings) -> None:
    (tmp_path / "state.tmp").write_bytes(b"half")
    for number in range(4):
        snapshot.write(tmp_path, _state(number), options)
    assert sorted(path.name for path in tmp_path.glob("*.snapshot")) == [
        "state-00000003.snapshot", "state-00000004.snapshot"]  # fmt: skip
    assert snapshot.newest_valid(tmp_path, options, not_beyond={("t", 0): 9}).state.positions == {("t", 0): 3}  # type: ignore[union-attr]
    assert snapshot.newest_valid(tmp_path / "none", options, not_beyond={}) == (None, [])


def test_a_file_ahead_of_the_store_that_it_was_made_beside_is_refused(tmp_path: Path, options: Settings) -> None:
    for position in (5, 7):
        snapshot.write(tmp_path, _state(position), options, store="this")
    at = {("t", 0): 9}
    found = snapshot.newest_valid(tmp_path, options, not_beyond=at, beside=StoreMark("this", {("t", 0): 6}))
    assert found.state is not None
    assert found.state.positions == {("t", 0): 5}
    assert "ahead of the store, which has lost rows: it has read ('t', 0) up to 7, stored is 6" in found.refused[0]
    other = snapshot.newest_valid(tmp_path, options, not_beyond=at, beside=StoreMark("another", {("t", 0): 6}))
    assert other.state is not None
    assert other.state.positions == {("t", 0): 7}
    assert snapshot.newest_valid(tmp_path, options, not_beyond=at, beside=StoreMark("this", {})).state is None


def _state(position: int, **arrays: np.ndarray) -> State:
    return State({"a": np.arange(position * 1.0), **arrays}, {"positions": [["t", 0, position]]})


def test_a_file_beyond_the_committed_positions_gives_way_to_an_older_one(tmp_path: Path, options: Settings) -> None:
    for position in (5, 7):
        snapshot.write(tmp_path, _state(position), options)
    state, refused = snapshot.newest_valid(tmp_path, options, not_beyond={("t", 0): 6})
    assert state is not None
    assert state.positions == {("t", 0): 5}
    assert refused == ["state-00000002.snapshot has read ('t', 0) up to 7, committed is 6"]
    assert len(snapshot.newest_valid(tmp_path, options, not_beyond={("u", 0): 9}).refused) == 2


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.99, 0.99999])
def test_a_truncated_file_is_refused(tmp_path: Path, state: State, options: Settings, share: float) -> None:
    path = snapshot.write(tmp_path, state, options)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    found = snapshot.newest_valid(tmp_path, options, not_beyond=state.positions)
    assert found.state is None
    assert "is torn" in found.refused[0]


def test_any_flipped_bit_is_noticed(tmp_path: Path, options: Settings) -> None:
    path = snapshot.write(tmp_path, _state(3), options)
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        torn = bytearray(whole)
        torn[place] ^= 1 << place % 8
        path.write_bytes(torn)
        found = snapshot.newest_valid(tmp_path, options, not_beyond={("t", 0): 3})
        assert found.state is None, place
        assert len(found.refused) == 1
    path.write_bytes(whole)
    assert snapshot.newest_valid(tmp_path, options, not_beyond={("t", 0): 3}).state is not None


def test_another_format_is_named(tmp_path: Path, options: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "FORMAT", 9)
    snapshot.write(tmp_path, _state(1), options)
    monkeypatch.undo()
    refused = snapshot.newest_valid(tmp_path, options, not_beyond={("t", 0): 1}).refused
    assert refused == ["state-00000001.snapshot has format 9, this version reads 6 to 8"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"bars__every_ms": 250}, "bars.every_ms was 500, is 250"),
        ({"window__lookback": 7}, "window.lookback was 6, is 7"),
        ({"codec__fields__sequence": "n"}, "codec.fields was"),
        ({"features__set": "[]"}, "features.set was [{'kind': 'rolling_mean'"),
        ({"symbols__groups": '{"few" = ["S1"]}'}, "symbols.groups was"),
        ({"runtime__deterministic": True}, "runtime.deterministic was False, is True"),
        ({"log__level": "debug", "score__publish_every_s": 9, "symbols__limit": 64, "bars__idle_ms": 5}, ""),
    ],
)
def test_settings_that_decide_the_state_are_compared_and_a_changed_one_is_named(
    tmp_path: Path, change: dict[str, object], told: str
) -> None:
    snapshot.write(tmp_path, _state(1), small_settings(bars__every_ms=500))
    options = small_settings(**({"bars__every_ms": 500} | change))
    state, refused = snapshot.newest_valid(tmp_path, options, not_beyond={("t", 0): 1})
    assert (state is None) == bool(told)
    assert [told in reason for reason in refused] == [True] * bool(told)


def test_the_lists_of_settings_name_settings_that_exist(options: Settings) -> None:
    sections = options.model_dump()
    dotted = {f"{section}.{key}" for section, keys in sections.items() for key in keys}
    assert {*sections, *dotted} >= snapshot.DECIDING | snapshot.NOT_DECIDING
    assert {name.split(".")[0] for name in snapshot.NOT_DECIDING} <= snapshot.DECIDING


def test_a_full_disk_leaves_the_files_that_are_there_and_is_reported(tmp_path: Path, options: Settings) -> None:
    snapshot.write(tmp_path, _state(2), options)
    large = _state(3, b=np.zeros(1 << 18))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))  # no file may grow larger: a disk that ends
    try:
        with pytest.raises(StoreStalled, match=r"no snapshot can be written to .*: File too large"):
            snapshot.write(tmp_path, large, options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["state-00000001.snapshot"]
    assert snapshot.newest_valid(tmp_path, options, not_beyond={("t", 0): 9}).state is not None
    assert snapshot.write(tmp_path, large, options).name == "state-00000002.snapshot"


CHILD = """
import sys
from pathlib import Path
import numpy as np
from tickcast.io.store import snapshot
from tickcast.settings import load
from tickcast.state import State
options, number = load(environ={})[0], 0
while True:
    number += 1
    state = State({"a": np.full(1 << 19, float(number))}, {"positions": [["t", 0, number]]})
    snapshot.write(Path(sys.argv[1]), state, options)
"""


def test_a_writer_killed_at_any_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    for kill in range(KILLS):
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)])
        deadline = time.monotonic() + WAIT_S
        while len([*tmp_path.glob("*.snapshot")]) < 2:
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.013 * kill)
        os.kill(child.pid, signal.SIGKILL)
        child.wait(WAIT_S)
        found = snapshot.newest_valid(tmp_path, load(environ={})[0], not_beyond={("t", 0): 1 << 40})
        assert found.state is not None
        assert not found.refused
        assert set(found.state.arrays["a"]) == {float(found.state.positions["t", 0])}
        for path in tmp_path.glob("*.snapshot"):
            path.unlink()
