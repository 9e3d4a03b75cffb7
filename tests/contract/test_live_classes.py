"""What a model of classes says of the last step reaches every reader of its forecasts; those of others have none."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import numpy as np
import onnxruntime
import polars as pl
import pytest

from combokit import member, served
from kit import T0, Served, Tick, rung
from livekit import live_settings, running
from registrykit import model_folder
from registrykit import write_card as write_plain_card
from schemakit import problems
from stepkit import write_card
from tickcast.batch.replay import ReplayOrder, in_folder, replay
from tickcast.columns import F32, Inputs
from tickcast.direction import LABELS, has_classes
from tickcast.engine.core.events import Ask
from tickcast.engine.core.ladder import RUNGS
from tickcast.engine.core.questions import TILE_DETERMINISTIC, bar_identity
from tickcast.engine.inference.load import open_model
from tickcast.engine.inference.onnx import OnnxRunner
from tickcast.errors import BadModel, Quality
from tickcast.io.tape.tape import write_ticks
from tickcast.plugin import Runner
from tickcast.questions import Answers, Questions
from tickcast.records import Command
from tickcast.settings import Settings
from tickcast.testing import turning, walks
from trainkit import job, model_of, series

LOOKBACK, HORIZON, FURTHER = 12, 3, 5  # the model sees further ahead than the deployment asks
BARS, SECOND = 60, 10**9
FRAMES = [series(name, turning(500, seed=i)) for i, name in enumerate("AB")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("bayes")
    job(made, FRAMES, kind="naive_bayes", name="bayes", model_params={}, lookback=LOOKBACK, horizon=FURTHER)
    model = model_of(made)
    return write_card(model, open_model(model).card, bars=bar_identity(deployment(made)))


def deployment(folder: Path, **more: object) -> Settings:
    return live_settings(
        folder, window__lookback=LOOKBACK, forecast__horizon=HORIZON, features__set="[]", features__future="[]", **more
    )


def ticks(symbols: int = 4, bars: int = BARS) -> list[Tick]:
    """A tick in every bar of every symbol; the last symbol begins later, so that a rung answers beside the model."""
    price = [turning(bars, seed=50 + code) for code in range(symbols)]
    return [
        (f"S{code}", T0 + at * SECOND + code, float(price[code][at]), 1.0)
        for at in range(bars) for code in range(symbols) if at >= 20 or code + 1 < symbols
    ]  # fmt: skip


def in_columns(tape: list[Tick]) -> pl.DataFrame:
    return pl.DataFrame(
        tape, schema={"symbol": pl.Utf8, "ts": pl.Int64, "price": pl.Float64, "size": pl.Float64}, orient="row"
    )


def by_graph(folder: Path, inputs: Inputs) -> F32:
    """[B, H, C] of the graph alone."""
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    found: F32 = session.run(["probs"], {node.name: getattr(inputs, node.name) for node in session.get_inputs()})[0]
    return found


class Heard(Runner):
    """A runner of classes that remembers what it was asked; `spoil` may change what it says."""

    def __init__(self, runner: Any, spoil: Callable[[F32], F32] = lambda probs: probs) -> None:
        self._runner, self._spoil, self.card = runner, spoil, runner.card
        self.asked: list[Inputs] = []

    def answer(self, questions: Questions) -> Answers:
        self.asked.append(questions.inputs)
        answers = self._runner.answer(questions)
        return replace(answers, probs=self._spoil(answers.probs))


class Session:
    """A graph's, and of how many rows its calls were."""

    def __init__(self, session: Any) -> None:
        self._session, self.rows = session, set[int]()

    def run(self, outputs: None, inputs: dict[str, F32]) -> Any:
        self.rows |= {len(part) for part in inputs.values()}
        return self._session.run(outputs, inputs)


def serve(settings: Settings, *runners: Runner, chunk: int = 9) -> Served:
    return Served(settings, ticks(), chunk=chunk, runners=[*runners, rung("naive", settings)])


