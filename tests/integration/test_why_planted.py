"""A market whose gaps and bursts lie in known places, through the engine: they are named, by files and by store."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from storekit import open_store
from tickcast.batch.replay import ReplayOrder, in_folder
from tickcast.causes import NEAR_BARS, sentences
from tickcast.io.store.postmortems import Looked
from tickcast.settings import Settings, load
from tickcast.ui.replay_command import replay_and_report

SECOND, T0 = 10**9, 1_700_000_000 * 10**9
SYMBOLS, BARS = 6, 1500


def market(seed: int, *, after_gap: float, burst: float) -> pl.DataFrame:
    """A tick a second for each symbol. Each has gaps of 3 s of its own, and a burst of 60 bars in every 300."""
    draw = np.random.default_rng(seed)
    frames = []
    for code in range(SYMBOLS):
        size, there = np.ones(BARS), np.ones(BARS, bool)
        gaps = np.arange(100 + 17 * code, BARS - 50, 97)
        for gap in gaps:
            there[gap : gap + 3] = False
            size[gap + 4 : gap + 4 + NEAR_BARS] = after_gap
        for begin in range(200 + 37 * code, BARS, 300):
            size[begin : begin + 60] *= burst
        price = 100 * np.exp(1e-4 * np.cumsum(size * draw.normal(size=BARS)))
        ts = T0 + SECOND * np.arange(BARS) + 1
        frames.append(pl.DataFrame({"symbol": f"S{code}", "ts": ts, "price": price}).filter(pl.Series(there)))
    return pl.concat(frames).sort("ts", "symbol")


async def reported(folder: Path, **planted: float) -> tuple[dict[str, Any], Settings]:
    """What the report says of why, and where its store is."""
    market(7, **planted).write_parquet(folder / "ticks.parquet")
    given = {
        "window.lookback": "48", "forecast.horizon": "4", "codec.fields.size": "", "model.default": "naive",
        "runtime.folder": str(folder / "run"),
    }  # fmt: skip
    settings = in_folder(load(overrides=given, environ={})[0], folder / "out")
    await replay_and_report(settings, ReplayOrder(folder / "ticks.parquet", folder / "out"))
    report: dict[str, Any] = json.loads((folder / "out" / "report.json").read_text())
    return report["why"], settings


@pytest.mark.slow
async def test_planted_gaps_are_named_with_their_share_and_the_store_says_the_same(tmp_path: Path) -> None:
    told, settings = await reported(tmp_path, after_gap=2.0, burst=1.0)
    assert "after_gap" in sentences(told["causes"])
    bars = pl.read_parquet(tmp_path / "out" / "bars.parquet").sort("symbol", "ordinal")
    ended = pl.col("mask").cast(bool) & ~pl.col("mask").shift(1).over("symbol").cast(bool)
    since = pl.int_range(pl.len()) - pl.when(ended).then(pl.int_range(pl.len())).forward_fill()
    near = bars.select("symbol", "as_of_ns", near=(since.over("symbol") < NEAR_BARS).fill_null(value=False))
    scores = pl.read_parquet(tmp_path / "out" / "scores.parquet").join(near, on=["symbol", "as_of_ns"])
    loss = scores["loss"].list.get(0).to_numpy()
    known = np.isfinite(loss)
    worst, has = loss[known] > np.quantile(loss[known], 0.9), scores["near"].to_numpy()[known]
    row = next(row for row in told["causes"] if (row["cause"], row["step"]) == ("after_gap", 1))
    assert (row["n"], row["having"], row["worst_having"]) == (known.sum(), has.sum(), (worst & has).sum())
    assert row["lift"] > 2
    store = open_store(settings, cards=[])
    found = await store.why(Looked(0, 1 << 62, [], log_return=True))
    assert found["forecasts"] == told["forecasts"] == scores.height
    for name in ("causes", "regimes"):
        assert len(found[name]) == len(told[name]) > 3
        for ours, theirs in zip(found[name], told[name], strict=True):
            assert {key: value for key, value in ours.items() if not isinstance(value, float)} == {
                key: value for key, value in theirs.items() if not isinstance(value, float)
            }
            assert [value for value in ours.values() if isinstance(value, float)] == pytest.approx(
                [value for value in theirs.values() if isinstance(value, float)], rel=1e-5
            )
    await store.close()


@pytest.mark.slow
async def test_planted_bursts_are_wild_and_a_market_without_a_cause_names_none(tmp_path: Path) -> None:
    for name, planted in (("wild", {"after_gap": 1.0, "burst": 5.0}), ("", {"after_gap": 1.0, "burst": 1.0})):
        (tmp_path / name).mkdir(exist_ok=True)
        told, _ = await reported(tmp_path / name, **planted)
        regimes = {row["regime"]: row["n"] for row in told["regimes"] if row["step"] == 1}
        if name:
            assert 0.1 < regimes["wild"] / sum(regimes.values()) < 0.3
            assert "wild" in sentences(told["causes"])
        else:
            assert regimes["normal"] > 0.97 * sum(regimes.values())
            assert sentences(told["causes"]) == {}
