"""What is said of made curves."""

import math

import pytest

from tickcast.batch.train.analysis import ADVICE, EpochLosses, analyse


def said(training: list[float], validation: list[float], **over: object) -> tuple[float, bool, list[str]]:
    curve = [EpochLosses(*pair) for pair in zip(training, validation, strict=True)]
    found = analyse(curve, **{"start_loss": 1.0, "status": "done", **over})  # type: ignore[arg-type]
    assert [advice["text"] for advice in found["advice"]] == [ADVICE[advice["code"]] for advice in found["advice"]]
    return found["overfit"], found["converged"], [advice["code"] for advice in found["advice"]]


def falling(n: int, ratio: float = 0.5) -> list[float]:
    """From 1 towards 0.6."""
    return [0.6 + 0.4 * ratio**i for i in range(1, n + 1)]


def test_a_curve_that_bends_and_stays_down_gets_no_advice() -> None:
    assert said(falling(12), falling(12)) == (0.0, True, [])


def test_one_that_still_falls_needs_more_epochs() -> None:
    line = [0.95, 0.9, 0.85, 0.8, 0.75, 0.7]
    assert said(line, line) == (0.0, False, ["still_improving"])
    assert said(line, line, status="out_of_time") == (0.0, False, ["still_improving", "out_of_time"])


def test_validation_that_rises_while_training_falls_is_overfit_by_the_share_it_lost() -> None:
    training = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
    validation = [0.8, 0.6, 0.64, 0.66, 0.68, 0.7]
    overfit, converged, codes = said(training, validation, status="stopped_early")
    assert overfit == pytest.approx((0.7 - 0.6) / (1 - 0.6))
    assert (converged, codes) == (True, ["overfit"])


def test_validation_that_rises_with_training_is_not_overfit() -> None:
    both = [0.8, 0.6, 0.64, 0.66, 0.68, 0.7]
    assert said(both, both, status="stopped_early")[0] == 0.0


def test_what_never_beats_the_first_weights_has_no_gain() -> None:
    assert said([1.0, 1.0, 1.0, 1.0], [1.0, 1.01, 1.0, 1.01]) == (0.0, False, ["no_gain"])
    learnt_by_heart = said([0.9, 0.8, 0.7, 0.6], [1.1, 1.2, 1.3, 1.4])
    assert learnt_by_heart == (1.0, False, ["no_gain", "overfit"])


def test_a_jump_or_a_loss_that_is_no_number_is_unstable() -> None:
    assert said(falling(6), [0.8, 0.7, 0.95, 0.68, 0.67, 0.67])[2] == ["unstable"]
    assert "unstable" in said([0.9, 0.8, 0.7, 0.6], [0.9, 0.8, math.inf, 0.7])[2]


def test_few_epochs_say_so_unless_somebody_stopped_the_fit() -> None:
    assert said([0.9, 0.8], [0.9, 0.8]) == (0.0, False, ["few_epochs"])
    assert said([0.9, 0.8], [0.9, 0.8], status="stopped") == (0.0, False, [])


def test_losses_below_zero_are_judged_alike() -> None:
    training, validation = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [0.8, 0.6, 0.64, 0.66, 0.68, 0.7]
    lower = said([x - 5 for x in training], [x - 5 for x in validation], start_loss=-4.0)
    assert lower[0] == pytest.approx(said(training, validation)[0])
    assert lower[1:] == said(training, validation)[1:]
