"""Stores and snapshots of an older version are opened and gone on with: `before/` holds what fbc9e1f wrote at half of
the tape of `snapshotkit`, and what it published after that.

Where a format is raised on purpose, its file goes from `before/` and a newer one of the same kind comes.
"""

import gzip
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from test_golden import same

from snapshotkit import KINDS, T0, Running, small_settings, tape, turns
from tickcast.engine.core.ladder import RUNGS
from tickcast.engine.core.tally import AE, BEFORE_LEVELS, COVERED, N
from tickcast.engine.records.as_json import JsonWriter
from tickcast.io.store import snapshot
from tickcast.io.store.store import Commit, Store
from tickcast.settings import load
from tickcast.symbols import SymbolTable

BEFORE = Path(__file__).parent / "before"
BARS = {"time": KINDS[1], "tick": KINDS[4]}
ROWS = {"time": (152, 133, 210), "tick": (146, 121, 155)}  # forecasts, scores, bars


def unpacked(name: str, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.decompress((BEFORE / f"{name}.gz").read_bytes()))
    return path


def published(running: Running) -> list[dict[str, Any]]:
    serving = running.serving
    writer = JsonWriter(serving.settings, serving.cards, list(RUNGS))
    found = []
    for outcome in running.outcomes:
        for forecasts in outcome.forecasts:
            sources = serving.engine.builder.sources()
            text = writer.encode(forecasts, serving.symbols, produced_ns=0, sources=sources)
            found += [
                msgspec.json.decode(text.data[a:b].tobytes()) for a, b in zip(text.starts, text.ends, strict=True)
            ]
    return found


@pytest.mark.parametrize("kind", BARS)
def test_an_older_snapshot_goes_on_as_the_version_that_wrote_it(tmp_path: Path, kind: str) -> None:
    settings, all_turns = small_settings(**BARS[kind]), turns(tape(3, 700), 3)
    unpacked(f"{kind}.snapshot", tmp_path / "state-00000001.snapshot")
    found = snapshot.newest_valid(tmp_path, settings, not_beyond=dict.fromkeys([("t", p) for p in range(3)], 10**9))
    assert found.state is not None, found.refused
    running = Running(settings)
    running.engine.resume(found.state)
    now = published(running.take(all_turns[len(all_turns) // 2 :]))
    then = [
        msgspec.json.decode(line)
        for line in gzip.decompress((BEFORE / f"{kind}.forecasts.gz").read_bytes()).splitlines()
    ]
    assert len(now) == len(then) > 50
    for ours, theirs in zip(now, then, strict=True):
        assert [name for name in ours if name in theirs] == [*theirs]  # others have come since
        near = 1e-6 * theirs["scale"] * abs(theirs["anchor"])
        assert all(same(ours[name], theirs[name], near=near) for name in theirs), (ours, theirs)


@pytest.mark.parametrize("kind", BARS)
def test_the_sums_of_an_older_snapshot_are_gone_on_with_and_look_no_surer_than_they_are(
    tmp_path: Path, kind: str
) -> None:
    settings = small_settings(**BARS[kind])
    unpacked(f"{kind}.snapshot", tmp_path / "state-00000001.snapshot")
    found = snapshot.newest_valid(tmp_path, settings, not_beyond=dict.fromkeys([("t", p) for p in range(3)], 10**9))
    assert found.state is not None, found.refused
    then = {name: found.state.arrays[f"score.tally.{name}"] for name in ("whole", "rolling", "current")}
    running = Running(settings)
    running.engine.resume(found.state)
    for window, sums in (("all", then["whole"].sum(axis=0)), ("rolling", then["rolling"].sum(axis=(0, 1)))):
        rows = running.engine.scorekeeper.accuracy(running.engine.newest_ns(), window=window)
        assert sum(row.n for row in rows) == (sums + then["current"].sum(axis=0))[:, N].sum() > 50
        assert all(row.insufficient and row.blocks == 0 for row in rows)
    keeper = running.engine.scorekeeper
    np.testing.assert_array_equal(keeper._tally.whole[..., AE], (then["whole"] + then["current"])[..., AE])
    levels = slice(COVERED, COVERED + then["whole"].shape[-1] - BEFORE_LEVELS)
    np.testing.assert_array_equal(
        keeper._tally.whole[..., levels], (then["whole"] + then["current"])[..., BEFORE_LEVELS:]
    )


@pytest.mark.parametrize("kind", BARS)
async def test_an_older_store_is_opened_read_and_written_to(tmp_path: Path, kind: str) -> None:
    path, options = unpacked(f"{kind}.store", tmp_path / "store.duckdb"), small_settings(**BARS[kind])
    bars = {"bars.kind": options.bars.kind, "bars.every_ms": "500", "bars.every_ticks": str(options.bars.every_ticks)}
    settings = load(overrides={"store.path": str(path), "forecast.horizon": "3", **bars}, environ={})[0]
    running = Running(options)
    store = Store.open(settings, symbols=running.serving.symbols, cards=running.serving.cards, at_ns=T0)
    try:
        positions = store.positions()
        counts = "SELECT (SELECT count(*) FROM forecasts), (SELECT count(*) FROM scores), (SELECT count(*) FROM bars)"
        assert (await store.query(counts)).rows == [ROWS[kind]]
        assert len(positions) == 3
        known = (await store.query("SELECT digest FROM models ORDER BY model")).rows
        restored = store.bars_tail(SymbolTable(32), 6)
        assert len(restored) > 20

        running.take(turns(tape(3, 700), 3))  # all of it: what is stored already is not stored twice
        rows = [
            [part for outcome in running.outcomes for part in getattr(outcome, name)]
            for name in ("forecasts", "scores", "bars")
        ]
        sources = running.engine.builder.sources()
        commit = Commit(*rows, offsets=dict(running.engine.positions), watermarks={}, sources=sources)
        await store.write(commit)
        for table in ("forecasts", "scores"):
            twice = f"SELECT count(*) - count(DISTINCT id) FROM {table}"
            assert (await store.query(twice)).rows == [(0,)]
        ((forecasts, _, closed),) = (await store.query(counts)).rows
        assert (forecasts, closed) == (sum(map(len, rows[0])), sum(map(len, rows[2])))
        assert (await store.query("SELECT digest FROM models ORDER BY model")).rows == known
    finally:
        await store.close()
