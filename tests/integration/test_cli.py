"""The command line from end to end: what each command leaves behind, and how it refuses."""

import json
import re
from pathlib import Path

import polars as pl
import pytest

from modelkit import COMMON, QUICK, SECOND, Fitted
from tickcast.errors import EXIT_OK, EXIT_REFUSED
from tickcast.ui.cli import main

START_NS = 1_700_000_000 * SECOND
USAGE = 2


def sets(folder: Path, **overrides: object) -> list[str]:
    """--set flags of a deployment in `folder`."""
    paths = {"store.path": folder / "s.duckdb", "runtime.folder": folder / "run"}
    merged = {**COMMON, **paths, **{key.replace("__", "."): value for key, value in overrides.items()}}
    return [part for key, value in merged.items() for part in ("--set", f"{key}={value}")]


def synth(path: Path, *, seconds: int = 60) -> Path:
    assert main(["synth", "--out", str(path), "--symbols", "4", "--seconds", str(seconds), "--seed", "2"]) == EXIT_OK
    return path


def test_synth_replay_and_query_of_what_a_run_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tape, out = synth(tmp_path / "ticks.csv.gz"), tmp_path / "out"
    assert main(["replay", "--data", str(tape), "--out", str(out), "--chunk", "5000", *sets(tmp_path)]) == EXIT_OK
    left = {file.name for file in out.iterdir()}
    assert left >= {"report.json", "report.html", "forecasts.parquet", "scores.parquet", "replay.duckdb"}
    report = json.loads((out / "report.json").read_text())
    assert report["consumed"] == report["accepted"] > 20_000
    assert report["forecasts"] == pl.read_parquet(out / "forecasts.parquet").height > 100
    capsys.readouterr()
    sql = "SELECT count(*) AS rows, count(DISTINCT id) AS ids FROM forecasts"
    assert main(["query", sql, *sets(out, store__path=out / "replay.duckdb")]) == EXIT_OK
    assert re.findall(r"\d+", capsys.readouterr().out)[:2] == [str(report["forecasts"])] * 2


