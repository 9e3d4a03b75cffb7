"""A model judged on bars that it never saw: every figure against sums made by hand, from bars and graph alone."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from scipy import stats

from tickcast.batch.judge import judge
from tickcast.batch.train import fit
from tickcast.batch.train.dataset import load_dataset
from tickcast.columns import F64, Inputs
from tickcast.engine.inference.load import open_model
from tickcast.engine.inference.model_folder import CARD
from tickcast.errors import BadData, BadModel, BadSettings
from tickcast.io.jobs.folder import BARS, ORDER
from tickcast.io.jobs.orders import EvaluateOrder, FitOrder
from tickcast.records import ModelCard, digest
from trainkit import EVERY_NS, Progress, autoregressive, job, series

LOOKBACK, HORIZON, LEVELS = 16, 4, [0.1, 0.5, 0.9]
N_FIT, N_TEST = 600, 260
ORDERED = EvaluateOrder(groups={"first": ["A*"]}, draws=200)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fit")
    history = [series(name, autoregressive(N_FIT, seed=seed)) for seed, name in enumerate(("A1", "B1"))]
    job(folder, history, kind="ar", model_params={}, lookback=LOOKBACK, horizon=HORIZON, levels=LEVELS)
    fit.run(folder, Progress())
    return folder / "model"


def closes() -> dict[str, F64]:
    return {name: autoregressive(N_TEST, seed=10 + i) for i, name in enumerate(("A1", "B1", "B2"))}


def asked(folder: Path, model: Path, frames: list[pl.DataFrame], order: EvaluateOrder = ORDERED) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pl.concat(frames).write_parquet(folder / BARS)
    shutil.copytree(model, folder / judge.MODEL, dirs_exist_ok=True)
    (folder / ORDER).write_bytes(msgspec.json.encode(order))
    return folder


def unseen(start: int = N_FIT) -> list[pl.DataFrame]:
    return [series(name, close, start=start) for name, close in closes().items()]


class Window:
    """One question as the model is asked it, made from closes alone."""

    def __init__(self, close: F64, at: int) -> None:
        moves = np.log(close[1:] / close[:-1])
        past = moves[at - LOOKBACK : at]
        self.scale = float(np.sqrt((past**2).mean()))
        self.past = past.astype(np.float32)
        self.target = np.log(close[at + 1 : at + 1 + HORIZON] / close[at])


def by_hand(model: Path) -> Iterator[tuple[str, int, int, float, float, float, bool, bool]]:
    """(symbol, at, step, own error, naive error, gain, covered, direction right) of every label."""
    runner = open_model(model)
    for name, close in closes().items():
        for at in range(LOOKBACK, N_TEST - HORIZON):
            window = Window(close, at)
            inputs = Inputs(
                window.past[None, :, None], np.ones((1, LOOKBACK), np.float32), np.empty((1, HORIZON, 0), np.float32),
                np.empty((1, 0), np.float32),
            )  # fmt: skip
            own = runner.predict(inputs)[0].astype(np.float64)
            for step in (1, 2, 4):
                actual, said = float(np.float32(window.target[step - 1])), own[step - 1]
                last = np.array(runner.card.last_value[step - 1]) * window.scale
                losses = [
                    sum(max(q * (actual - f), (q - 1) * (actual - f)) for q, f in zip(LEVELS, each, strict=True)) / 3
                    for each in (own[step - 1], last)
                ]
                gain = (losses[1] - losses[0]) / window.scale
                yield (
                    name, at, step, abs(actual - said[1]), losses[0] / window.scale, gain,
                    bool(said[0] <= actual <= said[2]), bool(said[1] * actual > 0),
                )  # fmt: skip


def test_every_figure_is_that_of_sums_made_by_hand(model: Path, tmp_path: Path) -> None:
    found = judge.run(asked(tmp_path, model, unseen()), Progress())
    labels = pl.DataFrame(
        list(by_hand(model)), orient="row", schema=["symbol", "at", "step", "error", "loss", "gain", "covered", "right"]
    )
    windows = 3 * (N_TEST - HORIZON - LOOKBACK)
    assert (found["windows"], found["in_sample"]["windows"]) == (windows, 0)
    assert found["moments"] == windows // 3
    for row in [*found["by_horizon"], found["headline"], *found["by_group"]]:
        mine = labels if row["horizon"] is None else labels.filter(step=row["horizon"])
        mine = mine if row["group"] == "all" else mine.filter(pl.col("symbol").str.starts_with("A"))
        assert row["n"] == mine.height
        naive = mine["loss"] + mine["gain"]
        expected = {
            "mae": mine["error"].mean(), "pinball": mine["loss"].mean(), "pinball_naive": naive.mean(),
            "skill": 1 - mine["loss"].sum() / naive.sum(), "coverage": mine["covered"].mean(),
            "directional": mine["right"].mean(),
        }  # fmt: skip
        assert {name: row[name]["value"] for name in expected} == pytest.approx(expected, rel=2e-5)
        gain = mine.group_by("at").agg(pl.col("gain").mean()).sort("at")["gain"].to_numpy()
        assert_same_test(row["test"], gain, row["horizon"] or HORIZON)
        for name in expected:
            assert row[name]["low"] < row[name]["value"] < row[name]["high"]
    assert [row["horizon"] for row in found["by_horizon"]] == [1, 2, 4]
    assert found["headline"]["skill"]["low"] > 0.02, "half of the next move of this process can be known"
    assert found["headline"]["test"]["p_value"] < 1e-3


def test_last_value_has_the_quantiles_of_its_errors_in_the_calibration_part_of_the_fit(
    model: Path, tmp_path: Path
) -> None:
    order = FitOrder.read(model.parent)
    dataset = load_dataset(model.parent, order)
    _, target, scale = dataset.batch(dataset.parts.calibration)
    errors = np.quantile(target / scale[:, None], LEVELS, axis=0).T
    card = open_model(model).card
    np.testing.assert_allclose(card.last_value, errors - errors[:, 1:2], rtol=1e-4, atol=1e-9)
    assert judge.run(asked(tmp_path, model, unseen()), Progress())["last_value"] == "calibrated"


def test_without_them_it_has_those_that_fit_the_judged_windows_best(model: Path, tmp_path: Path) -> None:
    folder = asked(tmp_path, model, unseen())
    rewrite_card(folder / judge.MODEL, last_value=[])
    found = judge.run(folder, Progress())
    assert found["last_value"] == "hindsight"
    moves = [Window(close, at) for close in closes().values() for at in range(LOOKBACK, N_TEST - HORIZON)]
    errors = np.quantile([window.target / window.scale for window in moves], LEVELS, axis=0).T
    gain = (np.array([window.target / window.scale for window in moves]) - 0)[:, :, None] - (errors - errors[:, 1:2])
    loss = np.maximum(np.array(LEVELS) * gain, (np.array(LEVELS) - 1) * gain).mean(axis=2)
    assert found["by_horizon"][0]["pinball_naive"]["value"] == pytest.approx(loss[:, 0].mean(), rel=1e-4)


def test_a_card_whose_last_value_has_another_shape_is_refused(model: Path, tmp_path: Path) -> None:
    folder = asked(tmp_path, model, unseen())
    rewrite_card(folder / judge.MODEL, last_value=[[0.0, 1.0], [2.0]])
    with pytest.raises(BadModel, match="last_value"):
        judge.run(folder, Progress())


def rewrite_card(folder: Path, **fields: Any) -> None:
    card = msgspec.structs.replace(open_model(folder).card, **fields)
    card = msgspec.structs.replace(card, digest=digest(card))
    (folder / CARD).write_bytes(msgspec.json.encode(card))


def assert_same_test(test: dict[str, Any], gain: F64, horizon: int) -> None:
    n, centred = len(gain), gain - gain.mean()
    variance = sum((1 if k == 0 else 2) * (centred[k:] @ centred[: n - k]) / n for k in range(horizon)) / n
    factor = np.sqrt((n + 1 - 2 * horizon + horizon * (horizon - 1) / n) / n)
    statistic = factor * gain.mean() / np.sqrt(variance)
    assert test["statistic"] == pytest.approx(statistic, rel=1e-4)
    assert test["p_value"] == pytest.approx(2 * stats.t.sf(abs(statistic), n - 1), rel=1e-2)


def test_windows_that_touch_the_training_span_are_counted_and_left_out(model: Path, tmp_path: Path) -> None:
    card = open_model(model).card
    trained = card.trained_to_ns // EVERY_NS
    assert 0 < trained < N_FIT
    start = trained - 100  # the first 100 bars of the test lie in the span
    found = judge.run(asked(tmp_path, model, unseen(start)), Progress())
    anchors = start + 1 + np.arange(LOOKBACK, N_TEST - HORIZON)  # in seconds
    inside = int((anchors <= trained).sum())
    assert inside > 50
    assert found["in_sample"]["windows"] == 3 * inside
    assert found["headline"]["n"] == 3 * (len(anchors) - inside) * 3
    assert found["from_ns"] == (trained + 1) * EVERY_NS
    assert found["in_sample"]["skill"] is not None
    none = judge.run(asked(tmp_path / "all", model, [series("A1", autoregressive(200, seed=4))]), Progress())
    assert (none["headline"], none["by_group"], none["moments"]) == ({}, [], 0)
    assert none["in_sample"]["windows"] == none["windows"] > 0


def test_before_the_span_targets_that_reach_into_it_count_as_inside(model: Path, tmp_path: Path) -> None:
    first = open_model(model).card.trained_from_ns // EVERY_NS
    found = judge.run(
        asked(tmp_path, model, [series("A1", autoregressive(100, seed=4), start=first - 101)]), Progress()
    )
    assert found["in_sample"]["windows"] == 0
    later = [series("A1", autoregressive(100, seed=4), start=first - 98)]
    assert judge.run(asked(tmp_path / "later", model, later), Progress())["in_sample"]["windows"] == 3


def test_a_seed_repeats_the_intervals_and_another_does_not(model: Path, tmp_path: Path) -> None:
    first = judge.run(asked(tmp_path / "1", model, unseen()), Progress())
    again = judge.run(asked(tmp_path / "2", model, unseen()), Progress())
    other = judge.run(asked(tmp_path / "3", model, unseen(), EvaluateOrder(draws=200, seed=1)), Progress())
    assert first == again
    assert first["headline"]["skill"]["value"] == pytest.approx(other["headline"]["skill"]["value"])
    assert first["headline"]["skill"]["low"] != other["headline"]["skill"]["low"]
    assert other["by_group"] == []


def test_horizons_may_be_chosen_and_wider_confidence_widens(model: Path, tmp_path: Path) -> None:
    order = EvaluateOrder(horizons=[3], confidence=0.99, draws=400)
    found = judge.run(asked(tmp_path, model, unseen(), order), Progress())
    assert [row["horizon"] for row in found["by_horizon"]] == [3]
    narrow = judge.run(asked(tmp_path / "90", model, unseen(), EvaluateOrder(horizons=[3], draws=400)), Progress())
    (wide,), (tight,) = found["by_horizon"], narrow["by_horizon"]
    assert wide["mae"]["low"] < tight["mae"]["low"] < tight["mae"]["high"] < wide["mae"]["high"]
    with pytest.raises(BadSettings, match="horizon 5 is beyond"):
        judge.run(asked(tmp_path / "5", model, unseen(), EvaluateOrder(horizons=[5])), Progress())


def test_bars_of_ticks_share_a_moment_when_they_close_close_together(model: Path, tmp_path: Path) -> None:
    folder = asked(tmp_path, model, [frame.with_columns(pl.col("as_of_ns") + i) for i, frame in enumerate(unseen())])
    retold(folder / judge.MODEL, bars={"kind": "tick", "every_ticks": 3, "on_gap": "carry", "calendar": "24x7"})
    found = judge.run(folder, Progress())
    assert found["moments"] == found["windows"] // 3


def retold(model: Path, **changes: Any) -> None:
    """The same model with another card, whose digest is true again."""
    card = msgspec.json.decode((model / CARD).read_bytes(), type=ModelCard)
    card = msgspec.structs.replace(card, **changes)
    card = msgspec.structs.replace(card, digest=digest(card))
    (model / CARD).write_bytes(msgspec.json.encode(card))


def test_what_cannot_be_judged_is_refused_by_name(model: Path, tmp_path: Path) -> None:
    short = [series("A1", autoregressive(LOOKBACK + HORIZON, seed=1))]
    with pytest.raises(BadData, match="hold no window of 17 bars"):
        judge.run(asked(tmp_path / "short", model, short), Progress())
    holed = unseen()
    holed[0] = holed[0].with_columns(close=pl.lit(float("nan")))
    with pytest.raises(BadData, match="not finite"):
        judge.run(asked(tmp_path / "nan", model, holed), Progress())
    unknown = asked(tmp_path / "unknown", model, unseen())
    (unknown / ORDER).write_bytes(b'{"job": "evaluate", "confidense": 0.9}')
    with pytest.raises(BadSettings, match="confidense"):
        judge.run(unknown, Progress())
    flipped = asked(tmp_path / "flipped", model, unseen())
    graph = flipped / judge.MODEL / "model.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    with pytest.raises(BadModel, match="damaged"):
        judge.run(flipped, Progress())
    with pytest.raises(BadData, match=r"order\.json"):
        judge.run(tmp_path / "nowhere", Progress())
