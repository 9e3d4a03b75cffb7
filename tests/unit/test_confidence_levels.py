"""An interval of any confidence level that is asked for: honest, nested, and at a published level what is published."""

from itertools import pairwise

import numpy as np
import pytest

from kit import SECOND, T0, Served, Tick, settings
from tickcast.engine.core.events import Ask, AskAnswer
from tickcast.errors import BadRequest
from tickcast.settings import Settings

pytestmark = pytest.mark.slow

LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)
PUBLISHED = {0.5: (1, 3), 0.9: (0, 4)}
SYMBOLS, BARS, LATE = [f"S{n}" for n in range(12)], 850, 550
STEPS = (1, 3, 4)  # the third lies between two scored ones


@pytest.fixture(scope="module")
def given() -> Settings:
    return settings(window__lookback=12, forecast__horizon=4, bars__every_ms=1000, symbols__limit=16)


@pytest.fixture(scope="module")
def prices() -> np.ndarray:
    """[bars, symbols] Walks with tails far from normal, each symbol with moves of its own size."""
    draw = np.random.default_rng(5)
    moves = draw.standard_t(4, (BARS, len(SYMBOLS))) * 1e-3 * np.arange(1, len(SYMBOLS) + 1)
    return 100 * np.exp(np.cumsum(moves, axis=0))


@pytest.fixture(scope="module")
def asked(given: Settings, prices: np.ndarray) -> dict[float, list[AskAnswer]]:
    """Level -> what was answered after each of the later bars, by an engine that had seen no more than that."""
    served = Served(given, [], chunk=1)
    found: dict[float, list[AskAnswer]] = {level: [] for level in LEVELS}
    ticks: list[Tick] = [
        (s, T0 + i * SECOND, float(prices[i, n]), 1.0) for i in range(BARS) for n, s in enumerate(SYMBOLS)
    ]
    for i, raw in enumerate(served.feed.batches(ticks, len(SYMBOLS))):
        served.engine.turn([raw], T0)
        if i > LATE:
            asks = [Ask(tuple(SYMBOLS), confidence_level=level) for level in LEVELS]
            for level, answer in zip(LEVELS, served.engine.turn(asks, T0).answers, strict=True):
                assert answer.refused is None
                found[level].append(answer)
    return found


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("level", LEVELS)
def test_the_truth_lies_within_as_often_as_was_asked(
    asked: dict[float, list[AskAnswer]], prices: np.ndarray, level: float, step: int
) -> None:
    inside = []
    for place, answer in enumerate(asked[level]):
        bar = LATE + place  # the newest that had closed
        if bar + step < BARS:
            assert answer.interval is not None
            np.testing.assert_allclose(answer.anchor, prices[bar], rtol=1e-9)
            low, high = answer.interval[:, step - 1].T
            inside.append((low <= prices[bar + step]) & (prices[bar + step] <= high))
    assert np.mean(inside) == pytest.approx(level, abs=0.03)


def test_a_higher_level_holds_every_lower_one(asked: dict[float, list[AskAnswer]]) -> None:
    for narrow, wide in pairwise(LEVELS):
        for inner, outer in zip(asked[narrow], asked[wide], strict=True):
            assert inner.interval is not None
            assert outer.interval is not None
            assert (outer.interval[:, :, 0] <= inner.interval[:, :, 0]).all()
            assert (outer.interval[:, :, 1] >= inner.interval[:, :, 1]).all()
    widths = [np.mean([np.ptp(answer.interval, axis=2) for answer in asked[level]]) for level in LEVELS]  # type: ignore[arg-type]
    assert (np.diff(widths) > 0).all()


@pytest.mark.parametrize("level", PUBLISHED)
def test_at_a_published_level_it_is_what_is_published(asked: dict[float, list[AskAnswer]], level: float) -> None:
    low, high = PUBLISHED[level]
    for answer in asked[level]:
        np.testing.assert_array_equal(answer.interval, answer.quantiles[:, :, [low, high]])


def test_before_there_are_labels_the_models_own_quantiles_are_stretched(given: Settings) -> None:
    ticks: list[Tick] = [("A", T0 + i * SECOND, 100.0 + i % 3, 1.0) for i in range(20)]
    engine = Served(given, ticks, chunk=1).engine
    bounds = {}
    for level in (0.2, 0.5, 0.7, 0.9, 0.99):
        (answer,) = engine.turn([Ask(("A",), confidence_level=level)], T0).answers
        assert answer.interval is not None
        bounds[level] = answer.interval[0]
        assert (answer.interval[0, :, 0] < answer.quantiles[0, :, 2]).all()
    for narrow, wide in pairwise(bounds):
        assert (bounds[wide][:, 0] < bounds[narrow][:, 0]).all()
        assert (bounds[wide][:, 1] > bounds[narrow][:, 1]).all()


def test_without_a_published_level_on_each_side_there_is_none() -> None:
    given = settings(window__lookback=4, forecast__horizon=2, bars__every_ms=1000, forecast__quantiles="[0.5, 0.9]")
    engine = Served(given, [("A", T0 + i * SECOND, 100.0 + i, 1.0) for i in range(9)], chunk=1).engine
    (answer,) = engine.turn([Ask(("A",), confidence_level=0.5)], T0).answers
    assert isinstance(answer.refused, BadRequest)
    assert "forecast.quantiles" in str(answer.refused)
