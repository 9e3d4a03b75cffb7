"""A walk through history: fits see what was there, trades follow what was said, figures follow from the files."""

import asyncio
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from tickcast.batch.backtest.backtest import backtest
from tickcast.batch.bar_history import write_bars
from tickcast.batch.by_hand.fit import fit
from tickcast.batch.replay import ReplayOrder
from tickcast.errors import BadData, BadModel, BadRequest, BadSettings
from tickcast.io.jobs.folder import BARS, ORDER
from tickcast.io.jobs.orders import BacktestOrder, Retrain
from tickcast.io.jobs.prepare import fit_order
from tickcast.settings import Settings, load
from tickcast.ui import backtest_command
from trainkit import Progress, autoregressive, without_children

pytestmark = pytest.mark.slow

MINUTE = 60 * 10**9
T0 = 1_700_000_040 * 10**9
N = 700
NAMES = ("A", "B")
LOOKBACK, HORIZON = 16, 2
EASY = BacktestOrder(fee_bps=0.5, slippage_bps=0.0, draws=100, tosses=10)


def deployment(folder: Path, **overrides: object) -> Settings:
    values = {
        "bars.every_ms": 60_000, "window.lookback": LOOKBACK, "forecast.horizon": HORIZON, "symbols.limit": 8,
        "forecast.quantiles": "[0.1, 0.5, 0.9]", "store.path": folder / "s.duckdb", "runtime.folder": folder / "run",
        "model.default": "holt", **{key.replace("__", "."): value for key, value in overrides.items()},
    }  # fmt: skip
    return load(overrides={key: str(value) for key, value in values.items()}, environ={})[0]


def bar_file(path: Path, *, wild_after: int | None = None) -> Path:
    """Minutes of two symbols whose moves turn back; beyond a minute all prices may be others, at the same times."""
    frames = []
    for seed, name in enumerate(NAMES):
        close = autoregressive(N, seed=seed)
        if wild_after is not None:
            wild = np.random.default_rng(seed).uniform(0.9, 1.1, N)
            close = np.where(np.arange(N) > wild_after, close * wild, close)
        opens = np.concatenate([close[:1], close[:-1]])
        frames.append(pl.DataFrame({
            "symbol": name, "ts": T0 + np.arange(N) * MINUTE, "open": opens, "close": close,
            "high": np.maximum(opens, close), "low": np.minimum(opens, close), "volume": 1.0,
        }))  # fmt: skip
    pl.concat(frames).write_parquet(path)
    return path


def walk(folder: Path, data: Path, order: BacktestOrder = EASY, **overrides: object) -> dict[str, Any]:
    out = folder / "out"
    found = asyncio.run(backtest(deployment(folder, **overrides), ReplayOrder(data, out), order, Progress()))
    backtest_command.write_page(out, found)
    return found


RETRAIN = Retrain(every_bars=250, kind="ar", params={"rows": 500})


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("walks")


@pytest.fixture(scope="module")
def retrained(folders: Path) -> dict[str, Any]:
    data = bar_file(folders / "bars.parquet")
    with without_children():
        return walk(folders / "one", data, msgspec.structs.replace(EASY, retrain=RETRAIN))


def test_each_fit_sees_only_bars_before_it_serves_and_no_forecast_is_in_sample(
    retrained: dict[str, Any], folders: Path
) -> None:
    fits, out = retrained["fits"], folders / "one" / "out"
    assert len(fits) == 2
    forecasts = pl.read_parquet(out / "forecasts.parquet")
    served = forecasts.filter(pl.col("model").str.starts_with("ar-"))
    assert retrained["traded_models"] == ["ar-1", "ar-2"]
    for number, made in enumerate(fits, start=1):
        assert made["trained_to_ns"] < made["at_ns"] <= made["serves_from_ns"]
        own = served.filter(model=f"ar-{number}")
        assert own.height > 100
        assert own["as_of_ns"].min() >= made["serves_from_ns"] - MINUTE
        assert made["bars"] <= 2 * (made["at_ns"] - T0) / MINUTE + 2
    assert not served["in_sample"].any()
    assert not (out / "fits" / "fit-1" / BARS).exists()


def test_the_forecasts_of_a_process_that_can_be_known_have_skill_and_earn(retrained: dict[str, Any]) -> None:
    assert retrained["skill"]["headline"]["skill_low"] > 0
    own = retrained["strategy"]
    assert own["sharpe_low"] > 0
    assert own["return"] < retrained["before_costs"]["return"]
    assert own["trades"] > 50
    assert retrained["random_signs"]["as_good"] == 0.0
    assert retrained["bars_per_year"] == 525_960.0


