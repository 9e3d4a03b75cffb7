"""What its hold-out speaks for is fitted once more, on all bars; none of its figures comes from that fit."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tickcast.batch.train import fit
from tickcast.batch.train.classes import FREQUENCIES, usual_classes
from tickcast.batch.train.dataset import load_dataset
from tickcast.batch.train.fit import FINAL, OF_FIT
from tickcast.batch.train.fit_job import FitJob, InTwo, JudgedFit
from tickcast.batch.train.splits import CUTS, TO_THE_END
from tickcast.clock import SystemClock
from tickcast.columns import F64
from tickcast.engine.inference.load import open_model
from tickcast.engine.inference.model_folder import read_card
from tickcast.errors import BadData, BadSettings
from tickcast.io.jobs.folder import MODEL
from tickcast.io.jobs.orders import Against, FitOrder
from tickcast.records import ModelCard
from trainkit import EVERY_NS, Progress, autoregressive, job, series, walk

BARS, HORIZON = 1500, 2
AGAINST = Against(alpha=0.025, most_bars=5000)
ORDER: dict[str, Any] = {"kind": "ridge", "model_params": {}, "lookback": 8, "horizon": HORIZON}
LABELS = ("loss", "missed")  # of a reference, how the names of what the hold-out says begin


def turning(seed: int) -> F64:
    return autoregressive(BARS, seed=seed)


def wild_at_last(seed: int) -> F64:
    """Moves of the last tenth twice as large; times and all bars before are the same."""
    close, cut = turning(seed), cut_at(0.9)
    close[cut:] = close[cut - 1] * (close[cut:] / close[cut - 1]) ** 2
    return close


def cut_at(share: float) -> int:
    """The first bar after it."""
    return 1 + int((BARS - 1) * share)


def run(folder: Path, prices: Callable[[int], F64] = turning, **order: Any) -> dict[str, Any]:
    """Of a job whose contest would be with last value."""
    job(
        folder, [series(name, prices(seed)) for seed, name in enumerate("AB")], **{**ORDER, "against": AGAINST, **order}
    )
    return fit.run(folder, Progress())


@pytest.fixture(scope="module")
def passed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("passed") / "job"
    return folder, run(folder)


def learnt(folder: Path) -> dict[str, Any]:
    return load_file(folder / "weights.safetensors")


def test_what_the_hold_out_refuses_is_not_fitted_again(tmp_path: Path) -> None:
    found = run(tmp_path, lambda seed: walk(BARS, seed=seed))
    assert found["against"]["terms"]["refusal"]
    assert found["model"] == MODEL
    assert not (tmp_path / FINAL).exists()
    card = read_card(tmp_path / MODEL)
    assert "judged" not in card.metrics
    assert card.trained_to_ns == cut_at(0.9) * EVERY_NS
    assert "judged_dataset" not in found


def test_a_fit_that_nobody_holds_against_another_is_one(tmp_path: Path) -> None:
    found = run(tmp_path, against=None)
    assert (found["model"], "against" in found) == (MODEL, False)
    assert not (tmp_path / FINAL).exists()


def test_what_passes_leaves_as_a_model_of_all_bars(passed: tuple[Path, dict[str, Any]]) -> None:
    folder, found = passed
    assert not found["against"]["terms"]["refusal"]
    card, judged = open_model(folder / found["model"]).card, read_card(folder / MODEL)
    assert found["model"] == f"{FINAL}/{MODEL}"
    assert (card.trained_from_ns, card.trained_to_ns) == (EVERY_NS, BARS * EVERY_NS)
    assert judged.trained_to_ns == cut_at(0.9) * EVERY_NS
    assert (card.name, card.seed, card.parent, card.settings_digest) == ("ridge", 0, "", judged.settings_digest)
    assert card.version != judged.version
    whole, before = found["dataset"], found["judged_dataset"]
    assert (card.dataset_hash, judged.dataset_hash) == (whole["hash"], before["hash"])
    assert (tuple(whole["rule"]["cuts"]), tuple(before["rule"]["cuts"])) == (TO_THE_END, CUTS)
    assert card.metrics["judged"] == {
        "version": judged.version, "trained_from_ns": EVERY_NS, "trained_to_ns": judged.trained_to_ns,
        "dataset_hash": judged.dataset_hash, "fit": judged.metrics["fit"],
    }  # fmt: skip


def test_no_figure_of_the_hold_out_is_of_the_model_that_saw_it(
    passed: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """They are to the bit those of the same fit that nothing follows; so is what drift takes for usual losses."""
    folder, found = passed
    run(tmp_path, against=None)
    alone = read_card(tmp_path / MODEL)
    card = read_card(folder / found["model"])
    assert figures(card) == figures(alone)
    assert card.metrics["skill"] > 0.05
    kept, own = (load_file(path / "reference.safetensors") for path in (folder / found["model"], tmp_path / MODEL))
    for name in kept:
        if name.startswith(LABELS):
            np.testing.assert_array_equal(kept[name], own[name], err_msg=name)


def figures(card: ModelCard) -> dict[str, Any]:
    return {name: value for name, value in card.metrics.items() if name not in (*OF_FIT, "judged")}


def test_its_reference_holds_the_values_of_its_own_training_part(passed: tuple[Path, dict[str, Any]]) -> None:
    folder, found = passed
    whole = load_dataset(folder, FitOrder.read(folder)).without_holdout()
    kept = load_file(folder / found["model"] / "reference.safetensors")
    before = load_file(folder / MODEL / "reference.safetensors")
    assert not np.array_equal(kept["edges"], before["edges"])
    used = np.diff(np.log(np.concatenate([[np.nan], turning(0)[: cut_at(0.8)]])))[2:]
    assert whole.parts.is_train(whole.history).sum() == 2 * cut_at(0.8)
    assert kept["edges"][0, 0] <= used.min()
    assert kept["edges"][0, -1] >= used.max()


def test_of_classes_only_how_often_they_came_is_of_its_own_training_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By these it is judged on later bars; what the hold-out said of the classes stays."""
    monkeypatch.setattr(fit, "_against", lambda *_: {"terms": {"refusal": ""}})
    found = run(tmp_path, kind="naive_bayes")
    before, after = (read_card(tmp_path / model).metrics["classes"] for model in (MODEL, found["model"]))
    whole = load_dataset(tmp_path, FitOrder.read(tmp_path)).without_holdout()
    usual = usual_classes(whole, read_card(tmp_path / found["model"])).round(6).tolist()
    assert after == before | {FREQUENCIES: usual}
    assert before[FREQUENCIES] != usual