def test_each_forecast_of_it_has_what_its_graph_says_of_the_window_at_the_last_step_and_no_other_has_any(
    folder: Path, tmp_path: Path
) -> None:
    heard = Heard(open_model(folder))
    found = serve(deployment(tmp_path), heard).forecasts
    asked = Inputs.concat(heard.asked)
    own = found.model == 0
    assert {*found.rung[own].tolist()} == {RUNGS.index("model")}
    assert own.sum() == len(asked) > 3 * (BARS - LOOKBACK - 2)
    assert (~own).sum() > 3, "the rung answers while a symbol has too few bars"
    np.testing.assert_allclose(found.probs[own], by_graph(folder, asked)[:, HORIZON - 1], atol=1e-6)
    np.testing.assert_allclose(found.probs[own].sum(axis=1), 1, atol=1e-6)
    assert found.probs[own].std(axis=0).min() > 0.01, "they differ from window to window"
    assert has_classes(found.probs).tolist() == own.tolist()
    plain = serve(deployment(tmp_path), OnnxRunner(folder, write_plain(folder))).forecasts
    np.testing.assert_array_equal(found.quantiles, plain.quantiles)


def test_in_tiles_that_are_always_full_chunks_change_no_bit(folder: Path, tmp_path: Path) -> None:
    settings = deployment(tmp_path, runtime__deterministic="true")
    runs = []
    for chunk in (1, 7, 1000):
        runner: Any = open_model(folder)
        runner._session = session = Session(runner._session)
        runs.append(serve(settings, runner, chunk=chunk).forecasts)
        assert session.rows == {TILE_DETERMINISTIC}
    ordered = [found.take(np.lexsort((found.symbol, found.as_of))) for found in runs]
    for other in ordered[1:]:
        assert ordered[0].probs.tobytes() == other.probs.tobytes()
        assert ordered[0].id_low.tobytes() == other.id_low.tobytes()


def raising(probs: F32) -> F32:
    raise ValueError("broken")


@pytest.mark.parametrize(
    "spoil",
    [
        raising, lambda probs: probs * np.nan, lambda probs: probs * np.float32(0.9), lambda probs: probs[:, :, :2],
        lambda probs: probs - np.float32([0.9, 0, -0.9]), lambda probs: probs[:, 0], lambda probs: None,
    ],
    ids=["raises", "no numbers", "sum", "two classes", "negative", "no steps", "nothing"],
)  # fmt: skip
def test_where_it_fails_or_says_no_probabilities_the_last_value_answers_and_none_are_told(
    folder: Path, tmp_path: Path, spoil: Callable[[F32], F32]
) -> None:
    found = serve(deployment(tmp_path), Heard(open_model(folder), spoil)).forecasts
    failed = found.flags & Quality.FALLBACK != 0
    assert failed.mean() > 0.5
    assert {*found.rung[failed].tolist()} == {RUNGS.index("fallback")}
    assert not has_classes(found.probs).any()
    assert np.isfinite(found.quantiles).all()


def test_where_one_row_is_none_the_others_keep_theirs(folder: Path, tmp_path: Path) -> None:
    def spoil(probs: F32) -> F32:
        probs[0, HORIZON - 1, 1] = np.nan
        return probs

    heard = Heard(open_model(folder), spoil)
    found = serve(deployment(tmp_path), heard, chunk=1000).forecasts
    asked = sum(len(inputs) for inputs in heard.asked)
    assert has_classes(found.probs).sum() == asked - len(heard.asked) > asked / 2
    assert not has_classes(found.probs[found.flags & Quality.FALLBACK != 0]).any()


@pytest.mark.slow
@pytest.mark.parametrize("classes_stand_in", [True, False])
def test_the_kind_follows_who_really_answered(folder: Path, tmp_path: Path, classes_stand_in: bool) -> None:
    settings = deployment(tmp_path, forecast__quantiles="[0.05,0.25,0.5,0.75,0.95]")
    plain = OnnxRunner(folder, write_plain(folder))
    classes = Heard(open_model(folder), lambda probs: probs if classes_stand_in else raising(probs))
    first, second = (classes, Failing(plain)) if classes_stand_in else (plain, classes)
    served = Served(settings, ticks(), chunk=9, runners=[first, rung("naive", settings)])
    served.engine.install(second)
    served.engine.turn([Command(id="1", command="use_model", args={"model": second.card.digest})], T0)
    (answer,) = served.engine.turn([Ask(("S0", "S1"))], T0).answers
    assert answer.refused is None
    assert (answer.flags & Quality.FALLBACK).all()
    assert answer.model.tolist() == [0, 0]
    assert has_classes(answer.probs).tolist() == [classes_stand_in] * 2


def write_plain(folder: Path) -> Any:
    """The card of another model that has the same graph and tells no classes of it."""
    return msgspec.structs.replace(open_model(folder).card, labels=[], name="plain", digest="p" * 64)


