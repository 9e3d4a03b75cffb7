"""Fits that add to what a model has counted: exact, no window twice, judged on news, refused where they cannot be."""

import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file, save_file
from sklearn.linear_model import Ridge
from sklearn.naive_bayes import GaussianNB

from tickcast import plugin
from tickcast.batch.train import fit
from tickcast.batch.train.dataset import load_dataset
from tickcast.batch.train.fit_job import FitJob, Parent
from tickcast.clock import SystemClock
from tickcast.columns import F64
from tickcast.direction import classes_of
from tickcast.engine.inference.load import open_model
from tickcast.engine.inference.model_folder import CARD, file_sha256, read_card
from tickcast.errors import BadData, BadModel, BadSettings
from tickcast.io.jobs.folder import START
from tickcast.io.jobs.orders import Against, FitOrder, WarmStart
from tickcast.records import digest
from tickcast_plugins.models.counting import SUMS
from tickcast_plugins.models.linear import few_rows
from tickcast_plugins.models.naive_bayes import SMOOTHED, normal_plane
from trainkit import EVERY_NS, Progress, autoregressive, job, model_of, series

BARS, HORIZON = 1500, 3
ONE_PENALTY = {"penalties": [1e-3]}
KINDS: dict[str, dict[str, Any]] = {
    "ridge": ONE_PENALTY, "lasso": ONE_PENALTY, "elasticnet": ONE_PENALTY, "naive_bayes": {},
}  # fmt: skip
CHANNELS = [{"kind": "volume_ratio", "window": 5, "normalization": "log"}, {"kind": "rolling_std", "window": 4}]
PARTIAL = WarmStart(mode="partial")