def test_the_last_bars_are_learnt(passed: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """Wilder prices after the last cut. They change nothing of the judged fit; of the final one they change the widths,
    which come from its newest part, and not its weights, which come from those before."""
    wild = run(tmp_path, wild_at_last)
    folder, found = passed
    calm = learnt(folder / MODEL), learnt(folder / found["model"])
    wilder = learnt(tmp_path / MODEL), learnt(tmp_path / wild["model"])
    for name in calm[0]:
        np.testing.assert_array_equal(calm[0][name], wilder[0][name], err_msg=name)
    for name in ("weights", "bias"):
        np.testing.assert_array_equal(calm[1][name], wilder[1][name], err_msg=name)
        assert not np.array_equal(calm[0][name], calm[1][name])
    assert not np.array_equal(calm[1]["widths"], wilder[1]["widths"])
    cards = [read_card(path / MODEL) for path in (folder, tmp_path)]
    assert cards[0].last_value == cards[1].last_value  # beside which the hold-out is judged
    assert cards[0].metrics["skill"] != cards[1].metrics["skill"]  # that is what the changed bars say
    last = [read_card(path / model).last_value for path, model in ((folder, found["model"]), (tmp_path, wild["model"]))]
    assert last[0] != last[1]


def test_the_parts_are_chronological_purged_and_end_with_the_bars(tmp_path: Path) -> None:
    """A symbol that ends early is cut at the same times."""
    frames = [series("A", walk(600, seed=1)), series("B", walk(500, seed=2))]
    whole = load_dataset(tmp_path, job(tmp_path, frames, **ORDER)).without_holdout()
    as_of, parts = whole.history.bars.as_of, whole.parts
    assert not len(parts.holdout)
    begin, end = as_of.min(), as_of.max()
    cuts = [begin + int((end - begin) * share) for share in TO_THE_END[:2]]
    for part, (low, high) in zip(
        (parts.train, parts.validation, parts.calibration),
        ((0, cuts[0]), (cuts[0], cuts[1]), (cuts[1], end)),
        strict=True,
    ):
        assert (as_of[part + HORIZON] <= high).all()
        assert (as_of[part] > low + (HORIZON * EVERY_NS if low else 0)).all()
    assert as_of[parts.calibration + HORIZON].max() == end
    assert whole.span_used() == (begin, end)


def test_the_last_bar_is_in_the_last_part_however_large_event_times_are(tmp_path: Path) -> None:
    """A span of more than 2 ** 53 ns is no whole number of doubles."""
    frame = series("A", walk(400, seed=1))
    odd = frame.with_columns(as_of_ns=frame["as_of_ns"] * 1_000_000 + 1_700_000_000_000_000_001)
    whole = load_dataset(tmp_path, job(tmp_path, [odd], **ORDER)).without_holdout()
    assert whole.span_used()[1] == int(whole.history.bars.as_of[-1])
    assert whole.parts.calibration[-1] == 400 - 1 - HORIZON


def test_a_run_after_an_interruption_fits_only_what_is_missing(
    passed: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted between the fits; after both; and when the folder of a model was half removed."""
    folder, found = passed
    again = tmp_path / "job"
    shutil.copytree(folder, again)
    shutil.rmtree(again / FINAL)
    fits, real = list[str](), fit._fit

    def counted(model: Any, dataset: Any, job: FitJob) -> dict[str, Any]:
        fits.append(job.folder.name)
        return real(model, dataset, job)

    monkeypatch.setattr(fit, "_fit", counted)
    for harm, expected in (((), [FINAL]), ((), []), ([again / MODEL / "model.onnx"], ["job"])):
        for file in harm:
            file.unlink()
        fits.clear()
        told = fit.run(again, Progress())
        assert fits == expected
        assert told["against"] == found["against"]
        for name, array in learnt(again / told["model"]).items():
            np.testing.assert_array_equal(array, learnt(folder / found["model"])[name], err_msg=name)


def test_a_job_that_is_stopped_between_the_fits_has_no_candidate(
    passed: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """It has reported that it is half done when it hears so; gone on with, it has."""
    again = tmp_path / "job"
    shutil.copytree(passed[0], again)
    shutil.rmtree(again / FINAL)
    report = Progress(enough=1)
    found = fit.run(again, report)
    assert (found["status"], found["model"]) == ("stopped", MODEL)
    assert "stopped" in found["against"]["terms"]["refusal"]
    assert [2 * line["step"] == line["steps"] for line in report.lines] == [True]
    assert not (again / FINAL).exists()
    assert fit.run(again, Progress())["model"] == f"{FINAL}/{MODEL}"


def test_two_fits_report_as_one(tmp_path: Path) -> None:
    report = Progress()
    job(tmp_path, [series(name, turning(seed)) for seed, name in enumerate("AB")], **ORDER, against=AGAINST)
    fit.run(tmp_path, report)
    shares = [line["step"] / line["steps"] for line in report.lines]
    assert len({line["steps"] for line in report.lines}) == 1
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert 0.5 in shares


def test_fits_that_count_otherwise_are_a_half_each() -> None:
    report = Progress()
    both = InTwo(report)
    for step, steps in ((5, 10), (10, 10)):
        both(step=step, steps=steps, loss=1.0)
    both.go_on()
    for step in (7, 14):
        both(step=step, steps=14)
    assert [(line["step"], line["steps"]) for line in report.lines] == [(5, 20), (10, 20), (10, 20), (15, 20), (20, 20)]
    assert report.lines[0]["loss"] == 1.0


def test_both_fits_share_the_time_of_the_order() -> None:
    """The first may take half of it. The second has no less, so that it is never cut off where the first was not."""

    def time_s(took: float | None, **order: Any) -> float:
        card = ModelCard(
            name="", kind="", version="", digest="", framework="", bars={}, transform="", lookback=1, horizon=1,
            levels=[], features=[], metrics={"fit": {"seconds": took}},
        )  # fmt: skip
        judged = None if took is None else JudgedFit(Path(), card)
        return FitJob(Path(), FitOrder(time_budget_s=100, **order), None, Progress(), SystemClock(), judged).time_s

    assert time_s(None) == 100
    assert [time_s(took, against=AGAINST) for took in (None, 10.0, 50.0, 51.0)] == [50, 90, 50, 50]


def test_a_fit_is_never_judged_on_what_its_parent_saw(tmp_path: Path) -> None:
    """Only windows after that are left in the hold-out, and the data set says so; with none left it is refused."""
    made = job(tmp_path, [series("A", walk(600, seed=1))], **ORDER)
    plain, seen = load_dataset(tmp_path, made), 570 * EVERY_NS
    some = load_dataset(tmp_path, made, seen_to_ns=seen)
    assert some.history.bars.as_of[some.parts.holdout].min() == seen + EVERY_NS
    assert set(some.parts.holdout) < set(plain.parts.holdout)
    for name in ("train", "validation", "calibration"):
        np.testing.assert_array_equal(getattr(some.parts, name), getattr(plain.parts, name))
    assert some.digest != plain.digest
    assert some.told()["rule"]["news_after_ns"] == seen  # type: ignore[index]
    assert load_dataset(tmp_path, made, seen_to_ns=540 * EVERY_NS).digest == plain.digest  # where the hold-out begins
    with pytest.raises(BadData, match="has seen all of the hold-out"):
        load_dataset(tmp_path, made, seen_to_ns=600 * EVERY_NS)


def test_the_papers_split_has_no_contest(tmp_path: Path) -> None:
    (tmp_path / "order.json").write_text(
        '{"job": "train", "split": "paper", "against": {"alpha": 0.05, "most_bars": 9}}'
    )
    with pytest.raises(BadSettings, match="for figures and serves nobody"):
        FitOrder.read(tmp_path)
