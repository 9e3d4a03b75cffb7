"""Losses by hand: all in one-bar moves of the window, point losses by the median alone."""

import math

import pytest
import torch

from tickcast.batch.train.losses import POINT_LOSSES, make_loss

LEVELS = [0.25, 0.5, 0.75]


def of(name: str, median: list[float], target: list[float]) -> float:
    """Over windows with one step; the outer quantiles are far off."""
    quantiles = torch.tensor([[[-99.0, value, 99.0]] for value in median])
    return make_loss(name, LEVELS)(quantiles, torch.tensor(target).unsqueeze(1)).item()


@pytest.mark.parametrize("name", sorted(POINT_LOSSES))
def test_a_point_loss_looks_at_the_median_alone(name: str) -> None:
    worse = of(name, [3.0], [1.0])
    assert of(name, [1.0], [1.0]) < worse
    quantiles = torch.tensor([[[-1.0, 3.0, 7.0]]])
    assert make_loss(name, LEVELS)(quantiles, torch.tensor([[1.0]])).item() == worse


def test_mape_is_the_share_of_the_true_move_and_of_one_bar_s_move_at_least() -> None:
    assert of("mape", [3.0, 1.0], [4.0, -0.5]) == pytest.approx((1 / 4 + 1.5 / 1) / 2)


def test_huber_is_quadratic_within_one_one_bar_move() -> None:
    assert of("huber", [0.0, 0.0], [0.5, 3.0]) == pytest.approx((0.125 + 2.5) / 2)


def test_directional_adds_what_a_bet_on_the_sign_loses() -> None:
    right, wrong = of("directional", [2.0], [1.0]), of("directional", [0.0], [1.0])
    assert of("mae", [2.0], [1.0]) == of("mae", [0.0], [1.0])
    assert right == pytest.approx(0.5 + math.log1p(math.exp(-2)))
    assert wrong == pytest.approx(0.5 + math.log(2))
    assert of("directional", [-1.0], [4.0]) == pytest.approx(4.5 + 4 * math.log1p(math.e))
    assert of("directional", [0.3], [0.0]) == pytest.approx(0.3**2 / 2)  # no way is wrong where nothing moved