def test_the_figures_follow_from_the_files_by_a_plain_loop(retrained: dict[str, Any], folders: Path) -> None:
    out = folders / "one" / "out"
    bars = pl.read_parquet(out / "bars.parquet").filter(mask=1)
    forecasts = pl.read_parquet(out / "forecasts.parquet").filter(pl.col("model").str.starts_with("ar-"))
    said = {(row["symbol"], row["as_of_ns"]): row["point"][1] / row["anchor"] - 1 for row in forecasts.to_dicts()}
    ways: dict[int, list[float]] = {}
    for name in NAMES:
        rows = bars.filter(symbol=name).sort("as_of_ns").to_dicts()
        signs, held, begun = [0.0, 0.0], 0.0, False
        for row, following in pairwise(rows):
            move = said.get((name, row["as_of_ns"]))
            begun |= move is not None
            signs.append(0.0 if move is None or abs(move) <= 1e-4 else float(np.sign(move)))
            wanted = (signs[-1] + signs[-2]) / 2
            factor = 1 + held * (following["open"] / row["close"] - 1)
            factor *= 1 - abs(wanted - held) * 0.5e-4
            factor *= 1 + wanted * (following["close"] / following["open"] - 1)
            held = wanted
            if begun:
                ways.setdefault(following["as_of_ns"], []).append(factor - 1)
    equity = pl.read_parquet(out / "equity.parquet")
    assert equity["as_of_ns"].to_list() == sorted(ways)
    np.testing.assert_allclose(equity["return"].to_numpy(), [sum(ways[at]) / 2 for at in sorted(ways)], atol=1e-12)
    assert retrained["strategy"]["return"] == pytest.approx(equity["equity"][-1] - 1)
    trades = pl.read_parquet(out / "trades.parquet").filter(pl.col("left_ns") >= 0)
    assert retrained["strategy"]["trades"] == trades.height
    assert (trades["decided_ns"] <= trades["entered_ns"]).all()
    written = json.loads((out / "backtest.json").read_text())
    assert written["strategy"] == retrained["strategy"]
    page = (out / "backtest.html").read_text()
    assert page.count("<svg") == 2 * 3  # once more for a phone
    assert "http" not in page.replace("http-equiv", "")


def test_changing_all_prices_after_a_moment_changes_nothing_up_to_it(retrained: dict[str, Any], folders: Path) -> None:
    turn, end = 450, 490
    changed = bar_file(folders / "wild.parquet", wild_after=turn)
    history = ReplayOrder(changed, folders / "other" / "out", to_ns=T0 + end * MINUTE)
    order = msgspec.structs.replace(EASY, retrain=RETRAIN)
    with without_children():
        other = asyncio.run(backtest(deployment(folders / "other"), history, order, Progress()))
    moment = T0 + (turn + 1) * MINUTE  # where the last unchanged bar ends
    assert other["fits"] == retrained["fits"][:1]
    for name, at in (("forecasts", "as_of_ns"), ("equity", "as_of_ns"), ("trades", "left_ns")):
        one, two = (pl.read_parquet(folders / run / "out" / f"{name}.parquet") for run in ("one", "other"))
        one, two = (frame.drop("id", strict=False) for frame in (one, two))  # a card says what its fit cost
        past, later = pl.col(at).is_between(0, moment), pl.col(at).is_between(moment + 1, T0 + (end - 5) * MINUTE)
        assert one.filter(past).height > 20
        assert one.filter(past).equals(two.filter(past), null_equal=True)
        assert not one.filter(later).equals(two.filter(later), null_equal=True)


def test_a_given_model_is_not_traded_in_the_span_it_was_trained_on(tmp_path: Path) -> None:
    data, settings = bar_file(tmp_path / "bars.parquet"), deployment(tmp_path)
    first = tmp_path / "first.parquet"
    pl.read_parquet(data).filter(pl.col("ts") < T0 + 450 * MINUTE).write_parquet(first)
    fit(settings, first, tmp_path / "model", order=fit_order(settings, kind="ar", name="m", params={}))
    found = walk(tmp_path, data, model__default=tmp_path / "model")
    trained_to = json.loads((tmp_path / "model" / "card.json").read_text())["trained_to_ns"]
    equity = pl.read_parquet(tmp_path / "out" / "equity.parquet")
    assert found["in_sample_bars"] > 500
    assert equity["as_of_ns"].min() == trained_to + 2 * MINUTE  # decided one bar after the span, filled in the next
    assert pl.read_parquet(tmp_path / "out" / "trades.parquet")["decided_ns"].min() > trained_to
    assert found["skill"]["in_sample"]["labels"] > 500
    assert found["from_ns"] == equity["as_of_ns"].min()