def frames(bars: int) -> list[pl.DataFrame]:
    """The second symbol has a bar every third second, so that its windows reach further."""
    slow = series("B", autoregressive(BARS, seed=1)[: bars // 3])
    slow = slow.with_columns(pl.col("as_of_ns") * 3)
    return [series("A", autoregressive(BARS, seed=0)[:bars]), slow]


def ordered(folder: Path, count: int, kind: str = "ridge", start: Path | None = None, **order: Any) -> FitOrder:
    small = {"lookback": 12, "horizon": HORIZON, "model_params": KINDS.get(kind, {}), "kind": kind}
    if start is None:
        return job(folder, frames(count), **{**small, **order})
    made = job(folder, frames(count), **{**small, "start": PARTIAL, **order})
    shutil.copytree(start, folder / START)
    return made


def model(folder: Path, bars: int, kind: str = "ridge", start: Path | None = None, **order: Any) -> Path:
    ordered(folder, bars, kind, start, **order)
    return model_of(folder)


def chain(folder: Path, kind: str, bars: list[int], **order: Any) -> Path:
    """A fit, and others that go on from it."""
    found: Path | None = None
    for number, count in enumerate(bars):
        found = model(folder / str(number), count, kind, found, **order)
    assert found is not None
    return found


def bars_for(counted_to_ns: int) -> int:
    """So many that a fit in full of these learns from windows up to just there."""
    n = counted_to_ns // EVERY_NS
    while 1 + int((n - 1) * 0.7) < counted_to_ns // EVERY_NS:
        n += 1
    return n


def loaded(folder: Path) -> Any:
    card = read_card(folder)
    found: Any = plugin.find("models", card.kind)(card)
    found.load(folder)
    return found


def windows(folder: Path, bars: int, to_ns: int, **order: Any) -> tuple[F64, F64]:
    """All rows and moves whose targets ended by then, in the units of the model in `folder`."""
    card, at = read_card(folder), folder.parent / "windows"
    made = job(
        at, frames(bars), kind=card.kind, lookback=card.lookback, horizon=HORIZON, **{"model_params": {}, **order}
    )
    dataset = load_dataset(at, made)
    history = dataset.history
    rows = np.sort(np.concatenate([dataset.parts.train, dataset.parts.validation, dataset.parts.calibration]))
    every = np.concatenate([rows, dataset.parts.holdout])
    assert history.bars.as_of[every + HORIZON].max() > to_ns
    usable = np.arange(len(history))
    held = usable - history.bars.start[history.symbol] >= dataset.need_bars - 1
    ahead = usable + HORIZON < history.ends[history.symbol]
    rows = usable[held & ahead]
    rows = rows[history.bars.as_of[rows + HORIZON] <= to_ns]
    found = loaded(folder)
    inputs, target, _ = dataset.batch(rows)
    x, scale = found._row().rows(inputs)
    return x.astype(np.float64), target.astype(np.float64) / scale


@pytest.mark.parametrize("kind", KINDS)
def test_three_fits_that_go_on_are_one_fit_on_all_bars(tmp_path: Path, kind: str) -> None:
    found = chain(tmp_path, kind, [600, 750, 900, 1100])
    counted = read_card(found).metrics["start"]
    whole = model(tmp_path / "whole", bars_for(counted["counted_to_ns"]), kind)
    ours, theirs = load_file(found / SUMS), load_file(whole / SUMS)
    np.testing.assert_array_equal(ours.pop("count"), theirs.pop("count"))
    assert counted["windows"] > counted["before"] > 700
    for name, sums in theirs.items():
        np.testing.assert_allclose(ours[name], sums, rtol=1e-9, atol=1e-9 * np.abs(sums).max())
    if kind != "naive_bayes":  # whose scores the validation part adjusts
        for name in ("weights", "bias"):
            one, other = (loaded(folder).arrays[name] for folder in (found, whole))
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9 * np.abs(other).max())


def test_a_ridge_that_went_on_is_sklearn_s_on_all_windows_in_the_units_of_the_first_fit(tmp_path: Path) -> None:
    order: dict[str, Any] = {"features": CHANNELS, "future": ["time_of_day"]}
    found = chain(tmp_path, "ridge", [600, 750, 900], **order)
    np.testing.assert_array_equal(loaded(found).arrays["center"], loaded(tmp_path / "0/model").arrays["center"])
    to_ns = read_card(found).metrics["start"]["counted_to_ns"]
    x, y = windows(found, 900, to_ns, **order)
    assert len(x) == read_card(found).metrics["start"]["windows"]
    unit = np.sqrt(np.arange(1, HORIZON + 1))
    oracle = Ridge(alpha=1e-3 * len(x)).fit(x, y / unit)
    np.testing.assert_allclose(loaded(found).arrays["weights"], oracle.coef_.T * unit, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(loaded(found).arrays["bias"], oracle.intercept_ * unit, rtol=1e-9, atol=1e-12)


def test_a_naive_bayes_that_went_on_is_sklearn_s_on_all_windows(tmp_path: Path) -> None:
    found = chain(tmp_path, "naive_bayes", [600, 750, 900])
    sums, to_ns = load_file(found / SUMS), read_card(found).metrics["start"]["counted_to_ns"]
    x, y = windows(found, 900, to_ns)
    known = classes_of(y, loaded(found).params.band)
    np.testing.assert_array_equal(loaded(found).arrays["knots"], loaded(tmp_path / "0/model").arrays["knots"])
    for step in range(HORIZON):
        oracle = GaussianNB(var_smoothing=SMOOTHED).fit(x, known[:, step])
        weights, bias = normal_plane(sums["counts"][step], sums["columns"][step])
        half, variance = x.shape[1], oracle.var_
        np.testing.assert_allclose(weights[:, :half], oracle.theta_ / variance, rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(weights[:, half:], -0.5 / variance, rtol=1e-9)
        likely = oracle.predict_log_proba(x[:50])
        ours = np.concatenate([x[:50], x[:50] ** 2], axis=1) @ weights.T + bias
        np.testing.assert_allclose(ours - ours[:, :1], likely - likely[:, :1], rtol=1e-8, atol=1e-8)


def test_few_rows_have_the_products_of_all() -> None:
    rng = np.random.default_rng(0)
    columns = np.concatenate([np.ones((400, 1)), rng.normal(2, 1, (400, 3)), np.full((400, 1), 7.0)], axis=1)
    mean, rows = few_rows(columns.T @ columns)
    np.testing.assert_allclose(mean, columns[:, 1:].mean(axis=0))
    about = columns[:, 1:] - mean
    np.testing.assert_allclose(rows.T @ rows / len(rows), about.T @ about / 400, atol=1e-12)


def test_it_is_judged_on_news_alone_and_knows_what_all_before_it_saw(tmp_path: Path) -> None:
    first, second, third = (tmp_path / str(number) / "model" for number in range(3))
    chain(tmp_path, "ridge", [600, 900, 1200])
    for parent, child, bars in ((first, second, 900), (second, third, 1200)):
        seen = read_card(parent).trained_to_ns
        order = FitOrder.read(child.parent)
        found = load_dataset(child.parent, order, seen_to_ns=seen)
        as_of = found.history.bars.as_of
        for part in (found.parts.validation, found.parts.calibration, found.parts.holdout):
            assert as_of[part].min() > seen + HORIZON * EVERY_NS
        card = read_card(child)
        assert (card.trained_from_ns, card.parent) == (read_card(first).trained_from_ns, read_card(parent).digest)
        assert seen < card.trained_to_ns < bars * EVERY_NS
        assert card.metrics["start"]["counted_to_ns"] <= card.trained_to_ns


def test_where_a_contest_would_follow_both_fits_go_on_from_the_parent(tmp_path: Path) -> None:
    parent = model(tmp_path / "first", 700)
    against = Against(alpha=0.05, most_bars=100_000)
    ordered(tmp_path / "job", 1400, start=parent, against=against)
    made = fit.run(tmp_path / "job", Progress())
    judged, before = read_card(tmp_path / "job/model"), read_card(parent).metrics
    assert judged.metrics["start"]["before"] == load_file(parent / SUMS)["count"][1]
    if not made["against"]["terms"]["refusal"]:
        final = read_card(tmp_path / "job" / made["model"])
        assert final.metrics["start"]["before"] == judged.metrics["start"]["before"]
        assert final.metrics["start"]["windows"] > judged.metrics["start"]["windows"]
        assert final.trained_to_ns == 1400 * EVERY_NS
    assert "start" not in before


def test_of_many_windows_as_large_a_share_is_added_as_was_taken_before(tmp_path: Path) -> None:
    params = {"rows": 200, **ONE_PENALTY}
    found = chain(tmp_path, "ridge", [600, 900], model_params=params)
    (there, taken, _), (first_there, first_taken, _) = (
        load_file(folder / SUMS)["count"] for folder in (found, tmp_path / "0/model")
    )
    assert first_taken == 200 < first_there
    assert (taken - first_taken) / (there - first_there) == pytest.approx(first_taken / first_there, abs=0.005)


def test_what_was_counted_before_may_be_forgotten(tmp_path: Path) -> None:
    half_life = 150.0
    first = model(tmp_path / "first", 600, model_params={**ONE_PENALTY, "forget": half_life})
    found = model(tmp_path / "second", 900, start=first, model_params={})
    kept = model(tmp_path / "kept", 900, start=model(tmp_path / "first-too", 600), model_params={})
    before, now, all_of_it = (load_file(folder / SUMS)["products"] for folder in (first, found, kept))
    new, count = all_of_it - before, load_file(kept / SUMS)["count"]
    bars = (int(count[2]) - int(load_file(first / SUMS)["count"][2])) // EVERY_NS
    np.testing.assert_allclose(now, before * 0.5 ** (bars / half_life) + new, rtol=1e-9, atol=1e-9)


def test_nothing_that_serves_opens_the_sums(tmp_path: Path) -> None:
    folder = model(tmp_path, 600)
    runner = open_model(folder)
    (folder / SUMS).write_bytes(b"no sums at all, and none need be here")
    card = read_card(folder)
    changed = msgspec.structs.replace(card, artefacts={**card.artefacts, SUMS: file_sha256(folder / SUMS)})
    (folder / CARD).write_bytes(msgspec.json.encode(msgspec.structs.replace(changed, digest=digest(changed))))
    assert open_model(folder).card.parameters == runner.card.parameters


def hostile(folder: Path, **changed: Any) -> None:
    """A parent whose sums are other ones, with a card that knows them."""
    arrays = load_file(folder / SUMS)
    save_file({name: array for name, array in {**arrays, **changed}.items() if array is not None}, folder / SUMS)
    card = read_card(folder)
    new = msgspec.structs.replace(card, artefacts={**card.artefacts, SUMS: file_sha256(folder / SUMS)})
    (folder / CARD).write_bytes(msgspec.json.encode(msgspec.structs.replace(new, digest=digest(new))))


@pytest.mark.parametrize(
    "changed",
    [
        {"products": np.full((16, 16), np.nan)}, {"products": np.ones((4, 4))}, {"products": -np.eye(16)},
        {"products": None},
        {"products": np.ones((16, 16), np.float32)}, {"count": np.array([5, 9, 9])}, {"count": np.zeros(3, np.int64)},
        {"count": np.ones(3)}, {"other": np.ones(3)},
    ],
)  # fmt: skip
def test_sums_that_are_none_are_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    parent = model(tmp_path / "first", 600)
    assert load_file(parent / SUMS)["products"].shape == (16, 16)
    hostile(parent, **changed)
    ordered(tmp_path / "job", 900, start=parent)
    with pytest.raises(BadModel, match="does not hold the sums"):
        model_of(tmp_path / "job")


def test_a_model_without_sums_is_refused_with_the_way_out(tmp_path: Path) -> None:
    parent = model(tmp_path / "first", 600)
    (parent / SUMS).unlink()
    card = read_card(parent)
    new = msgspec.structs.replace(card, artefacts={n: h for n, h in card.artefacts.items() if n != SUMS})
    (parent / CARD).write_bytes(msgspec.json.encode(msgspec.structs.replace(new, digest=digest(new))))
    ordered(tmp_path / "job", 900, start=parent)
    with pytest.raises(BadModel, match="has kept no sums") as refused:
        model_of(tmp_path / "job")
    assert "once in full" in refused.value.remedy


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"lookback": 10}, "another lookback"), ({"horizon": 2}, "another horizon"),
        ({"model_params": {"penalties": [1.0]}}, "another penalties"),
        ({"bars": {"kind": "time", "every_ms": 500, "on_gap": "carry"}}, "another bars"),
    ],
)  # fmt: skip
def test_a_parent_of_another_recipe_is_refused(tmp_path: Path, changed: dict[str, Any], match: str) -> None:
    parent = model(tmp_path / "first", 600)
    ordered(tmp_path / "job", 900, start=parent, **changed)
    with pytest.raises((BadModel, BadSettings), match=match):
        model_of(tmp_path / "job")


