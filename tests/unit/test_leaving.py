"""How likely a price leaves a band: against the law of a random walk, and against what paths of known laws do."""

from itertools import product
from statistics import NormalDist

import numpy as np
import pytest

from kit import SECOND, T0, Served, Tick, rung, settings
from tickcast.columns import F64
from tickcast.engine.core.events import Ask
from tickcast.engine.core.leaving import LEAST, TAILS, beyond, leaving
from tickcast.errors import BadRequest
from tickcast.settings import Settings

NORMAL = NormalDist()
STEPS = np.arange(1, 13)
WALK = np.sqrt(STEPS)
INF = np.inf


def reach_of(deviation: F64) -> F64:
    """[H, 2, TAILS] of normal laws."""
    return np.stack([np.outer(deviation, [-NORMAL.inv_cdf(tail) for tail in TAILS])] * 2, axis=1)


def by_waves(down: float, up: float, variance: float) -> float:
    """That a Brownian motion has left the band: the solution of the heat equation between two walls."""
    width, n = down + up, np.arange(1, 4001)
    waves = np.sin(n * np.pi * down / width) * np.exp(-(n**2) * np.pi**2 * variance / (2 * width**2))
    return float(1 - np.sum(2 / (n * np.pi) * (1 - (-1.0) ** n) * waves))


@pytest.mark.parametrize(("down", "up"), [(1, 1), (2, 3), (0.5, 6), (10, 1), (0.05, 0.05), (0.3, 0.4), (4, 5)])
def test_a_band_is_left_as_often_as_brownian_motion_leaves_it(down: float, up: float) -> None:
    wanted = [max(by_waves(down, up, float(step)), LEAST) for step in STEPS]
    np.testing.assert_allclose(leaving(reach_of(WALK), down, up), wanted, atol=1e-9)


def test_a_level_is_touched_twice_as_often_as_moves_end_beyond_it() -> None:
    wanted = [max(2 * NORMAL.cdf(-2 / deviation), LEAST) for deviation in WALK]
    for bounds in ((INF, 2.0), (2.0, INF)):
        np.testing.assert_allclose(leaving(reach_of(WALK), *bounds), wanted, atol=1e-9)


def test_between_the_tails_that_are_known_it_is_read_as_of_a_normal_law_and_beyond_them_too() -> None:
    away = np.array([0.0, 0.1, 0.77, 2.0, 4.0])
    np.testing.assert_allclose(beyond(reach_of(WALK)[:1, 0], away)[0], [NORMAL.cdf(-x) for x in away], atol=1e-12)


def test_it_is_never_less_than_at_the_step_before_and_never_less_than_what_can_be_told() -> None:
    narrowing = reach_of(1 / WALK)
    found = leaving(narrowing, 1.0, 1.5)
    assert (found == found[0]).all()
    assert (leaving(reach_of(WALK), 1e3, INF) == LEAST).all()
    assert (leaving(np.zeros((2, 2, len(TAILS))), 1e-9, 1e-9) == LEAST).all()  # a window that never moved


# ------------------------------------------------------------ asked of an engine

SYMBOLS, BARS, LATE, WITHIN = [f"S{n}" for n in range(6)], 900, 500, 32
HORIZON = 4
BANDS = [(-1.5, 2.0), (-INF, 1.0), (-2.5, INF), (-0.7, 0.7)]  # in one-bar moves of a symbol


def given(**more: object) -> Settings:
    usual: dict[str, object] = {"window__lookback": 12, "forecast__horizon": HORIZON, "bars__every_ms": 1000}
    return settings(symbols__limit=8, **(usual | more))


def paths(law: str) -> F64:
    """[bars, WITHIN, symbols] Logarithms of prices as they move within bars; each symbol has moves of its own size."""
    draw = np.random.default_rng(11)
    variance = {
        "normal": np.ones((BARS, 1, len(SYMBOLS))),
        "each bar has a size of its own": draw.gamma(0.7, 1 / 0.7, (BARS, 1, len(SYMBOLS))),
    }[law]
    moves = draw.normal(0, 1, (BARS, WITHIN, len(SYMBOLS))) * np.sqrt(variance / WITHIN)
    found: F64 = moves.reshape(-1, len(SYMBOLS)).cumsum(axis=0) * 1e-3 * np.arange(1, len(SYMBOLS) + 1)
    return found.reshape(moves.shape)


