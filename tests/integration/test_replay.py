"""Replay with a fitted net: the same whatever the chunks, blind to the future, honest about what it was trained on."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from modelkit import Fitted, model_settings
from tickcast.batch.bar_history import write_bars
from tickcast.batch.replay import ReplayOrder, in_folder, replay
from tickcast.batch.synth import json_messages
from tickcast.batch.train.dataset import Dataset, load_dataset
from tickcast.columns import Forecasts, RawBatch
from tickcast.io.jobs.folder import BARS
from tickcast.io.jobs.prepare import fit_order
from tickcast.io.memory_bus import raw_batch
from tickcast.io.tape.tape import write_ticks
from tickcast.loop.build import build
from tickcast.settings import Settings
from tickcast.ui.replay_command import replay_and_report

KINDS = ["time", "tick"]
WHOLE = 1 << 30
SECOND = 10**9


async def run(settings: Settings, tape: Path, out: Path, *, chunk: int = WHOLE) -> dict[str, Any]:
    order = ReplayOrder(tape, out, chunk=chunk)
    return await replay(in_folder(settings, out), order)


def read(out: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(out / f"{name}.parquet")


def column(frame: pl.DataFrame, name: str) -> np.ndarray[Any, np.dtype[Any]]:
    return np.array(frame[name].to_list())


def short(fitted: Fitted, folder: Path, *, seconds: int = 90) -> Path:
    """The first part of the tape: enough for the net to answer, few enough for one turn per tick."""
    path = folder / "short.parquet"
    ticks = fitted.ticks
    write_ticks(path, ticks.filter(pl.col("ts") < ticks["ts"].min() + seconds * SECOND))  # type: ignore[operator]
    return path


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
async def test_any_chunks_give_the_same_ids_and_values(fitted: Fitted, tmp_path: Path, kind: str) -> None:
    settings = model_settings(kind, tmp_path, model__default=fitted.models[kind])
    tape = short(fitted, tmp_path)
    await run(settings, tape, tmp_path / "whole")
    whole, scored = read(tmp_path / "whole", "forecasts"), read(tmp_path / "whole", "scores")
    assert (whole["rung"] == "model").sum() > 200
    one_bar = (whole["scale"] * whole["anchor"]).to_numpy()[:, None, None]
    for chunk in (1, 7, 1000):
        await run(settings, tape, tmp_path / "other", chunk=chunk)
        other, other_scored = read(tmp_path / "other", "forecasts"), read(tmp_path / "other", "scores")
        exact = [c for c in whole.columns if c not in ("quantiles", "point", "sigma", "confidence")]
        assert other.select(exact).equals(whole.select(exact))
        apart = np.abs(column(other, "quantiles") - column(whole, "quantiles"))
        assert (apart <= 1e-6 * column(whole, "quantiles")).all()
        assert (apart <= 1e-4 * one_bar).all()
        assert other_scored["id"].equals(scored["id"])
        np.testing.assert_array_equal(column(other_scored, "actual"), column(scored, "actual"))
        np.testing.assert_allclose(column(other_scored, "pinball"), column(scored, "pinball"), rtol=1e-3, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
async def test_deterministic_runs_have_one_digest_whatever_the_chunks(
    fitted: Fitted, tmp_path: Path, kind: str
) -> None:
    settings = model_settings(kind, tmp_path, model__default=fitted.models[kind], runtime__deterministic="true")
    tape = short(fitted, tmp_path)
    found = [await run(settings, tape, tmp_path / "out", chunk=chunk) for chunk in (WHOLE, 1000, 7, 1)]
    assert len({summary["digest"] for summary in found}) == 1
    other = settings.model_copy(update={"model": settings.model.model_copy(update={"default": "naive"})})
    assert (await run(other, tape, tmp_path / "out"))["digest"] != found[0]["digest"]


def partitions(ticks: pl.DataFrame) -> list[list[bytes]]:
    """Every second symbol in each of two partitions."""
    messages = json_messages(ticks)
    names = sorted({name for name, _ in messages})
    return [[m for name, m in messages if names.index(name) % 2 == p] for p in range(2)]


def interleaved(settings: Settings, messages: list[list[bytes]], chunks: tuple[int, int]) -> dict[int, Forecasts]:
    """Forecasts by partition, of turns that take chunks of both partitions, in turn ahead of each other."""
    serving = build(settings)
    cut: list[list[RawBatch]] = []
    for p, (own, chunk) in enumerate(zip(messages, chunks, strict=True)):
        cut.append(
            [raw_batch("ticks", p, own[i : i + chunk], first_offset=i, stamp_ns=-1) for i in range(0, len(own), chunk)]
        )
    found: list[Forecasts] = []
    for turn in range(max(map(len, cut))):
        found += serving.engine.turn([part[turn] for part in cut if turn < len(part)], 0).forecasts
    joined = Forecasts.concat(found)
    number = {source: n for n, source in enumerate(serving.engine.builder.sources())}
    return {p: joined.take(joined.partition == number.get(("ticks", p), -1)) for p in range(2)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_neither_chunks_nor_the_other_partition_change_a_partitions_forecasts(fitted: Fitted, kind: str) -> None:
    settings = model_settings(kind, Path("unused"), model__default=fitted.models[kind], runtime__deterministic="true")
    messages = partitions(fitted.ticks.head(4000))
    runs = [interleaved(settings, messages, chunks) for chunks in ((WHOLE, WHOLE), (100, 7), (13, 500))]
    alone = [interleaved(settings, [messages[0], []], (1000, 1)), interleaved(settings, [[], messages[1]], (1, 1000))]
    for p in range(2):
        assert len(runs[0][p]) > 300
        for other in (runs[1][p], runs[2][p], alone[p][p]):
            for name in ("id_high", "id_low", "quantiles", "flags", "input_hash"):
                np.testing.assert_array_equal(getattr(other, name), getattr(runs[0][p], name))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
async def test_changing_all_later_ticks_changes_nothing_that_came_before(
    fitted: Fitted, tmp_path: Path, kind: str
) -> None:
    settings = model_settings(kind, tmp_path, model__default=fitted.models[kind])
    turn = int(fitted.ticks["ts"].quantile(0.6, "nearest"))  # type: ignore[arg-type]
    changed = tmp_path / "changed.parquet"
    write_ticks(changed, spoilt_after(fitted.ticks, turn))
    for tape, name in ((fitted.tape, "one"), (changed, "other")):
        await run(settings, tape, tmp_path / name, chunk=700)
    for name, moment in (("forecasts", "as_of_ns"), ("scores", "settled_ns")):
        one, other = (read(tmp_path / run, name) for run in ("one", "other"))
        assert 300 < (one[moment] <= turn).sum() < one.height
        assert one.filter(one[moment] <= turn).equals(other.filter(other[moment] <= turn), null_equal=True)
        assert not one.filter(one[moment] > turn).equals(other.filter(other[moment] > turn))


def spoilt_after(ticks: pl.DataFrame, turn: int) -> pl.DataFrame:
    """Other prices and sizes after `turn`, at the same times."""
    later = pl.col("ts") > turn
    wild = pl.Series(np.random.default_rng(7).uniform(0.97, 1.03, ticks.height))
    return ticks.with_columns(
        price=pl.when(later).then(pl.col("price") * wild).otherwise(pl.col("price")),
        size=pl.when(later).then(pl.col("size") * 7).otherwise(pl.col("size")),
    )


def dataset_of(ticks: pl.DataFrame, folder: Path) -> Dataset:
    settings = model_settings("time", folder)
    folder.mkdir()
    write_ticks(folder / "ticks.parquet", ticks)
    write_bars(settings, folder / "ticks.parquet", folder / BARS, symbols=None)
    return load_dataset(folder, fit_order(settings, kind="nhits", name="n", params={}))


def test_changing_all_ticks_after_the_first_cut_changes_no_scaler_and_no_training_window(
    fitted: Fitted, tmp_path: Path
) -> None:
    first = dataset_of(fitted.history, tmp_path / "one")
    as_of = first.history.bars.as_of
    cut = int(as_of.min()) + int((as_of.max() - as_of.min()) * 0.7)
    second = dataset_of(spoilt_after(fitted.history, cut), tmp_path / "other")
    np.testing.assert_array_equal(first.channel_statistics(), second.channel_statistics())
    assert len(first.parts.train) > 500
    np.testing.assert_array_equal(first.parts.train, second.parts.train)
    one, other = first.batch(first.parts.train), second.batch(second.parts.train)
    for name in ("past", "mask", "future"):
        np.testing.assert_array_equal(getattr(one.inputs, name), getattr(other.inputs, name))
    np.testing.assert_array_equal(one.target, other.target)
    assert not np.array_equal(
        first.batch(first.parts.holdout).inputs.past, second.batch(second.parts.holdout).inputs.past
    )


async def test_a_fitted_net_answers_each_question_by_its_inputs(fitted: Fitted, tmp_path: Path) -> None:
    settings = model_settings("time", tmp_path, model__default=fitted.models["time"], uncertainty__enabled="false")
    await run(settings, fitted.tape, tmp_path / "out")
    found = read(tmp_path / "out", "forecasts").filter(pl.col("rung") == "model")
    moves = np.log(column(found, "point") / found["anchor"].to_numpy()[:, None]) / found["scale"].to_numpy()[:, None]
    assert len(np.unique(found["input_hash"])) == found.height
    assert len(np.unique(moves[:, 0].round(9))) > 0.95 * found.height
    assert moves[:, 0].std() > 1e-3


async def test_the_span_that_the_model_was_trained_on_is_marked_and_left_out_of_the_headline(
    fitted: Fitted, tmp_path: Path
) -> None:
    settings = model_settings("time", tmp_path, model__default=fitted.models["time"])
    tape, out = tmp_path / "all.parquet", tmp_path / "out"
    write_ticks(tape, pl.concat([fitted.history, fitted.ticks]).head(fitted.history.height + 2000))
    report = await replay_and_report(settings, ReplayOrder(tape, out))
    card = json.loads((fitted.models["time"] / "card.json").read_text())
    trained = pl.col("as_of_ns").is_between(card["trained_from_ns"], card["trained_to_ns"])
    for name in ("forecasts", "scores"):
        frame = read(out, name)
        marked = frame.select((trained & (pl.col("model") == "small-time")).alias("x"))["x"]
        assert frame["in_sample"].equals(marked.alias("in_sample"))
        assert 100 < marked.sum() < frame.height - 100
    scores = read(out, "scores")
    actual = column(scores, "actual")
    outside, inside = (np.isfinite(actual[scores["in_sample"].to_numpy() == flag]).sum() for flag in (False, True))
    assert report["headline"]["n"] == outside
    assert report["in_sample"]["labels"] == inside
    assert json.loads((out / "report.json").read_text())["headline"]["n"] == outside


async def test_what_was_consumed_is_accounted_for_in_the_report(
    fitted: Fitted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tape, out = tmp_path / "t.jsonl", tmp_path / "out"
    lines = [message.decode() for _, message in json_messages(fitted.ticks.head(3000))]
    spoilt = [*lines[:2000], "{", '{"symbol":"A","ts":1,"price":1}', lines[10], *lines[2000:]]
    tape.write_text("\n".join(spoilt))
    report = await replay_and_report(model_settings("time", tmp_path), ReplayOrder(tape, out))
    assert report["consumed"] == 3003
    assert report["accepted"] + report["late"] + report["rejected"] + report["held"] == 3003
    assert report["reasons"] == {"malformed": 1, "wrong_unit": 1, "late": 1}
    assert report["rejected"] == 2
    page, printed = (out / "report.html").read_text(), capsys.readouterr().out
    for name, count in (("consumed", "3,003"), ("rejected", "2"), ("wrong_unit", "1"), ("held", str(report["held"]))):
        assert re.search(rf">{name}</td><td[^>]*>{count}</td>", page)
        assert f"{name} {count}" in printed
