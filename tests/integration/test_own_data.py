"""Data of a person's own: what does not fit the settings is refused with the line that helps, by every command."""

from datetime import UTC, datetime
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest

from tickcast.batch.bar_history import write_bars
from tickcast.errors import EXIT_DIED, EXIT_OK, EXIT_REFUSED
from tickcast.io.jobs.folder import Result
from tickcast.io.tape.tape import Tape
from tickcast.settings import load
from tickcast.ui.cli import main
from tickcast.ui.command_line import Doubts
from trainkit import walk

N, START_S = 300, 1_795_966_269
READING = ("replay", "load", "fit", "check")


def prices(n: int = N) -> pl.DataFrame:
    """Ticks at uneven moments of some seconds, times in ms."""
    steps = np.random.default_rng(3).integers(50, 900, n)
    return pl.DataFrame({"symbol": ["A"] * n, "ts": START_S * 1000 + np.cumsum(steps), "price": walk(n, seed=1)})


def bars(step_s: int, **names: str) -> pl.DataFrame:
    close = walk(N, seed=1)
    frame = {"symbol": ["A"] * N, "ts": (START_S // 3600 * 3600 + np.arange(N) * step_s) * 10**9}
    for name in ("open", "high", "low", "close"):
        frame[names.get(name, name)] = close
    return pl.DataFrame(frame)


def run(command: str, data: Path, *sets: str, model: Path | None = None) -> int:
    folder = data.parent
    out = {"fit": ["--out", str(folder / "model"), "--model", "ar"]}
    out |= {each: ["--out", str(folder / "out")] for each in ("replay", "backtest", "evaluate", "optimize")}
    deployment = ["window.lookback=4", "forecast.horizon=2", f"store.path={folder / 's.duckdb'}", *sets]
    deployment += [f"runtime.folder={folder / 'run'}", "symbols.limit=16"]
    flags = [part for setting in deployment for part in ("--set", setting)]
    flags += ["--model", str(model)] if model else []
    return main([command, "--data", str(data), *out.get(command, []), *flags])


@pytest.mark.parametrize("command", READING)
def test_a_wrong_unit_is_named_with_the_setting_that_helps(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "ticks.csv"
    frame = prices()
    frame.write_csv(data)
    assert run(command, data) == EXIT_REFUSED
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"{N} of {N} ticks were refused (wrong_unit)" in error
    assert f"{frame['ts'][0]} looks like milliseconds: set codec.time_unit = 'ms'" in error


def with_refused(folder: Path, refused: int) -> Path:
    """A file of ticks, so many of which have times in ms, but not the first."""
    frame = prices().with_columns(pl.col("ts") * 10**6)
    bad = 1 + np.random.default_rng(5).permutation(N - 1)[:refused]
    frame.with_columns(ts=pl.when(pl.arange(N).is_in(bad)).then(pl.col("ts") // 10**6).otherwise("ts")).write_csv(
        folder / "ticks.csv"
    )
    return folder / "ticks.csv"


def stored(data: Path) -> tuple[int, int]:
    """Bars and dead letters."""
    with duckdb.connect(str(data.parent / "s.duckdb"), read_only=True) as store:
        counted = (store.execute(f"SELECT count(*) FROM {table}").fetchone() for table in ("bars", "dead_letters"))
        bars, letters = (0 if row is None else int(row[0]) for row in counted)
    return bars, letters


@pytest.mark.slow
@pytest.mark.parametrize("command", ["replay", "load", "check", "backtest"])
def test_where_most_was_refused_the_work_is_done_but_does_not_end_with_0(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = with_refused(tmp_path, 180)
    assert run(command, data) == EXIT_DIED
    said = capsys.readouterr()
    assert "180 of 300" in (said.out if command == "check" else said.err)
    assert "set codec.time_unit" in said.out + said.err
    assert command != "replay" or (tmp_path / "out" / "report.html").exists()
    assert command != "load" or (stored(data)[0] > 50 and f"{stored(data)[0]} bars stored" in said.out)


@pytest.mark.slow
def test_a_model_is_judged_on_the_rest_and_the_command_ends_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("fit", with_refused(tmp_path, 0)) == EXIT_OK
    assert run("evaluate", with_refused(tmp_path, 180), model=tmp_path / "model") == EXIT_DIED
    said = capsys.readouterr()
    assert "180 of 300 ticks were refused (wrong_unit)" in said.err
    assert "the page is" in said.out


def test_a_search_is_told_before_it_begins_and_ends_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search itself is left out: it would take half a minute, and many bars more."""
    monkeypatch.setattr("tickcast.batch.by_hand.run_folder.train", lambda *_, **__: Result(ok=True))
    monkeypatch.setattr("tickcast.ui.optimize_command.show", lambda *_: None)
    assert run("optimize", with_refused(tmp_path, 180)) == EXIT_DIED
    assert "180 of 300 ticks were refused (wrong_unit)" in capsys.readouterr().err


def test_a_fit_is_told_before_it_begins_and_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, doubts = with_refused(tmp_path, 180), Doubts()
    settings, _ = load(overrides={"window.lookback": "4", "symbols.limit": "16"}, environ={})
    write_bars(settings, data, tmp_path / "bars.parquet", symbols=None, warn=doubts)
    assert "180 of 300 ticks were refused (wrong_unit)" in capsys.readouterr().err
    assert doubts.exit_code == EXIT_DIED
    assert pl.read_parquet(tmp_path / "bars.parquet").height > 50


@pytest.mark.parametrize("command", ["replay", "load"])
def test_where_most_was_taken_nobody_is_warned(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command, with_refused(tmp_path, 140)) == EXIT_OK
    assert "most was refused" not in capsys.readouterr().err


def test_of_a_file_that_is_refused_nothing_is_stored(tmp_path: Path) -> None:
    data = with_refused(tmp_path, 280)
    assert run("load", data) == EXIT_REFUSED
    assert stored(data) == (0, 0)


def test_what_a_calendar_leaves_out_is_not_held_against_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "ticks.csv"
    prices().write_csv(data)
    calendar = tmp_path / "hours.toml"
    day = datetime.fromtimestamp(START_S, tz=UTC).strftime("%a").lower()
    calendar.write_text(f'zone = "UTC"\n[hours]\n{day} = ["15:32-15:33"]\n')
    assert run("load", data, "codec.time_unit=ms", f"bars.calendar={calendar}") == EXIT_OK, capsys.readouterr().err
    assert 50 < stored(data)[0] <= 60


@pytest.mark.parametrize("command", ["replay", "load"])
def test_with_the_right_unit_the_same_file_is_read(command: str, tmp_path: Path) -> None:
    data = tmp_path / "ticks.csv"
    prices().write_csv(data)
    assert run(command, data, "codec.time_unit=ms") == EXIT_OK


@pytest.mark.parametrize("command", READING)
@pytest.mark.parametrize("kind", ["bars", "prices"])
def test_hourly_data_and_bars_of_a_second_are_told_apart(
    kind: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, frame = tmp_path / "hours.parquet", bars(3600)
    (frame if kind == "bars" else frame.select("symbol", "ts", price="close")).write_parquet(data)
    expected = EXIT_DIED if command == "check" else EXIT_REFUSED  # a finding of several there
    assert run(command, data, "bars.every_ms=60000") == expected
    said = capsys.readouterr()
    assert "bars.every_ms=3600000" in said.out + said.err
    if command in ("replay", "load"):
        assert run(command, data, "bars.every_ms=3600000") == EXIT_OK


def test_ticks_at_uneven_steps_may_be_further_apart_than_a_bar(tmp_path: Path) -> None:
    data = tmp_path / "ticks.csv"
    prices(50).write_csv(data)
    assert run("load", data, "codec.time_unit=ms", "bars.every_ms=20") == EXIT_OK


YAHOO = {"open": "Open", "high": "High", "low": "Low", "close": "Close"}


def test_columns_of_bars_count_in_any_case_and_are_never_a_price(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "yahoo.csv"
    bars(60, **YAHOO).write_csv(data)
    settings, _ = load(overrides={"bars.every_ms": "60000"}, environ={})
    assert Tape(data, settings).kind == "bars"
    assert run("load", data, "bars.every_ms=60000") == EXIT_OK
    assert run("load", data, "bars.every_ms=60000", "codec.fields.price=Close") == EXIT_REFUSED
    assert "leave codec.fields.price out" in capsys.readouterr().err


def test_the_nameless_index_of_pandas_is_left_out_or_goes_by_a_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers, times = tmp_path / "numbers.csv", tmp_path / "times.csv"
    frame = bars(60)
    numbers.write_text(frame.with_row_index("").write_csv())
    times.write_text(frame.select(pl.col("ts").alias(""), "open", "high", "low", "close").write_csv())
    for data, fields in ((numbers, []), (times, ["codec.fields.ts=index"])):
        assert run("load", data, "bars.every_ms=60000", *fields) == EXIT_OK
    assert run("load", times, "bars.every_ms=60000") == EXIT_REFUSED
    assert "it has: close, high, index, low, open" in capsys.readouterr().err


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators_are_read(separator: str, tmp_path: Path) -> None:
    data = tmp_path / "ticks.csv"
    prices().write_csv(data, separator=separator)
    assert run("load", data, "codec.time_unit=ms") == EXIT_OK


@pytest.mark.parametrize(("model", "says"), [("nosuch", "tickcast kinds"), ("nhits", "tickcast fit --model nhits")])
def test_a_model_that_is_neither_rung_nor_folder_names_the_rungs(
    model: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "ticks.csv"
    prices().write_csv(data)
    assert run("replay", data, "codec.time_unit=ms", f"model.default={model}") == EXIT_REFUSED
    error = capsys.readouterr().err
    assert "naive, seasonal, holt" in error
    assert says in error


@pytest.mark.slow
def test_two_venues_of_one_name_in_a_folder_are_told_and_files_that_follow_are_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both, after, frame = tmp_path / "both", tmp_path / "after", prices()
    for folder, parts in ((both, (frame, frame)), (after, (frame.head(170), frame.tail(150)))):
        folder.mkdir()
        for name, part in zip(("spot", "usdm"), parts, strict=True):
            part.write_csv(folder / f"{name}.csv")
    told = "A is in spot.csv and in usdm.csv over the same time"
    for folder in (both, after):
        for command in ("replay", "check"):
            run(command, folder, "codec.time_unit=ms")
            said = " ".join(capsys.readouterr().out.split())
            assert (told.removeprefix("A ") in said) == (folder == both)