def test_from_to_and_symbols_cut_the_tape_and_set_steers_the_run(tmp_path: Path) -> None:
    tape, out = synth(tmp_path / "ticks.parquet"), tmp_path / "out"
    cut = ["--from", "2023-11-14T22:13:30Z", "--to", "2023-11-14T22:14:00.5Z", "--symbols", "SYN0, SYN2"]
    every = ["--set", "bars.every_ms=500", "--model", "holt"]
    assert main(["replay", "--data", str(tape), "--out", str(out), *sets(tmp_path), *cut, *every]) == EXIT_OK
    bars, forecasts = pl.read_parquet(out / "bars.parquet"), pl.read_parquet(out / "forecasts.parquet")
    assert set(bars["symbol"]) == {"SYN0", "SYN2"}
    assert bars["as_of_ns"].min() == START_NS + 10 * SECOND + SECOND // 2
    assert bars["as_of_ns"].max() == START_NS + 40 * SECOND
    assert (bars.sort("symbol", "as_of_ns")["as_of_ns"].diff().slice(1, 10) == SECOND // 2).all()
    assert set(forecasts["model"]) == {"naive", "holt"}
    ticks = pl.read_parquet(tape).filter(
        pl.col("symbol").is_in(["SYN0", "SYN2"]),
        pl.col("ts") >= START_NS + 10 * SECOND,
        pl.col("ts") < START_NS + 40 * SECOND + SECOND // 2,
    )
    assert json.loads((out / "report.json").read_text())["consumed"] == ticks.height


def test_load_fills_the_store_once_however_often_it_is_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tape = synth(tmp_path / "ticks.jsonl")
    counts = []
    for _ in range(2):
        capsys.readouterr()
        assert main(["load", "--data", str(tape), *sets(tmp_path)]) == EXIT_OK
        assert "bars stored" in capsys.readouterr().out
        assert main(["query", "SELECT count(*) FROM bars", *sets(tmp_path)]) == EXIT_OK
        counts.append(re.findall(r"\d+", capsys.readouterr().out)[-1])
    assert counts[0] == counts[1]
    assert int(counts[0]) >= 4 * 58


def test_check_prints_each_value_with_its_origin(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--set", "bars.every_ms=250"]) == EXIT_OK
    shown = capsys.readouterr().out
    (line,) = [line for line in shown.splitlines() if "every_ms" in line]
    assert "250" in line
    assert "command line" in line


@pytest.mark.slow
@pytest.mark.usefixtures("cold_workers")
def test_fit_then_replay_with_the_fitted_model(
    fitted: Fitted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "history.parquet", tmp_path / "model"
    fitted.history.write_parquet(data)
    params = [part for key, value in QUICK.items() for part in ("--param", f"{key}={value}")]
    deployment = sets(tmp_path, bars__every_ms=2000)
    fit = ["fit", "--data", str(data), "--out", str(out), "--symbols", "SYN0,SYN1,SYN3", "--name", "mine"]
    assert main([*fit, *params, *deployment]) == EXIT_OK
    assert str(out) in capsys.readouterr().out
    assert not [*(tmp_path / "run" / "jobs").iterdir()]
    assert json.loads((out / "card.json").read_text())["name"] == "mine"
    replay = ["replay", "--data", str(fitted.tape), "--model", str(out), "--out", str(tmp_path / "r"), *deployment]
    assert main(replay) == EXIT_OK
    assert "mine" in set(pl.read_parquet(tmp_path / "r" / "forecasts.parquet")["model"])
    assert main([*replay, "--set", "bars.every_ms=1000"]) == EXIT_REFUSED
    assert "every_ms" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["check", "--set", "bars.evry_ms=1"], "bars.evry_ms: unknown setting"),
        (["check", "--set", "bars.every_ms=0"], "bars.every_ms"),
        (["check", "--set", "every"], "'every' is not of the form"),
        (["check", "--config", "{}/no.toml"], "no.toml"),
        (["run", "--set", "model.default={}/no-model"], "no-model"),
        (["run", "--set", "bars.calendar={}/no-hours.toml"], "no-hours.toml"),
        (["run", "--set", 'features.set=[{kind="nonsense"}]'], "nonsense"),
        (["run", "--set", 'features.set=[{kind="rsi",period=0}]'], "period"),
        (["replay", "--data", "{}/no.parquet", "--out", "{}/o"], "no.parquet"),
        (["load", "--data", "{}/no.csv"], "no.csv"),
        (["fit", "--data", "{}/no.csv", "--out", "{}/o"], "no.csv"),
        (["fit", "--data", "{}/no.csv", "--param", "epochs=none"], "epochs"),
        (["query", "SELECT 1", "--set", "store.path={}/no.duckdb"], "no.duckdb"),
    ],
)
def test_what_cannot_be_done_is_refused_with_78_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    given = [argument.replace("{}", str(tmp_path)) for argument in arguments]
    paths = ["--set", f"runtime.folder={tmp_path / 'run'}"]
    if not any("store.path" in argument for argument in given):
        paths += ["--set", f"store.path={tmp_path / 's.duckdb'}"]
    assert main([*given, *paths]) == EXIT_REFUSED
    error = capsys.readouterr().err
    assert error.startswith("tickcast: ")
    assert says in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["replay"],
        ["replay", "--data", "x", "--chunk", "0"],
        ["replay", "--data", "x", "--speed", "fast"],
        ["replay", "--data", "x", "--from", "yesterday"],
        ["fit", "--data", "x", "--split", "half"],
        ["synth", "--out", "x.csv", "--symbols", "-1"],
    ],
)
def test_bad_arguments_end_with_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == USAGE
    assert "usage: tickcast" in capsys.readouterr().err