def test_a_fit_without_news_is_refused(tmp_path: Path) -> None:
    parent = model(tmp_path / "first", 600)
    ordered(tmp_path / "job", 500, start=parent)
    with pytest.raises(BadData, match="and news"):
        model_of(tmp_path / "job")


@pytest.mark.parametrize(
    ("kind", "remedy"), [("decision_tree", "without start"), ("ar", "without start"), ("nlinear", "warm or finetune")]
)
def test_kinds_that_keep_no_sums_are_refused_with_what_they_can(tmp_path: Path, kind: str, remedy: str) -> None:
    order = ordered(tmp_path, 600, kind)
    dataset = load_dataset(tmp_path, order)
    net = fit.build(order, dataset)
    told = FitJob(tmp_path, order, Parent(PARTIAL, tmp_path, net.card), Progress(), SystemClock())
    with pytest.raises(BadSettings, match="keeps no sums") as refused:
        fit._fit(net, dataset, told)
    assert remedy in refused.value.remedy


def test_what_fits_itself_and_counts_is_told_of_the_mode_that_it_has(tmp_path: Path) -> None:
    parent = model(tmp_path / "first", 600)
    ordered(tmp_path / "job", 900, start=parent)
    FitOrder.read(tmp_path / "job")
    made = msgspec.structs.replace(FitOrder.read(tmp_path / "job"), start=WarmStart(mode="warm"))
    made.write(tmp_path / "job")
    with pytest.raises(BadSettings, match="fits itself") as refused:
        model_of(tmp_path / "job")
    assert refused.value.remedy == "set start.mode = partial"


def test_sums_have_no_weights_that_could_stay() -> None:
    with pytest.raises(ValueError, match="freeze"):
        WarmStart(mode="partial", freeze=["x"])
