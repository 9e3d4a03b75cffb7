"""Every classical model keeps the contract, learns what can be known, and serves without the library that fitted it."""

import subprocess
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tickcast import plugin
from tickcast.batch.train import fit
from tickcast.batch.train.dataset import load_dataset
from tickcast.engine.inference.load import open_model
from tickcast.errors import BadData, BadModel, BadSettings
from tickcast.io.jobs.folder import MODEL
from tickcast.plugin import Runner
from tickcast.records import ModelCard
from tickcast.testing import check_model, walks
from trainkit import Progress, autoregressive, job, model_of, series, sine, walk

PERIOD = 16
SKILL = {  # by kind: on an autoregression, of which 0.107 can be known; and on a noisy sine
    "ridge": (0.08, 0.85), "lasso": (0.08, 0.85), "elasticnet": (0.08, 0.85), "ar": (0.08, 0.85),
    "decision_tree": (0.05, 0.8), "random_forest": (0.08, 0.85), "bagging": (0.08, 0.85),
    "gradient_boosting": (0.08, 0.85), "svr": (0.065, 0.75), "kalman": (0.065, 0.1), "ets": (0.065, 0.85),
    "arima": (0.08, 0.8), "prophet_like": (0.05, 0.85), "theta": (0.065, None),
    "mstl": (0.065, 0.85),
}  # fmt: skip
SEASON = {
    "ets": {"season_bars": PERIOD}, "arima": {"season_bars": PERIOD}, "prophet_like": {"periods": [PERIOD]},
    "mstl": {"periods": [PERIOD]},
}  # fmt: skip
CHANNELS = [{"kind": "log_return", "period": 3}, {"kind": "volume_ratio", "window": 5, "normalization": "log"}]
SMALL = {"lookback": 20, "horizon": 3}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], tuple[Path, Runner]]:
    """Fitted once per kind and series, and opened as the daemon does."""

    @cache
    def get(kind: str, name: str) -> tuple[Path, Runner]:
        make, transform = {"sine": (sine, "level"), "autoregressive": (autoregressive, "log_return")}[name]
        params = SEASON.get(kind, {}) if name == "sine" else {}
        folder = tmp_path_factory.mktemp(f"{kind}-{name}")
        frames = [series(s, make(1500, seed=i)) for i, s in enumerate("AB")]
        job(folder, frames, kind=kind, transform=transform, lookback=2 * PERIOD, model_params=params)
        model = model_of(folder)
        return model, open_model(model)

    return get


@pytest.mark.slow
@pytest.mark.parametrize("kind", SKILL)
def test_fitted_and_served_it_beats_last_value_on_an_autoregression(served: Any, kind: str) -> None:
    _, runner = served(kind, "autoregressive")
    metrics = runner.card.metrics
    assert metrics["skill"] > SKILL[kind][0]
    assert metrics["mae"] < metrics["mae_naive"]
    assert metrics["coverage"]["0.9"] == pytest.approx(0.9, abs=0.08)
    assert "windows" in runner.card.description
    check_model(lambda _: runner, lookback=2 * PERIOD)


@pytest.mark.parametrize("kind", [kind for kind, (_, skill) in SKILL.items() if skill])
def test_fitted_and_served_it_beats_last_value_on_a_sine(served: Any, kind: str) -> None:
    _, runner = served(kind, "sine")
    assert runner.card.metrics["skill"] > SKILL[kind][1]
    check_model(lambda _: runner, lookback=2 * PERIOD)


@pytest.mark.parametrize("kind", SKILL)
@pytest.mark.parametrize("name", ["sine", "autoregressive"])
def test_loaded_from_its_weights_it_answers_as_its_graph_does(served: Any, kind: str, name: str) -> None:
    folder, runner = served(kind, name)
    model = plugin.find("models", kind)(runner.card)
    model.load(folder)
    for rows in (1, 7, 256):
        inputs = walks(runner, rows=rows, lookback=2 * PERIOD, seed=rows)
        np.testing.assert_allclose(model.predict(inputs), runner.predict(inputs), atol=1e-4)


def fitted(folder: Path, kind: str, order: dict[str, Any], seed: int) -> Any:
    """A small fit, without its folder; another seed is another history."""
    closes = [autoregressive(500, seed=2 * seed + i) for i in range(2)]
    made = job(folder / str(seed), [series(s, c) for s, c in zip("AB", closes)], kind=kind, model_params={}, **order)
    dataset = load_dataset(folder / str(seed), made)
    model: Any = fit.build(made, dataset)
    model.fit(dataset, Progress())
    return model


