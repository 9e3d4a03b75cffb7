"""`tickcast check --data`: what is wrong with data and features is said, line by line; nothing is said of good ones."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from tickcast.batch.judge.data_check import Finding, check_data
from tickcast.columns import F64
from tickcast.settings import Settings, load
from tickcast.ui.check_data import print_data_check
from tickcast.ui.cli import main
from trainkit import walk

MINUTE_NS = 60 * 10**9
START_NS = 1_700_000_040 * 10**9
N = 600


def frame(close: F64, symbol: str = "A", **columns: Any) -> pl.DataFrame:
    """A file of bars of one minute."""
    opened = np.concatenate([close[:1], close[:-1]])
    return pl.DataFrame(
        {
            "symbol": [symbol] * len(close), "ts": np.arange(len(close)) * MINUTE_NS + START_NS,
            "open": opened, "high": np.maximum(opened, close), "low": np.minimum(opened, close), "close": close,
            "volume": np.random.default_rng(7).exponential(1.0, len(close)), **columns,
        }
    )  # fmt: skip


def settings(**sections: Any) -> Settings:
    return load(overrides={"bars.every_ms": "60000", "symbols.limit": "64", **sections}, environ={})[0]


def found(folder: Path, data: pl.DataFrame, features: str = "[]") -> dict[tuple[str, str], Finding]:
    """Findings by what was looked at and, of features, by channel."""
    path = folder / "bars.parquet"
    data.write_parquet(path)
    lines = check_data(settings(**{"features.set": features}), path)
    return {(line.check, line.subject): line for line in lines}


def verdicts(lines: dict[tuple[str, str], Finding]) -> dict[str, str]:
    worst: dict[str, str] = {}
    for (check, _), line in lines.items():
        worst[check] = max(worst.get(check, "a"), line.verdict, key=["a", "ok", "look", "bad"].index)
    return worst


def test_of_a_random_walk_nothing_is_said(tmp_path: Path) -> None:
    data = pl.concat([frame(walk(N, seed=1), "A"), frame(walk(N, seed=2), "B")]).sort("ts")
    lines = found(tmp_path, data, '[{kind = "rsi", period = 3}, {kind = "volume_ratio", window = 5}]')
    assert set(verdicts(lines).values()) == {"ok"}
    assert {channel for check, channel in lines if check == "leakage"} == {"target", "rsi_3", "volume_ratio_5"}


def test_gaps_stale_prices_and_refused_bars_are_counted_and_placed(tmp_path: Path) -> None:
    close = walk(N, seed=1)
    close[300:341] = close[300]
    data = frame(close).with_row_index().filter(~pl.col("index").is_between(100, 104)).drop("index")
    prices = {name: pl.when(pl.int_range(pl.len()) == 50).then(-1.0).otherwise(name).alias(name)
              for name in ("open", "high", "low", "close")}  # fmt: skip
    lines = found(tmp_path, data.with_columns(**prices))
    refused, gaps, stale = lines["refused ticks", "all"], lines["gaps", "A"], lines["stale prices", "A"]
    assert (refused.verdict, refused.measured) == ("look", "4 of 2,380, non_positive 4")
    assert (gaps.verdict, gaps.measured[:4]) == ("look", "1.0%"), "5 that are missing, and one that was refused"
    assert "in all 6 carried, 0 longer gaps" in gaps.measured
    assert (stale.verdict, stale.measured[:18]) == ("look", "40 bars unchanged ")
    assert "2023-11-15T03:15:00Z" in stale.measured, "the end of the bar that began at minute 300"


def test_a_bar_that_is_there_twice_is_bad(tmp_path: Path) -> None:
    data = frame(walk(N, seed=1))
    line = found(tmp_path, pl.concat([data, data[7:9]]))["duplicates", "all"]
    assert (line.verdict, line.measured) == ("bad", "2 bars repeat a time")


def test_ticks_that_are_there_twice_are_worth_a_look(tmp_path: Path) -> None:
    ticks = frame(walk(N, seed=1)).select("symbol", "ts", price="close", size="volume")
    line = found(tmp_path, pl.concat([ticks, ticks[:3]]).sort("ts"))["duplicates", "all"]
    assert (line.verdict, line.measured) == ("look", f"3 of {N + 3} ticks say what another says")


def test_a_spacing_that_is_not_that_of_the_deployment_is_bad(tmp_path: Path) -> None:
    bars = frame(walk(N, seed=1)).with_columns((pl.col("ts") - START_NS) * 3 + START_NS)
    line = found(tmp_path, bars)["spacing", "all"]
    assert (line.verdict, line.measured) == ("bad", "180 s in the file, 60 s in bars.every_ms")
    ticks = bars.select("symbol", "ts", price="close")
    lines = found(tmp_path, ticks)
    assert lines["spacing", "all"].verdict == "bad", "prices at even steps are told as bars are"
    uneven = ticks.with_columns(pl.col("ts") + pl.int_range(pl.len()) ** 2 % 7 * 10**9)
    assert ("spacing", "all") not in found(tmp_path, uneven)
    assert (lines["gaps", "A"].verdict, lines["gaps", "A"].measured[:5]) == ("bad", "66.6%")


def test_features_that_say_nothing_new_are_bad(tmp_path: Path) -> None:
    entries = """[{kind = "volume_ratio"}, {kind = "log_return"}, {kind = "rsi", period = 3}, {kind = "diff"}]"""
    lines = found(tmp_path, frame(walk(N, seed=1), volume=[0.0] * N), entries)
    assert lines["constant feature", "volume_ratio_24"].verdict == "bad"
    assert "with target" in lines["duplicate feature", "log_return_1"].measured
    assert lines["feature", "rsi_3"].verdict == "ok"


def test_a_column_that_knows_the_next_move_is_found(tmp_path: Path) -> None:
    close = walk(N, seed=1)
    following = np.append(np.diff(np.log(close)), 0.0)
    knowing = 1 + 200 * following + np.random.default_rng(1).normal(0, 0.2, N)
    data = pl.concat([frame(close, volume=np.maximum(knowing, 0)), frame(walk(N, seed=2), "B")]).sort("ts")
    lines = found(tmp_path, data, '[{kind = "volume_ratio", window = 5}, {kind = "rsi", period = 3}]')
    leak = lines["leakage", "volume_ratio_5"]
    assert leak.verdict == "bad"
    assert "next move of A" in leak.measured
    assert lines["leakage", "rsi_3"].verdict == lines["leakage", "target"].verdict == "ok"


def test_prices_that_were_smoothed_know_their_next_move(tmp_path: Path) -> None:
    close = np.convolve(walk(N + 4, seed=1), np.full(5, 0.2), "valid")
    assert found(tmp_path, frame(close))["leakage", "target"].verdict == "bad"


def test_one_wrong_day_is_no_leak(tmp_path: Path) -> None:
    close = walk(N, seed=1)
    close[200] /= 2
    assert found(tmp_path, frame(close))["leakage", "target"].verdict == "ok"


@pytest.mark.slow
def test_too_short_a_history_is_said_to_be(tmp_path: Path) -> None:
    lines = found(tmp_path, frame(walk(60, seed=1)), '[{kind = "rolling_mean", window = 90}]')
    assert lines["features", "all"].verdict == "bad"
    assert lines["leakage", "target"].verdict == "look"


def test_the_command_prints_a_table_and_its_exit_code_says_whether_a_line_is_bad(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = tmp_path / "good.parquet", tmp_path / "bad.csv"
    frame(walk(N, seed=1)).write_parquet(good)
    frame(np.full(N, 5.0)).write_csv(bad)
    arguments = ["--set", "bars.every_ms=60000", "--set", "symbols.limit=64"]
    assert main(["check", "--data", str(good), *arguments]) == 0
    assert main(["check", "--data", str(bad), *arguments]) == 1
    assert "constant feature" in capsys.readouterr().out
    assert main(["check", "--data", str(tmp_path / "none.csv"), *arguments]) == 78


@pytest.mark.slow
def test_real_bars_have_the_gaps_that_are_known_of_them(shared_data: Path) -> None:
    """Ten pairs of five minutes; the folder's README counts 17 gaps, the longest of 2 h 50 min."""
    data = shared_data / "bars" / "crypto_bittrex_5m_2018-01.parquet"
    columns = {"bars.every_ms": "300000", "codec.fields.ts": "date"}
    console = Console(file=io.StringIO(), width=200)
    deployment = settings(**columns, **{"features.set": '[{kind = "rsi"}, {kind = "anomaly_score"}]'})
    assert print_data_check(deployment, data, console)
    findings = check_data(deployment, data)
    lines = {line.check: line for line in findings}
    assert lines["duplicates"].verdict == "ok"
    assert lines["gaps"].verdict == "look"
    bounce = next(line for line in findings if (line.check, line.subject) == ("leakage", "target"))
    assert (bounce.verdict, bounce.measured[:6]) == ("look", "-0.301"), "prices there go to and fro"
    raw = pl.read_parquet(data).sort("symbol", "date")
    missing = raw.select((pl.col("date").diff().over("symbol").dt.total_minutes() // 5 - 1).sum()).item()
    assert f"in all {missing:,} carried" in lines["gaps"].measured
