"""The volatility kinds keep the contract, find a spread that can be known, and say the same by steps as by windows."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

import combokit
from kit import T0, Served, settings
from tickcast import plugin
from tickcast.batch.train import fit
from tickcast.batch.train.dataset import load_dataset
from tickcast.columns import Inputs
from tickcast.engine.inference.load import open_model
from tickcast.engine.inference.stepping import StepRunner
from tickcast.errors import BadModel, BadSettings
from tickcast.plugin import Runner
from tickcast.questions import Questions
from tickcast.records import ModelCard
from tickcast.testing import check_model, walks
from tickcast_plugins.models.classical import RowSample
from tickcast_plugins.models.garch import surprise
from tickcast_plugins.models.spread_terms import SLOTS, SpreadTerms, keep_of
from tickcast_plugins.models.volatility import realised, seasons
from trainkit import Progress, autoregressive, job, model_of, series, walk

KINDS = ("ewma_vol", "har", "garch", "gjr", "realised_range")
LOOKBACK, HORIZON, HOUR_NS, PARTS = 48, 4, 3600 * 10**9, 6
SKILL = {"ewma_vol": 0.015, "har": 0.03, "garch": 0.02, "gjr": 0.02, "realised_range": 0.05}
ORDER: dict[str, Any] = {
    "lookback": LOOKBACK, "horizon": HORIZON, "features": [{"kind": "parkinson"}, {"kind": "garman_klass"}],
    "future": ["time_of_day"], "bars": {"kind": "time", "every_ms": 3_600_000, "on_gap": "carry"},
}  # fmt: skip


def market(name: str, bars: int, seed: int) -> pl.DataFrame:
    """Hours whose spread remembers, with a season of the day; each is a walk of PARTS moves."""
    rng = np.random.default_rng(seed)
    log = np.zeros(bars)
    for i, push in enumerate(rng.normal(0, 0.15, bars - 1), 1):
        log[i] = 0.97 * log[i - 1] + push
    spread = 1e-3 * np.exp(log + 0.4 * np.sin(2 * np.pi * np.arange(bars) / 24))
    paths = np.cumsum(rng.standard_normal((bars, PARTS)) * spread[:, None] / np.sqrt(PARTS), axis=1)
    close = 100 * np.exp(np.cumsum(paths[:, -1]))
    opened = np.append(100.0, close[:-1])
    return pl.DataFrame(
        {
            "symbol": [name] * bars, "as_of_ns": (np.arange(bars) + 1) * HOUR_NS, "tie": np.zeros(bars, np.int32),
            "open": opened, "high": opened * np.exp(np.maximum(paths.max(axis=1), 0)),
            "low": opened * np.exp(np.minimum(paths.min(axis=1), 0)), "close": close, "volume": np.ones(bars),
            "mask": np.ones(bars, np.uint8), "gap": np.zeros(bars, np.uint8),
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], tuple[Path, Runner]]:
    """Fitted once per kind and mode, and opened as the daemon does."""

    @cache
    def get(kind: str, mode: str) -> tuple[Path, Runner]:
        folder = tmp_path_factory.mktemp(f"{kind}-{mode}")
        frames = [market(name, 2500, seed) for seed, name in enumerate("ABC")]
        job(folder, frames, kind=kind, model_params={"mode": mode}, **ORDER)
        model = model_of(folder)
        return model, open_model(model)

    return get


def fitted(folder: Path, kind: str, order: dict[str, Any], seed: int) -> Any:
    """A small fit, without its folder; another seed is another history."""
    made = job(folder / str(seed), [market("A", 700, 9 + seed)], kind=kind, model_params={}, **order)
    dataset = load_dataset(folder / str(seed), made)
    model: Any = fit.build(made, dataset)
    model.fit(dataset, Progress())
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_it_keeps_the_contract(kind: str, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    check_model(partial(fitted, tmp_path, kind, ORDER), lookback=LOOKBACK, folder=tmp_path / "files")


@pytest.mark.parametrize("transform", ["difference", "level"])
@pytest.mark.parametrize("kind", ["har", "gjr"])
def test_in_other_units_it_keeps_the_contract(kind: str, transform: str, tmp_path: Path) -> None:
    order = ORDER | {"transform": transform, "lookback": 20, "features": []}
    check_model(partial(fitted, tmp_path, kind, order), lookback=20)


@pytest.mark.parametrize("kind", KINDS)
def test_fitted_and_served_it_knows_the_width_and_says_nothing_of_the_way(served: Any, kind: str) -> None:
    _, runner = served(kind, "window")
    metrics = runner.card.metrics
    assert metrics["skill"] > SKILL[kind]
    assert metrics["skill_low"] > 0
    assert metrics["coverage"]["0.9"] == pytest.approx(0.9, abs=0.05)
    check_model(lambda _: runner, lookback=LOOKBACK)
    assert (runner.predict(walks(runner, rows=50, lookback=LOOKBACK))[:, :, 2] == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_loaded_answers_as_its_graph_does_and_in_units_of_the_window(served: Any, kind: str) -> None:
    folder, runner = served(kind, "window")
    model = plugin.find("models", kind)(runner.card)
    model.load(folder)
    for rows in (1, 7, 256):
        inputs = walks(runner, rows=rows, lookback=LOOKBACK, seed=rows)
        said = runner.predict(inputs)
        np.testing.assert_allclose(model.predict(inputs), said, atol=1e-4)
        inputs.past[:] *= 64
        np.testing.assert_allclose(runner.predict(inputs), 64 * said, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_by_steps_it_says_what_the_window_says_and_goes_on_from_there(served: Any, kind: str) -> None:
    folder, runner = served(kind, "step")
    assert isinstance(runner, StepRunner)
    whole = walks(runner, rows=9, lookback=3 * LOOKBACK, seed=3)
    window = Inputs(whole.past[:, :LOOKBACK], whole.mask[:, :LOOKBACK], whole.future, whole.static)
    expected = runner.predict(window)
    np.testing.assert_allclose(runner.from_nothing(window), expected, atol=1e-5)
    symbol = np.arange(9, dtype=np.int32)
    for end in range(LOOKBACK, 3 * LOOKBACK + 1):
        bars = slice(end - LOOKBACK, end)
        inputs = Inputs(whole.past[:, bars], whole.mask[:, bars], whole.future, whole.static)
        said = runner.answer(Questions.of(inputs, symbol, np.full(9, end))).quantiles
    model = plugin.find("models", kind)(runner.card)
    model.load(folder)
    row, scale = _longer(model.layout(), 3 * LOOKBACK).rows(whole)
    np.testing.assert_allclose(said, model.quantiles(row) * scale[:, :, None], atol=1e-4)


def _longer(terms: SpreadTerms, bars: int) -> SpreadTerms:
    return terms._replace(card=msgspec.structs.replace(terms.card, lookback=bars))


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Runner]]:
    """HAR of two symbols that walk and one whose moves turn back, by mode."""

    @cache
    def get(mode: str) -> tuple[Path, Runner]:
        folder = tmp_path_factory.mktemp(mode)
        closes = {"A": walk(3000, seed=1), "B": autoregressive(3000, seed=2), "C": walk(3000, seed=3)}
        job(folder, [series(name, close) for name, close in closes.items()], kind="har", lookback=24, horizon=4,
            model_params={"mode": mode})  # fmt: skip
        model = model_of(folder)
        return model, open_model(model)

    return get


@pytest.mark.parametrize("mode", ["window", "step"])
def test_a_symbol_of_the_fit_has_a_spread_of_its_own_and_any_other_what_all_have(known: Any, mode: str) -> None:
    _, runner = known(mode)
    assert runner.card.symbols == ["A", "B", "C"]
    windows = walks(runner, rows=4, lookback=24)
    pooled = runner.predict(windows)[:, :, -1]

    def said(*names: str) -> Any:
        """By the symbols of these names, in order; their codes are places in a list that holds another name first."""
        asked = Questions.of(windows, np.arange(1, 5, dtype=np.int32), np.full(4, 30))
        return runner.answer(replace(asked, names=lambda: ["other", *names])).quantiles[:, :, -1] / pooled

    found = said("A", "B", "C", "D")
    assert (found[1, 1:] < 0.9).all()
    assert (found[[0, 2], 1:] > 1.0).all()
    np.testing.assert_allclose(found[3], 1.0, rtol=1e-5)
    if mode == "window":
        np.testing.assert_allclose(said("D", "A", "B", "B")[1:], said("A", "A", "B", "B")[1:], rtol=1e-6)
        nobody = runner.answer(Questions.of(windows)).quantiles[:, :, -1]
        np.testing.assert_allclose(nobody, pooled, rtol=1e-6)


@pytest.mark.parametrize("mode", ["window", "step"])
def test_served_from_ticks_a_symbol_is_known_by_its_name_whatever_its_code(known: Any, mode: str) -> None:
    """Two names share one walk: what is said of them differs by what is their own alone."""
    _, runner = known(mode)
    options = settings(window__lookback=24, forecast__horizon=4, bars__every_ms=1000, uncertainty__enabled=False)
    prices = 100 * np.exp(np.cumsum(np.random.default_rng(4).normal(0, 1e-3, 60)))
    ticks = [(name, T0 + i * 10**9, float(price), 1.0) for i, price in enumerate(prices) for name in ("X", "B", "C")]
    served = Served(options, ticks, chunk=50, runners=[open_model(known(mode)[0])])
    forecasts = served.forecasts
    spread = np.log(forecasts.quantiles[:, :, -1] / forecasts.anchor[:, None]) / forecasts.scale[:, None]
    of = {name: spread[forecasts.symbol == served.symbols.find(name)] for name in "XBC"}
    assert len(of["X"]) == len(of["B"]) > 30
    model = plugin.find("models", "har")(runner.card)
    model.load(known(mode)[0])
    for name, place in (("B", 2), ("C", 3)):
        expected = np.tile(np.exp(model.arrays["own"][place]), (len(of["X"]), 1))
        np.testing.assert_allclose(of[name] / of["X"], expected, rtol=1e-3)


def test_an_own_spread_is_shrunk_and_the_parts_of_a_history_say_whose_a_window_is(known: Any, tmp_path: Path) -> None:
    folder, runner = known("window")
    model: Any = plugin.find("models", "har")(runner.card)
    model.load(folder)
    assert (model.arrays["own"][0] == 0).all()
    y = np.exp(np.random.default_rng(0).standard_normal((90, 4)))
    x = np.zeros((90, model.layout().width + 1), np.float32)
    x[:, -1] = np.repeat([1, 2, 3], 30)
    model.arrays["own"] = np.zeros((4, 4))
    parts = {trust: model.own(RowSample(x, y))(trust) for trust in (1e-12, 30.0, np.inf)}
    np.testing.assert_allclose(parts[30.0][1:] / parts[1e-12][1:], np.tile(1 / (1 + np.arange(1, 5)), (3, 1)))
    assert (parts[np.inf] == 0).all()
    order = job(tmp_path, [series(name, walk(400, seed=1)) for name in "BX"], kind="har", model_params={})
    dataset = load_dataset(tmp_path, order)
    rows = np.concatenate([np.flatnonzero(dataset.history.symbol == code)[50:53] for code in (0, 1)])
    assert dataset.batch(rows).inputs.static.shape == (6, 0)
    dataset.place(runner.card.symbols)
    assert dataset.batch(rows).inputs.static.tolist() == [[2]] * 3 + [[0]] * 3


def test_in_a_combination_it_takes_all_symbols_alike(tmp_path: Path) -> None:
    frames = combokit.history()
    models = [combokit.member(tmp_path / kind, kind, frames) for kind in ("har", "ridge")]
    runner = combokit.served(tmp_path / "both", models, frames, method="mean")
    check_model(lambda _: runner, lookback=combokit.LONG)
    inputs = walks(runner, rows=5, lookback=combokit.LONG)
    newest = slice(-combokit.SHORT, None)
    own = Inputs(inputs.past[:, newest], inputs.mask[:, newest], inputs.future, inputs.static)
    alone = [open_model(model).predict(own) for model in models]
    np.testing.assert_allclose(runner.predict(inputs), sum(alone) / 2, atol=1e-4)


def test_a_mean_is_a_weighted_sum_over_a_sum_of_weights_of_the_bars_that_were_seen() -> None:
    terms = SpreadTerms(card("har", {}), keep_of([2, 5], 24), falls=True)
    inputs = walks(Asked(terms.card), rows=3, lookback=24)
    row, scale = terms.rows(inputs)
    for i in range(3):
        means = []
        for falls in (False, True):
            for keep in (1 / 3, 2 / 3, 23 / 25):
                top = bottom = 0.0
                for move, seen in zip(inputs.past[i, :, 0].tolist(), inputs.mask[i].tolist()):
                    counted = min(move, 0.0) if falls else move
                    top, bottom = keep * top + seen * counted**2, keep * bottom + seen
                means.append(top / bottom)
        expected = 0.5 * np.log(np.array([*means[:2], *means[3:]]) / means[2])
        np.testing.assert_allclose(row[i], expected, rtol=1e-5, atol=1e-5)
        assert scale[i, 0] == pytest.approx(np.sqrt(means[2]), rel=1e-6)


def test_an_hour_is_where_its_bar_ends() -> None:
    for calendar, hours in SLOTS.items():
        known = msgspec.structs.replace(card("har", {}), future=[calendar])
        terms = SpreadTerms(known, keep_of([2], 24), calendar=calendar)
        ends = np.arange(0.25, hours + 0.25, 0.25)
        phase = 2 * np.pi * ends / hours
        future = np.repeat(np.stack([np.sin(phase), np.cos(phase)], axis=1)[:, None], 4, axis=1).astype(np.float32)
        past, mask = np.ones((len(ends), 24, 1), np.float32), np.ones((len(ends), 24), np.float32)
        row, _ = terms.rows(Inputs(past, mask, future, np.empty((len(ends), 0), np.float32)))
        assert terms.hours(row).tolist() == (np.ceil(ends) - 1).astype(int).tolist()


def test_what_is_realised_is_the_mean_square_up_to_each_step() -> None:
    steps = np.random.default_rng(0).standard_normal((5, 4))
    expected = [[np.log(np.mean(row[: h + 1] ** 2)) / 2 for h in range(4)] for row in steps]
    np.testing.assert_allclose(realised(np.cumsum(steps, axis=1)), expected, atol=2e-2)
    assert np.isfinite(realised(np.zeros((1, 4)))).all()


def test_a_season_has_a_constant_and_no_two_columns_that_say_the_same() -> None:
    for hours in (1, 24, 168):
        found = seasons(hours)
        assert (found[:, 0] == 1).all()
        assert np.linalg.matrix_rank(found) == found.shape[1]


def test_a_garch_that_was_planted_is_found(tmp_path: Path) -> None:
    """Its mean keeps .87, and .08 / (1 - .87) of the next variance are that mean's."""
    rng, variance, moves = np.random.default_rng(5), 1.0, []
    for shock in rng.standard_normal(40_000):
        moves.append(np.sqrt(variance) * shock)
        variance = 0.05 + 0.08 * moves[-1] ** 2 + 0.87 * variance
    close = 100 * np.exp(1e-3 * np.cumsum(moves))
    frame = market("A", len(close), 0).with_columns(close=pl.Series(close))
    made = job(tmp_path, [frame], kind="garch", model_params={"spans": [4, 14, 50], "rows": 40_000},
               **(ORDER | {"lookback": 200, "features": [], "future": []}))  # fmt: skip
    dataset = load_dataset(tmp_path, made)
    model: Any = fit.build(made, dataset)
    model.fit(dataset, Progress())
    assert "a mean over 14 bars" in model.card.description
    assert model.arrays["shares"][0] == pytest.approx(0.08 / 0.13, abs=0.15)
    assert surprise(np.zeros((3, 1)), np.ones(3), np.array([0.5])) == pytest.approx(0.0)


