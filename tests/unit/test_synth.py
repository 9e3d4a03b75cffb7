"""The synthetic market: the same seed gives the same ticks, and its law is the one that it states."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tickcast.batch.synth import CYCLE_S, SECOND_NS, Market, json_messages, write
from tickcast.io.tape.tape import Tape
from tickcast.settings import load

START_NS = 1_700_000_000 * SECOND_NS


def ticks(seconds: float, **options: object) -> pl.DataFrame:
    market = Market(**{"seed": 7, "symbols": 8, "tick_rate_hz": 200.0, **options})  # type: ignore[arg-type]
    return market.ticks(market.start_ns + round(seconds * SECOND_NS))


def closes(frame: pl.DataFrame, symbol: str, seconds: int) -> np.ndarray:
    """Log closes of one-second bars."""
    of_symbol = frame.filter(pl.col("symbol") == symbol)
    second = (of_symbol["ts"].to_numpy() - START_NS) // SECOND_NS
    last = np.full(seconds, np.nan)
    last[second] = np.log(of_symbol["price"].to_numpy())
    return pl.Series(last).fill_nan(None).forward_fill().backward_fill().to_numpy()


def test_the_same_seed_gives_the_same_ticks() -> None:
    assert ticks(30).equals(ticks(30))
    assert not ticks(30).equals(ticks(30, seed=8))


def test_the_ticks_do_not_depend_on_how_they_are_asked_for() -> None:
    market = Market(seed=7, symbols=8, tick_rate_hz=200.0)
    steps = [0.0, 0.3, 9.999999, 10.0, 10.0, 10.1, 25.0, 40.0]
    parts = [market.ticks(market.start_ns + round(at * SECOND_NS)) for at in steps]
    assert pl.concat(parts).equals(ticks(40))
    assert (parts[0].height, parts[4].height) == (0, 0)


def test_ticks_are_in_time_order_positive_and_within_their_span() -> None:
    frame = ticks(60)
    assert frame["ts"].is_sorted()
    assert frame["ts"][0] >= START_NS
    assert frame["ts"][-1] < START_NS + 60 * SECOND_NS
    assert (frame["price"] > 0).all()
    assert (frame["size"] > 0).all()
    assert frame["symbol"].n_unique() == 8


def test_the_rate_is_as_asked_and_the_first_symbol_is_the_most_popular() -> None:
    frame = ticks(300)
    assert 0.6 < frame.height / (300 * 200) < 1.6  # the season and the regimes move it
    counts = frame.group_by("symbol").len().sort("symbol")["len"]
    assert counts[0] > 2 * counts[7]


def test_knowing_the_cycle_beats_the_last_value() -> None:
    seconds, ahead = 900, 12
    market = Market(seed=7, symbols=8, tick_rate_hz=200.0)
    frame = market.ticks(START_NS + seconds * SECOND_NS)
    ends = [START_NS + (k + 1) * SECOND_NS for k in range(seconds)]
    cycle = np.array([market.cycle(at) for at in ends])
    skills = []
    for index, symbol in enumerate(market.symbols):
        close = closes(frame, symbol, seconds)
        truth, known = close[ahead:] - close[:-ahead], cycle[ahead:, index] - cycle[:-ahead, index]
        skills.append(1 - np.abs(truth - known).mean() / np.abs(truth).mean())
    assert np.mean(skills) > 0.15


def test_a_drift_point_changes_the_law_and_nothing_before_it() -> None:
    changed, plain = (ticks(240, drift_points_s=points) for points in ((120.0,), ()))
    at = START_NS + 120 * SECOND_NS
    assert changed.filter(pl.col("ts") < at).equals(plain.filter(pl.col("ts") < at))
    assert not changed.filter(pl.col("ts") >= at).equals(plain.filter(pl.col("ts") >= at))
    market = Market(seed=7, drift_points_s=(120.0,))
    assert market.drift_points_ns == [at]
    assert CYCLE_S[market.law(at - 1)] != CYCLE_S[market.law(at)]


def test_volatility_rises_at_a_drift_point() -> None:
    frame = ticks(1200, drift_points_s=(600.0,))
    before, after = [], []
    for symbol in frame["symbol"].unique():
        moves = np.abs(np.diff(closes(frame, symbol, 1200)))
        before.append(np.median(moves[:590]))
        after.append(np.median(moves[610:]))
    assert np.mean(after) > 1.2 * np.mean(before)


def test_messages_hold_what_the_ticks_hold() -> None:
    frame = ticks(5)
    found = json_messages(frame)
    assert len(found) == frame.height
    for (symbol, text), row in zip(found[:200], frame.iter_rows(named=True), strict=False):
        assert symbol == row["symbol"]
        assert json.loads(text) == row


@pytest.mark.parametrize("name", ["m.parquet", "m.csv", "m.jsonl.gz"])
def test_a_written_market_is_a_tape(tmp_path: Path, name: str) -> None:
    written = write(tmp_path / name, symbols=8, seconds=20, seed=7, tick_rate_hz=200.0)
    tape = Tape(tmp_path / name, load(environ={})[0])
    assert sum(len(batch) for batch in tape) == written == ticks(20).height