def left(path: F64, bar: int, bounds: tuple[float, float], nearer: float) -> F64:
    """[H] 1 = it has left by then. Between two moments that were drawn it may have been beyond, too: a bound is as much
    nearer as a walk of such steps misses (Broadie, Glasserman, Kou).
    """
    own = path[bar + 1 : bar + 1 + HORIZON] - path[bar, -1]
    out = (own < bounds[0] + nearer) | (own > bounds[1] - nearer)
    found: F64 = np.maximum.accumulate(out.any(axis=1).astype(np.float64))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("law", ["normal", "each bar has a size of its own"])
def test_prices_leave_as_often_as_was_told(law: str) -> None:
    path = paths(law)
    ticks: list[Tick] = [
        (name, T0 + i * SECOND, float(100 * np.exp(path[i, -1, s])), 1.0)
        for i, (s, name) in product(range(BARS), enumerate(SYMBOLS))
    ]
    served = Served(given(window__lookback=64), [], chunk=1)  # long enough to know the size of moves
    told, came = ({band: list[F64]() for band in BANDS} for _ in range(2))
    for i, raw in enumerate(served.feed.batches(ticks, len(SYMBOLS))):
        served.engine.turn([raw], T0)
        bar = i - 1  # the newest that has closed
        for s, name in enumerate(SYMBOLS) if LATE < bar < BARS - HORIZON else ():
            band, size = BANDS[(i + s) % len(BANDS)], 1e-3 * (s + 1)
            low, high = (bound * size for bound in band)
            prices = (float(100 * np.exp(path[bar, -1, s] + bound)) for bound in (low, high))
            (answer,) = served.engine.turn([Ask((name,), bounds=(*prices,))], T0).answers
            assert answer.leaving is not None, answer.refused
            told[band].append(answer.leaving[0])
            came[band].append(left(path[:, :, s], bar, (low, high), 0.5826 * size / np.sqrt(WITHIN)))
    for band in BANDS:
        np.testing.assert_allclose(np.mean(told[band], axis=0), np.mean(came[band], axis=0), atol=0.06)


@pytest.mark.parametrize(
    ("default", "bounds", "what"),
    [("holt", (90.0, 110.0), "which way"), ("naive", (101.0, 110.0), "has left"), ("naive", (-INF, 99.0), "has left")],
)
def test_what_cannot_be_told_is_refused_with_what_to_do(default: str, bounds: tuple[float, float], what: str) -> None:
    ticks: list[Tick] = [("A", T0 + i * SECOND, 100.0 + i % 3 / 10, 1.0) for i in range(40)]
    s = given()
    engine = Served(s, ticks, chunk=1, runners=[rung(default, s)]).engine
    asked = Ask(("A",), bounds=bounds)
    (answer,) = engine.turn([asked], T0).answers
    assert isinstance(answer.refused, BadRequest)
    assert what in str(answer.refused)
    assert answer.refused.remedy
    assert engine.turn([Ask(("A",))], T0).answers[0].refused is None  # who asks after that is answered


def test_a_bound_that_no_price_reaches_is_as_none() -> None:
    ticks: list[Tick] = [("A", T0 + i * SECOND, 100.0 + i % 3 / 10, 1.0) for i in range(40)]
    engine = Served(given(), ticks, chunk=1).engine
    answers = engine.turn([Ask(("A",), bounds=(low, 100.4)) for low in (-INF, -5.0, 0.0)], T0).answers
    for answer in answers:
        np.testing.assert_array_equal(answer.leaving, answers[0].leaving)
    assert answers[0].leaving[0, -1] > LEAST


def test_without_a_level_on_each_side_there_is_none() -> None:
    ticks: list[Tick] = [("A", T0 + i * SECOND, 100.0 + i % 3, 1.0) for i in range(20)]
    engine = Served(given(forecast__quantiles="[0.5, 0.9]"), ticks, chunk=1).engine
    (answer,) = engine.turn([Ask(("A",), bounds=(90.0, 110.0))], T0).answers
    assert "forecast.quantiles" in str(answer.refused)