class Failing(Runner):
    """A model of quantiles that raises."""

    def __init__(self, runner: Runner) -> None:
        self.card = runner.card

    def answer(self, questions: Questions) -> Answers:
        raise ValueError("broken")


@pytest.mark.slow
def test_live_store_replay_and_commands_tell_the_same_and_a_rung_beside_it_tells_none(
    folder: Path, tmp_path: Path
) -> None:
    settings = deployment(tmp_path, model__default=folder, model__ladder='["naive"]')
    write_ticks(tmp_path / "ticks.parquet", in_columns(ticks()))
    published, told, predicted = asyncio.run(lived(settings))
    order = ReplayOrder(tmp_path / "ticks.parquet", tmp_path / "out", chunk=1000)
    asyncio.run(replay(in_folder(settings, order.out), order))
    assert {record["rung"]: record["kind"] for record in published.values()} == {"model": "class", "naive": "quantile"}
    assert not [found for record in published.values() if (found := problems("forecasts", record))]
    with duckdb.connect(str(settings.store.path), read_only=True) as store:
        stored = {row.hex: probs for row, probs in store.execute("SELECT id, probs FROM forecasts").fetchall()}
    rows = pl.read_parquet(tmp_path / "out" / "forecasts.parquet").select("id", "kind", "probs").rows()
    assert {*stored} == {*published} == {name for name, *_ in rows}
    for name, kind, probs in rows:
        record = published[name]
        assert kind == record["kind"]
        assert probs == stored[name]
        if probs is None:
            assert record["probs"] is None
        else:
            np.testing.assert_allclose(record["probs"], probs, atol=1e-7)
    newest = {record["symbol"]: record for record in published.values()}
    for one in told:
        assert one["kind"] == newest[one["symbol"]]["kind"] == "class"
        np.testing.assert_allclose(one["probs"], newest[one["symbol"]]["probs"], atol=1e-6)
    assert sum(predicted["probs"]) == pytest.approx(1, abs=1e-6)
    assert [row["kind"] for row in (predicted, *told)] == ["class"] * 3


async def lived(settings: Settings) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]:
    """What was published, by id, and what was answered: of the newest windows, and of prices brought along."""
    messages = [
        json.dumps(dict(zip(("symbol", "ts", "price", "size"), tick, strict=True))).encode() for tick in ticks()
    ]
    async with running(settings) as live:
        await live.send(messages, chunk=23)
        published = {record["id"]: record for record in await live.forecasts()}
        told = await live.daemon.command("forecast", symbols=["S0", "S1"])
        predicted = await live.daemon.command("predict", closes=turning(30, seed=1).tolist(), horizon=1)
    assert told.ok, told.error
    assert predicted.ok, predicted.error
    return published, told.result["forecasts"], predicted.result["forecast"]


def test_what_a_combination_says_of_its_members_has_no_classes_and_no_step_has_any(tmp_path: Path) -> None:
    frames = [series(name, turning(700, seed=i)) for i, name in enumerate("AB")]
    members = [member(tmp_path / kind, kind, frames) for kind in ("naive_bayes", "ridge")]
    assert open_model(members[0]).card.labels == LABELS
    whole = served(tmp_path / "whole", members, frames, method="mean")
    assert whole.card.labels == []
    answers = whole.answer(Questions.of(walks(whole, rows=3, lookback=whole.card.lookback)))
    assert np.isfinite(answers.quantiles).all()
    assert answers.probs is None


def test_a_folder_whose_graph_does_not_give_what_its_labels_promise_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadModel, match=r"gives \['quantiles'\] for labels \['down', 'flat', 'up'\]"):
        open_model(model_folder(tmp_path / "small", labels=LABELS))
    with pytest.raises(BadModel, match=r"for labels \['less', 'more'\]"):
        OnnxRunner(folder, write_plain_card(tmp_path / "small", labels=["less", "more"]))


def test_a_batch_of_several_tiles_is_answered_as_one_of_one(folder: Path) -> None:
    whole, tiled = open_model(folder), open_model(folder, tile=7)
    inputs = walks(whole, rows=30, lookback=LOOKBACK + 4)
    np.testing.assert_allclose(whole.predict(inputs), tiled.predict(inputs), atol=1e-6)
    np.testing.assert_allclose(whole.probs(inputs), tiled.probs(inputs), atol=1e-6)
    assert whole.probs(inputs).shape == (30, FURTHER, len(LABELS))