def test_the_job_finds_what_the_shell_finds(tmp_path: Path) -> None:
    data, settings = bar_file(tmp_path / "bars.parquet"), deployment(tmp_path)
    shorter = tmp_path / "shorter.parquet"  # the last bar of a replay is never closed: the job's loses one more
    pl.read_parquet(data).filter(pl.col("ts") < T0 + (N - 1) * MINUTE).write_parquet(shorter)
    shell = walk(tmp_path / "shell", shorter)
    folder = tmp_path / "job"
    folder.mkdir()
    write_bars(settings, data, folder / BARS, symbols=None)
    order = msgspec.structs.replace(EASY, settings=settings.model_dump(mode="json"))
    (folder / ORDER).write_bytes(msgspec.json.encode(order))
    progress = Progress()
    found = backtest_command.run(folder, progress)
    assert found["strategy"] == shell["strategy"]
    assert found["skill"] == shell["skill"]
    assert (found["title"], shell["title"]) == ("Backtest of tape.parquet", "Backtest of shorter.parquet")
    assert (folder / found["folder"] / "backtest.html").is_file()
    assert progress.lines[-1]["steps"] >= progress.lines[-1]["step"]
    for broken, error in (
        ({"settings": {"bars": {"kind": "tick"}}}, BadRequest), ({"settings": {"nonsense": 1}}, BadSettings),
        ({"settings": {"model": {"default": "out/model"}}}, BadRequest), ({"fee": 1}, BadSettings),
    ):  # fmt: skip
        (folder / ORDER).write_text(json.dumps(broken))
        with pytest.raises(error):
            backtest_command.run(folder, progress)


def test_what_cannot_be_walked_is_refused_with_a_remedy(tmp_path: Path) -> None:
    data = bar_file(tmp_path / "bars.parquet")
    with pytest.raises(BadRequest, match="horizon 9 is beyond"):
        walk(tmp_path, data, BacktestOrder(horizon=9))
    few = tmp_path / "few.parquet"
    pl.read_parquet(data).filter(pl.col("ts") < T0 + 5 * MINUTE).write_parquet(few)
    with pytest.raises(BadData, match="of 40 ticks 40 were accepted, and 8 bars closed"):
        walk(tmp_path, few)
    never = BacktestOrder(retrain=Retrain(every_bars=10_000, kind="ar"))
    with pytest.raises(BadModel, match="no fit of the walk served: the history ended"):
        walk(tmp_path, data, never)
    starved = BacktestOrder(retrain=Retrain(every_bars=400, kind="ar", keep_bars=20))
    with pytest.raises(BadModel, match="without a window"):
        walk(tmp_path, data, starved)
    shifted = tmp_path / "shifted.parquet"
    prices = pl.col("open", "high", "low", "close") - 200
    pl.read_parquet(data).with_columns(prices).write_parquet(shifted)
    with pytest.raises(BadData, match="not positive"):
        walk(tmp_path, shifted, forecast__transform="difference")


def test_a_symbol_that_is_never_traded_leaves_the_others_their_trades(tmp_path: Path) -> None:
    still = pl.when(pl.col("symbol") == "A").then(100.0).otherwise(pl.col("open", "high", "low", "close")).name.keep()
    data = tmp_path / "bars.parquet"
    pl.read_parquet(bar_file(data)).with_columns(still).write_parquet(data)
    found = walk(tmp_path, data)
    trades = pl.read_parquet(tmp_path / "out" / "trades.parquet")
    assert set(trades["symbol"]) == {"B"}
    assert trades.filter(pl.col("left_ns") >= 0).height == found["strategy"]["trades"] > 0


def test_a_walk_that_is_told_to_stop_reports_what_it_has(tmp_path: Path) -> None:
    data = bar_file(tmp_path / "bars.parquet")
    order = ReplayOrder(data, tmp_path / "out", chunk=400)
    found = asyncio.run(backtest(deployment(tmp_path), order, EASY, Progress(enough=6)))
    whole = walk(tmp_path / "whole", data)
    assert 0 < found["moments"] < whole["moments"]
