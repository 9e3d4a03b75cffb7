"""Every combination keeps the contract of a model, answers what its members and its weights say, and refuses members
that do not go together.
"""

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from combokit import HORIZON, LONG, SHORT, SKILL, combination, fitted, history, member, served
from tickcast import plugin
from tickcast.batch.judge.hold_out import evaluate, last_value_widths
from tickcast.batch.train import fit
from tickcast.batch.train.dataset import load_dataset
from tickcast.columns import F32, F64, Inputs
from tickcast.engine.inference.load import open_model
from tickcast.engine.inference.model_folder import CARD
from tickcast.errors import BadData, BadModel, BadSettings
from tickcast.io.jobs.folder import MODEL
from tickcast.io.jobs.orders import FitOrder
from tickcast.plugin import Runner
from tickcast.testing import check_model, walks
from trainkit import Progress, autoregressive, job, series, walk

pytestmark = pytest.mark.slow

FRAMES = history()
METHODS: dict[str, dict[str, Any]] = {
    "mean": {}, "median": {"method": "median"}, "weighted": {"method": "weighted"},
    "given": {"method": "weighted", "weights": [3.0, 0.0, 1.0]}, "stacked": {"method": "stacked"}, "skill": SKILL,
    "gated": {"kind": "gated"},
}  # fmt: skip
CHANNELS = [{"kind": "log_return", "period": 3}, {"kind": "volume_ratio", "window": 5}]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`turning` and `going` know one half of the symbols each; a tree and a net learnt all of them."""
    folder = tmp_path_factory.mktemp("members")
    return {
        "turning": member(folder / "turning", "ridge", FRAMES[:2]),
        "going": member(folder / "going", "ridge", FRAMES[2:]),
        "trees": member(folder / "trees", "gradient_boosting", FRAMES, model_params={"trees": 5}),
        "net": member(folder / "net", "nlinear", FRAMES, horizon=HORIZON + 1, epochs=2, windows_per_epoch=512),
    }


@pytest.fixture(scope="module")
def made(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Runner]:
    three = [models["turning"], models["going"], models["net"]]
    return {
        name: served(tmp_path_factory.mktemp(name) / "job", three, FRAMES, **given) for name, given in METHODS.items()
    }


def of_member(path: Path, inputs: Inputs) -> F32:
    """What a member says about the newest part of the window."""
    runner = open_model(path)
    last = slice(-runner.card.lookback, None)
    past, mask = np.ascontiguousarray(inputs.past[:, last]), np.ascontiguousarray(inputs.mask[:, last])
    return runner.predict(Inputs(past, mask, inputs.future, inputs.static))[:, :HORIZON]


@pytest.mark.parametrize("name", METHODS)
def test_fitted_and_served_it_keeps_the_contract(made: dict[str, Runner], name: str) -> None:
    check_model(lambda _: made[name], lookback=LONG)
    assert made[name].card.metrics["parity"] <= 1e-4  # of graph and members, at batches of 1, 7 and 256


@pytest.mark.parametrize("rows", [1, 7, 256])
def test_it_answers_what_its_members_and_its_weights_say(
    made: dict[str, Runner], models: dict[str, Path], rows: int
) -> None:
    inputs = walks(made["mean"], rows=rows, lookback=LONG, seed=rows)
    said = np.stack([of_member(models[name], inputs) for name in ("turning", "going", "net")])
    close = partial(np.testing.assert_allclose, atol=1e-5)
    close(made["mean"].predict(inputs), said.mean(axis=0))
    close(made["median"].predict(inputs), np.median(said, axis=0))
    close(made["given"].predict(inputs), 0.75 * said[0] + 0.25 * said[2])
    learnt = made["weighted"].card.metrics["members"]
    assert len(learnt) == 3
    skill = skill_weights([models[name] for name in ("turning", "going", "net")], inputs, made["skill"])
    close(made["skill"].predict(inputs), np.einsum("nm,mnhq->nhq", skill, said), atol=1e-4)


def skill_weights(paths: list[Path], inputs: Inputs, runner: Runner) -> F64:
    """By the definition, one window, origin and step at a time."""
    levels, wrong = np.array(runner.card.levels), np.zeros((len(inputs), len(paths)))
    known, of = np.zeros(len(inputs)), 0
    own = np.where(inputs.mask > 0, inputs.past[:, :, 0], 0.0)
    backs = [SKILL["stride"] * (1 + i) for i in range(SKILL["origins"])]
    for back in backs:
        at, window = LONG - 1 - back, slice(LONG - back - SHORT, LONG - back)
        then = Inputs(inputs.past[:, window], inputs.mask[:, window], inputs.future, inputs.static)
        said = [of_member(path, then) for path in paths]
        for step in range(1, min(HORIZON, back) + 1):
            of += 1
            for row in range(len(inputs)):
                if not (inputs.mask[row, at] and inputs.mask[row, at + step]):
                    continue
                known[row] += 1
                moved = own[row, at + 1 : at + step + 1].sum()
                for i, answer in enumerate(said):
                    error = moved - answer[row, step - 1]
                    wrong[row, i] += np.maximum(levels * error, (levels - 1) * error).sum() / np.sqrt(step)
    sharpness = float(runner.card.description.split("sharpness ")[1].split(",")[0])
    relative = wrong / np.maximum(wrong.mean(axis=1, keepdims=True), 1e-20) * (known / of)[:, None]
    raised = np.exp(-sharpness * relative)
    return raised / raised.sum(axis=1, keepdims=True)


def test_recent_skill_and_the_gate_find_out_which_member_a_symbol_needs(made: dict[str, Runner]) -> None:
    """Half of the symbols turn back and half go on: no fixed weights serve both."""
    error = {name: runner.card.metrics["pinball"] for name, runner in made.items()}
    assert error["skill"] < 0.97 * error["stacked"]
    assert error["gated"] < 0.97 * error["stacked"]
    assert error["stacked"] <= 1.01 * error["mean"]
    best = min(one["pinball"] for one in made["skill"].card.metrics["members"])
    assert min(error.values()) < best


def test_the_card_names_the_members_and_what_each_is_worth_alone(
    made: dict[str, Runner], models: dict[str, Path], tmp_path: Path
) -> None:
    cards = [open_model(models[name]).card for name in ("turning", "going", "net")]
    card = made["stacked"].card
    told = card.metrics["members"]
    assert [one["digest"] for one in told] == [one.digest for one in cards] == card.model_params["members"]
    assert [one["parameters"] for one in told] == [one.parameters for one in cards]
    assert "stacked: turning@" in card.description
    order = combination(tmp_path / "job", [models["net"]], FRAMES)
    dataset = load_dataset(tmp_path / "job", order)
    widths = last_value_widths(dataset, dataset.parts.calibration, order.levels)
    alone = evaluate(partial(of_member, models["net"]), widths, dataset, dataset.parts.holdout, order.levels)
    assert told[2]["skill"] == pytest.approx(alone["skill"], abs=1e-6)
    assert told[2]["mae"] == pytest.approx(alone["mae"], rel=1e-5)


def test_its_parameters_are_those_of_its_members_and_what_it_learnt(models: dict[str, Path], tmp_path: Path) -> None:
    two = [models["net"], models["trees"]]
    alone = open_model(models["net"]).card.parameters
    for given, learnt in (({}, 0), ({"method": "stacked"}, 2), (SKILL, 1), ({"kind": "gated", "hidden": 4}, 26)):
        model = fitted(tmp_path / "job", two, FRAMES, **given)  # type: ignore[arg-type]
        assert model.card.parameters == alone + learnt


@pytest.mark.parametrize("given", [{"method": "weighted"}, {"kind": "gated", "hidden": 2}], ids=["weighted", "gated"])
def test_what_it_saved_it_loads(given: dict[str, Any], models: dict[str, Path], tmp_path: Path) -> None:
    def make(seed: int) -> Any:
        frames = history(first_seed=100 * seed)
        return fitted(tmp_path / str(seed), [models["turning"], models["going"]], frames, **given)

    (tmp_path / "files").mkdir()
    check_model(make, lookback=LONG, folder=tmp_path / "files")
    alone = plugin.find("models", given.get("kind", "ensemble"))(make(1).card)
    alone.load(tmp_path / "files")
    with pytest.raises(BadModel, match=r"model\.onnx ever after"):
        alone.predict(walks(alone, rows=1, lookback=LONG))
    (tmp_path / "files" / "weights.safetensors").write_bytes(b"\0" * 9)
    with pytest.raises(BadModel, match="cannot be read"):
        alone.load(tmp_path / "files")


@pytest.mark.parametrize("transform", ["level", "difference"])
def test_members_with_channels_of_their_own_and_a_calendar_are_fed_by_name(transform: str, tmp_path: Path) -> None:
    frames, order = FRAMES[:2], {"transform": transform, "future": ["time_of_day", "day_of_week"]}
    wide = member(tmp_path / "wide", "ridge", frames, **order, features=CHANNELS, lookback=LONG)
    narrow = member(
        tmp_path / "narrow", "ridge", frames, transform=transform, features=CHANNELS[1:], future=[*order["future"][1:]]
    )
    runner = served(tmp_path / "job", [wide, narrow], frames, **order, features=CHANNELS)
    check_model(lambda _: runner, lookback=LONG)
    inputs = walks(runner, rows=9, lookback=LONG)
    newest = (slice(None), slice(LONG - SHORT, None))
    part = Inputs(inputs.past[newest][:, :, [0, 2]], inputs.mask[newest], inputs.future[:, :, 2:], inputs.static)
    said = np.stack([of_member(wide, inputs), of_member(narrow, part)])
    np.testing.assert_allclose(runner.predict(inputs), said.mean(axis=0), atol=1e-5)
    with pytest.raises(BadSettings, match="calendar"):
        fitted(tmp_path / "job", [narrow], frames, **order, features=CHANNELS, **SKILL)


def test_on_levels_recent_skill_and_the_gate_agree_with_their_graphs(tmp_path: Path) -> None:
    frames = FRAMES[:2]
    members = [
        member(tmp_path / "ridge", "ridge", frames, transform="level"),
        member(tmp_path / "theta", "theta", frames, transform="level"),
    ]
    for given in (SKILL, {"kind": "gated"}):
        runner = served(tmp_path / "job", members, frames, transform="level", **given)
        check_model(lambda _: runner, lookback=LONG)  # noqa: B023
        assert runner.card.metrics["parity"] <= 1e-4
        shifted = walks(runner, rows=5, lookback=LONG)
        before = runner.predict(shifted)
        shifted.past[:] *= 64
        np.testing.assert_allclose(runner.predict(shifted), 64 * before, rtol=1e-3, atol=1e-3)


def test_a_combination_may_be_a_member(models: dict[str, Path], tmp_path: Path) -> None:
    combination(tmp_path / "inner", [models["turning"], models["going"]], FRAMES, lookback=SHORT, name="inner")
    inner = tmp_path / "inner" / str(fit.run(tmp_path / "inner", Progress())["model"])
    runner = served(tmp_path / "outer", [inner, models["net"]], FRAMES)
    inputs = walks(runner, rows=9, lookback=LONG)
    said = [of_member(path, inputs) for path in (models["turning"], models["going"], models["net"])]
    np.testing.assert_allclose(runner.predict(inputs), said[0] / 4 + said[1] / 4 + said[2] / 2, atol=1e-5)


@pytest.mark.parametrize(
    ("over", "error", "why"),
    [
        ({"transform": "difference"}, BadModel, "has transform = log_return"),
        ({"levels": [0.1, 0.5, 0.9]}, BadModel, "has levels"),
        ({"bars": {"kind": "tick"}}, BadModel, "has bars"),
        ({"lookback": SHORT - 1}, BadModel, "lookback 16 and horizon"),
        ({"horizon": HORIZON + 1}, BadModel, "lookback 16 and horizon"),
        ({"members": []}, BadSettings, "needs members"),
        ({"members": ["0" * 64, "1" * 64]}, BadModel, "not those of the order"),
        ({"members": ["turning", "going"]}, BadSettings, "ensemble: .*regex"),
        ({"method": "skill"}, BadSettings, "takes a window of 28 bars, not 24"),
        ({"method": "weighted", "weights": [1.0]}, BadSettings, "one for each member"),
        ({"method": "weighted", "weights": [0.0, 0.0]}, BadSettings, "all zero"),
        ({"rows": 1}, BadSettings, "rows"),
    ],
)
def test_what_does_not_go_together_is_refused(
    over: dict[str, Any], error: type[Exception], why: str, models: dict[str, Path], tmp_path: Path
) -> None:
    combination(tmp_path, [models["turning"], models["going"]], FRAMES, over)
    with pytest.raises(error, match=why):
        fit.run(tmp_path, Progress())
    assert not (tmp_path / MODEL).exists()


def test_a_member_that_is_missing_damaged_twice_there_or_sees_more_is_refused(
    models: dict[str, Path], tmp_path: Path
) -> None:
    two = [models["turning"], models["going"]]
    combination(tmp_path, two, FRAMES)
    shutil.rmtree(tmp_path / "members" / "1")
    assert "not those of the order" in refused(tmp_path, BadModel)
    combination(tmp_path, two, FRAMES)
    graph = tmp_path / "members" / "1" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\x01")
    assert "damaged" in refused(tmp_path, BadModel)
    combination(tmp_path, two, FRAMES)
    (tmp_path / "members" / "0" / CARD).unlink()
    assert "cannot read" in refused(tmp_path, BadModel)
    combination(tmp_path, [two[0], two[0]], FRAMES)
    assert "each of them once" in refused(tmp_path, BadSettings)
    seeing = member(tmp_path / "seeing", "ridge", FRAMES[:2], features=CHANNELS[:1])
    combination(tmp_path / "job", [seeing], FRAMES[:2])
    assert "reads log_return_3" in refused(tmp_path / "job", BadModel)


def refused(folder: Path, error: type[Exception]) -> str:
    with pytest.raises(error) as raised:
        fit.run(folder, Progress())
    return str(raised.value)


def test_members_that_know_the_hold_out_and_a_history_that_never_moves_are_refused(
    models: dict[str, Path], tmp_path: Path
) -> None:
    earlier = [series("A", autoregressive(700, seed=0))]  # its hold-out lies in what the members learnt from
    combination(tmp_path, [models["turning"]], earlier)
    assert "was fitted on bars of the hold-out" in refused(tmp_path, BadData)
    combination(tmp_path, [models["turning"]], [series("A", walk(900, seed=0, sigma=0.0))])
    assert "ever moved" in refused(tmp_path, BadData)
    combination(tmp_path, [models["turning"], models["going"]], FRAMES, kind="gated")
    told = Progress(enough=1)
    fit.run(tmp_path, told)
    assert len(told.lines) == 1  # it ended when it was asked to


def test_a_net_refuses_members(models: dict[str, Path], tmp_path: Path) -> None:
    combination(tmp_path, [models["turning"]], FRAMES, kind="nlinear")
    assert "members" in refused(tmp_path, BadSettings)
    assert FitOrder.read(tmp_path).kind == "nlinear"


def bending(n: int, *, seed: int) -> F64:
    """Prices whose next move follows from how large the last one was, whichever way that went: no line can say so."""
    noise, moves = np.random.default_rng(seed).normal(0, 0.1, n), np.zeros(n)
    for i in range(1, n):
        moves[i] = np.clip(1 - 1.95 * abs(moves[i - 1]) + noise[i], -1, 1)
    return 100 * np.exp(1e-3 * np.cumsum(moves))


@pytest.mark.parametrize("statistical", ["linear", "seasonal"])
def test_a_hybrid_learns_what_a_line_leaves_over(statistical: str, tmp_path: Path) -> None:
    frames = [series(name, bending(1500, seed=i)) for i, name in enumerate("AB")]
    params = {"statistical": statistical, "hidden": 16, "rate": 0.01}
    job(tmp_path / "hybrid", frames, kind="hybrid", lookback=SHORT, horizon=HORIZON, model_params=params)
    runner = open_model(tmp_path / "hybrid" / str(fit.run(tmp_path / "hybrid", Progress())["model"]))
    check_model(lambda _: runner, lookback=SHORT)
    line = open_model(member(tmp_path / "line", "ridge", frames)).card.metrics["skill"]
    assert runner.card.metrics["skill"] > line + 0.05
    model = plugin.find("models", "hybrid")(runner.card)
    model.load(tmp_path / "hybrid" / MODEL)
    for rows in (1, 7, 256):
        inputs = walks(runner, rows=rows, lookback=SHORT, seed=rows)
        np.testing.assert_allclose(model.predict(inputs), runner.predict(inputs), atol=1e-4)


def test_a_hybrid_keeps_the_contract_and_its_net_away_where_it_does_not_help(tmp_path: Path) -> None:
    def make(seed: int) -> Any:
        frames = [series(name, autoregressive(500, seed=2 * seed + i)) for i, name in enumerate("AB")]
        order = job(tmp_path / str(seed), frames, kind="hybrid", lookback=20, horizon=1, model_params={"passes": 2})
        dataset = load_dataset(tmp_path / str(seed), order)
        model: Any = fit.build(order, dataset)
        model.fit(dataset, Progress())
        return model

    (tmp_path / "files").mkdir()
    check_model(make, lookback=20, folder=tmp_path / "files")
    order = job(
        tmp_path / "0", [series("A", walk(500, seed=1))], kind="hybrid", model_params={"rate": 0.1, "passes": 1}
    )
    dataset = load_dataset(tmp_path / "0", order)
    model: Any = fit.build(order, dataset)
    model.fit(dataset, Progress())
    assert "its net after 0 passes: 0.00%" in model.card.description
    assert not model.arrays["answer_weights"].any()