def test_that_falls_count_more_is_found_where_it_is_so(tmp_path: Path) -> None:
    rng, variance, moves = np.random.default_rng(6), 1.0, []
    for shock in rng.standard_normal(30_000):
        moves.append(np.sqrt(variance) * shock)
        variance = 0.05 + 0.16 * min(moves[-1], 0.0) ** 2 + 0.87 * variance
    close = 100 * np.exp(1e-3 * np.cumsum(moves))
    frame = market("A", len(close), 0).with_columns(close=pl.Series(close))
    shares = {}
    for kind in ("gjr", "garch"):
        made = job(tmp_path / kind, [frame], kind=kind, model_params={"spans": [14], "rows": 30_000},
                   **(ORDER | {"lookback": 200, "features": [], "future": []}))  # fmt: skip
        dataset = load_dataset(tmp_path / kind, made)
        model: Any = fit.build(made, dataset)
        model.fit(dataset, Progress())
        shares[kind] = model.arrays["shares"]
    assert shares["gjr"][1] > 5 * shares["gjr"][0]
    assert shares["gjr"][1] == pytest.approx(0.08 / 0.13, abs=0.2)
    assert len(shares["garch"]) == 1


@pytest.mark.parametrize(
    ("kind", "params", "fields"),
    [
        ("realised_range", {}, {}),
        ("realised_range", {"of": "close"}, {}),
        ("har", {"mode": "step"}, {"transform": "level"}),
        ("har", {"spans": []}, {}),
        ("gjr", {"spans": [0]}, {}),
        ("ewma_vol", {"rows": 10}, {}),
        ("garch", {"alpha": 0.1}, {}),
    ],
)
def test_what_it_cannot_do_is_refused(kind: str, params: dict[str, Any], fields: dict[str, Any]) -> None:
    with pytest.raises(BadSettings, match=kind):
        plugin.find("models", kind)(msgspec.structs.replace(card(kind, params), **fields))