@pytest.mark.parametrize("kind", SKILL)
def test_it_keeps_the_contract(kind: str, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    check_model(partial(fitted, tmp_path, kind, SMALL), lookback=20, folder=tmp_path / "files")


@pytest.mark.slow
@pytest.mark.parametrize("transform", ["log_return", "difference", "level"])
@pytest.mark.parametrize("kind", ["ridge", "random_forest"])
def test_with_channels_and_calendar_it_keeps_the_contract(kind: str, transform: str, tmp_path: Path) -> None:
    order = SMALL | {"features": CHANNELS, "future": ["time_of_day"], "transform": transform}
    check_model(partial(fitted, tmp_path, kind, order), lookback=20)
    model = open_model(model_of(tmp_path / "1"))
    check_model(lambda _: model, lookback=20)
    inputs = walks(model, rows=9, lookback=20)
    inputs.past[:, -1, 1:] += 2
    inputs.future[:] = 0
    changed = model.predict(inputs)
    assert not np.array_equal(changed, model.predict(walks(model, rows=9, lookback=20))), "it reads no channel"


def test_what_a_model_sees_it_sees_in_moves_of_the_window_so_units_do_not_matter(served: Any) -> None:
    _, runner = served("random_forest", "sine")
    inputs = walks(runner, rows=20, lookback=2 * PERIOD)
    answer = runner.predict(inputs)
    inputs.past[:] *= 1024
    np.testing.assert_array_equal(runner.predict(inputs), answer * 1024)


def test_a_report_that_says_no_ends_a_boosting_early(tmp_path: Path) -> None:
    closes = [sine(500, seed=i) for i in range(2)]
    order = job(tmp_path, [series(s, c) for s, c in zip("AB", closes)], kind="gradient_boosting", model_params={})
    dataset = load_dataset(tmp_path, order)
    model: Any = fit.build(order, dataset)
    model.fit(dataset, Progress(enough=3))
    assert "3 trees" in model.card.description


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        ("svr", {"rows": 10_001}),
        ("kalman", {"series": 201}),
        ("arima", {"bars": 5_001}),
        ("ets", {"season_bars": 13}),
        ("arima", {"season_bars": 1}),
        ("ridge", {"alpha": 1.0}),
        ("random_forest", {"depth": "deep"}),
    ],
)
def test_parameters_beyond_the_caps_or_unknown_are_refused(kind: str, params: dict[str, Any]) -> None:
    with pytest.raises(BadSettings, match=kind):
        plugin.find("models", kind)(card(kind, params))


def test_the_card_states_the_caps_that_the_fit_kept(served: Any) -> None:
    _, runner = served("kalman", "autoregressive")
    assert runner.card.model_params == {"series": 200, "bars": 5_000, "rows": 1_000}


def test_levels_without_a_median_are_refused() -> None:
    with pytest.raises(BadSettings, match=r"hold 0\.5"):
        plugin.find("models", "ridge")(msgspec.structs.replace(card("ridge", {}), levels=[0.1, 0.9]))


def test_before_its_fit_and_from_damaged_weights_it_does_not_answer(served: Any, tmp_path: Path) -> None:
    folder, runner = served("ridge", "autoregressive")
    model = plugin.find("models", "ridge")(runner.card)
    with pytest.raises(BadModel, match="after its fit"):
        model.predict(walks(runner, rows=1, lookback=2 * PERIOD))
    (tmp_path / "weights.safetensors").write_bytes((folder / "weights.safetensors").read_bytes()[:-9])
    with pytest.raises(BadModel, match="cannot be read"):
        model.load(tmp_path)
    other = plugin.find("models", "ridge")(msgspec.structs.replace(runner.card, horizon=9))
    with pytest.raises(BadModel, match="does not fit"):
        other.load(folder)


def test_a_history_that_never_moves_is_refused(tmp_path: Path) -> None:
    order = job(tmp_path, [series("A", walk(400, seed=0, sigma=0.0))], kind="ridge", model_params={})
    with pytest.raises(BadData, match="never moved|ever moved"):
        fit.run(tmp_path, Progress())
    assert not (tmp_path / MODEL).exists()
    assert order.kind == "ridge"


def test_serving_imports_no_library_that_fits(served: Any) -> None:
    folders = [str(served(kind, "autoregressive")[0]) for kind in ("random_forest", "svr", "arima")]
    code = (
        "import sys\nfrom pathlib import Path\nfrom tickcast.engine.inference.load import open_model\n"
        "for folder in sys.argv[1:]: open_model(Path(folder))\n"
        "heavy = {'sklearn', 'scipy', 'torch', 'onnx', 'statsforecast', 'tickcast_plugins'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, *folders], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_guide_names_every_parameter_with_its_default() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    (rows,) = [part for part in guide.split("\n## ") if part.startswith("Classical models")]
    found = {line.split("`")[1]: line for line in rows.splitlines() if line.startswith("| `")}
    assert set(found) == set(SKILL)
    for kind, row in found.items():
        if "| as `" in row:
            other = row.rsplit("| as `")[1].split("`")[0]
            assert (
                plugin.find("models", kind)(card(kind, {})).params
                == plugin.find("models", other)(card(other, {})).params
            )
            continue
        for name, default in msgspec.to_builtins(plugin.find("models", kind)(card(kind, {})).params).items():
            assert f"`{name}` ({default}" in row, (kind, name)


def card(kind: str, params: dict[str, Any]) -> ModelCard:
    return ModelCard(
        name=kind, kind=kind, version="", digest="", framework="onnx", bars={}, transform="level", lookback=24,
        horizon=4, levels=[0.1, 0.5, 0.9], features=[], model_params=params,
    )  # fmt: skip
