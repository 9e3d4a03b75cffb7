"""`sigma` of a forecast: one number a step for how wide what is published is, wherever the forecast comes from."""

from statistics import NormalDist

import numpy as np
import pytest

from kit import SECOND, T0, Served, Tick, settings
from tickcast.columns import F64
from tickcast.engine.core.events import Ask
from tickcast.settings import Settings

HORIZON = 4


def given(**more: object) -> Settings:
    return settings(window__lookback=12, forecast__horizon=HORIZON, bars__every_ms=1000, **more)


def walk(bars: int) -> list[Tick]:
    moves = np.random.default_rng(3).normal(0, 1e-3, bars)
    return [("A", T0 + i * SECOND, float(price), 1.0) for i, price in enumerate(100 * np.exp(np.cumsum(moves)))]


def widths(s: Settings, quantiles: F64) -> F64:
    """[..., H] as docs/forecasts.md has it, of prices."""
    levels = s.forecast.quantiles
    low, high = quantiles[..., 0], quantiles[..., -1]
    apart = np.log(high / low) if s.forecast.transform == "log_return" else high - low
    found: F64 = apart / (NormalDist().inv_cdf(levels[-1]) - NormalDist().inv_cdf(levels[0]))
    return found


@pytest.mark.parametrize("transform", ["log_return", "difference", "level"])
def test_it_is_the_width_of_what_is_published_in_the_unit_of_the_scale(transform: str) -> None:
    s = given(forecast__transform=transform)
    served = Served(s, walk(400), chunk=50)
    said = served.forecasts
    assert len(said) > 300
    np.testing.assert_allclose(said.sigma, widths(s, said.quantiles), rtol=1e-6)
    cold = said.take(slice(0, 5))  # the walk that last value takes for granted
    np.testing.assert_allclose(cold.sigma, cold.scale[:, None] * np.sqrt(np.arange(1, HORIZON + 1)), rtol=1e-6)
    (asked,) = served.engine.turn([Ask(("A",), confidence_level=0.8)], T0).answers
    np.testing.assert_allclose(asked.sigma, widths(s, asked.quantiles), rtol=1e-6)


def test_as_many_moves_lie_within_as_the_outer_levels_say() -> None:
    """With moves that are far from normal, and a window too short to tell their size: what is published was widened."""
    price = 100 * np.exp(np.cumsum(np.random.default_rng(3).standard_t(3, 1500) * 1e-3))
    ticks: list[Tick] = [("A", T0 + i * SECOND, float(p), 1.0) for i, p in enumerate(price)]
    said = Served(given(), ticks, chunk=1).forecasts
    said = said.take(said.ordinal > 300)
    moved = np.abs(np.log(said.anchor[1:] / said.anchor[:-1]))
    share = np.mean(moved <= NormalDist().inv_cdf(0.95) * said.sigma[:-1, 0])
    assert share == pytest.approx(0.9, abs=0.03)
    assert np.mean(moved <= NormalDist().inv_cdf(0.95) * said.scale[:-1]) < 0.88


def test_one_level_has_no_width() -> None:
    said = Served(given(forecast__quantiles="[0.5]"), walk(30), chunk=5).forecasts
    assert np.isnan(said.sigma).all()