def test_before_its_fit_it_does_not_answer_and_weights_of_another_horizon_are_refused(
    served: Any, tmp_path: Path
) -> None:
    folder, runner = served("har", "window")
    model = plugin.find("models", "har")(runner.card)
    with pytest.raises(BadModel, match="after its fit"):
        model.predict(walks(runner, rows=1, lookback=LOOKBACK))
    other = plugin.find("models", "har")(msgspec.structs.replace(runner.card, horizon=9))
    with pytest.raises(BadModel, match="does not fit"):
        other.load(folder)


def test_the_guide_names_every_parameter_with_its_default() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    (rows,) = [part for part in guide.split("\n## ") if part.startswith("Volatility")]
    both = rows.split("\nAll of them take ")[1].split("\n\n")[0]
    found = {line.split("`")[1]: line for line in rows.splitlines() if line.startswith("| `")}
    assert set(found) == set(KINDS)
    for kind, row in found.items():
        for name, default in msgspec.to_builtins(params_of(kind)).items():
            assert f"`{name}` ({default}" in row + both, (kind, name)


def params_of(kind: str) -> Any:
    return plugin.find("models", kind).params_type()  # type: ignore[attr-defined]


class Asked:
    """What `walks` asks of a Runner."""

    def __init__(self, card: ModelCard) -> None:
        self.card = card


def card(kind: str, params: dict[str, Any]) -> ModelCard:
    return ModelCard(
        name=kind, kind=kind, version="", digest="", framework="onnx", bars={}, transform="log_return", lookback=24,
        horizon=4, levels=[0.1, 0.5, 0.9], features=[], model_params=params,
    )  # fmt: skip
