"""The rungs against plain loops, and their statement of need."""

import math
from statistics import NormalDist

import numpy as np
import pytest

from tickcast.columns import F32, Inputs
from tickcast.errors import BadOutput, BadSettings
from tickcast.figures import SCALE_FLOOR
from tickcast_plugins.models.holt import ALPHA, BETA, DAMPING, Holt
from tickcast_plugins.models.naive import Naive
from tickcast_plugins.models.rung import Rung, follow
from tickcast_plugins.models.seasonal import Seasonal

LEVELS = [0.1, 0.5, 0.9]
Z = NormalDist().inv_cdf(0.9)


def window(values: list[float], mask: list[int] | None = None) -> Inputs:
    past = np.array(values, np.float32).reshape(1, -1, 1)
    masks = np.ones((1, len(values))) if mask is None else np.array([mask])
    return Inputs(past, masks.astype(np.float32), np.empty((1, 1, 0), np.float32), np.empty((1, 0), np.float32))


def levels(prices: list[float], mask: list[int] | None = None) -> Inputs:
    return window([p - prices[-1] for p in prices], mask)


def medians(answer: F32) -> list[float]:
    return answer[0, :, 1].tolist()


@pytest.mark.parametrize("is_level", [True, False])
def test_follow_writes_where_a_window_stood_and_passes_over_masked_bars(is_level: bool) -> None:
    stood = [5.0, 5.0, 6.0, 6.0, 4.0]  # of them, the first and the fourth are unknown
    values = [99.0, 5.0, 6.0, 99.0, 4.0] if is_level else [99.0, 5.0, 1.0, 99.0, -2.0]
    path = np.empty(5)
    given = window(values, [0, 1, 1, 0, 1])
    rms = follow(given.past[0], given.mask[0], is_level, path)
    assert path.tolist()[1:] == stood[1:]
    assert path[0] == (5 if is_level else 0)
    assert rms == pytest.approx(math.sqrt((1 + 4) / 2 if is_level else (25 + 1 + 4) / 3))


@pytest.mark.parametrize(
    "made", [Naive("level", 3, LEVELS, 4), Seasonal("level", 3, LEVELS, 4), Holt("level", 3, LEVELS, 4)]
)
def test_rows_are_filled_independently_of_each_other(made: Rung) -> None:
    rng = np.random.default_rng(2)
    past = np.cumsum(rng.normal(size=(6, 20, 1)), axis=1).astype(np.float32)
    mask = (rng.random((6, 20)) > 0.2).astype(np.float32)
    whole, single = np.empty((6, 3, 3), np.float32), np.empty((6, 3, 3), np.float32)
    made.fill(past, mask, whole)
    for i in range(6):
        made.fill(past[i : i + 1], mask[i : i + 1], single[i : i + 1])
    np.testing.assert_array_equal(single, whole)


def test_naive_stays_at_the_last_value_and_widens_with_the_root_of_the_step() -> None:
    moves = [0.1, -0.2, 0.2, -0.1]
    answer = Naive("log_return", 4, LEVELS, 1).predict(window(moves))
    rms = math.sqrt(sum(m * m for m in moves) / 4)
    assert medians(answer) == [0, 0, 0, 0]
    assert answer[0, :, 2] == pytest.approx([Z * rms * math.sqrt(h) for h in (1, 2, 3, 4)], rel=1e-6)
    assert answer[0, :, 0] == pytest.approx(-answer[0, :, 2])


def test_moves_under_mask_0_do_not_count_and_a_flat_window_has_the_floor() -> None:
    naive = Naive("log_return", 1, LEVELS, 1)
    assert naive.predict(window([9.0, 0.1, 0.1], [0, 1, 1]))[0, 0, 2] == pytest.approx(Z * 0.1, rel=1e-6)
    assert naive.predict(window([0.0, 0.0]))[0, 0, 2] == pytest.approx(Z * SCALE_FLOOR)
    assert naive.predict(window([5.0, 5.0], [0, 0]))[0, 0, 2] == pytest.approx(Z * SCALE_FLOOR)


def test_a_level_window_counts_the_move_over_a_gap_once_and_whole() -> None:
    answer = Naive("level", 1, LEVELS, 1).predict(levels([1.0, 3.0, 99.0, 6.0], [1, 1, 0, 1]))
    assert answer[0, 0, 2] == pytest.approx(Z * math.sqrt((4 + 9) / 2), rel=1e-6)


@pytest.mark.parametrize("transform", ["difference", "level"])
def test_seasonal_repeats_the_last_season_whatever_the_transform(transform: str) -> None:
    prices = [0.0, 1.0, 3.0, 2.0, 2.5, 3.5, 5.5, 4.5]  # a season of 4 whose moves are 1, 2, -1 and a half
    moves = [0.5, *np.diff(prices).tolist()]
    given = levels(prices) if transform == "level" else window(moves)
    answer = Seasonal(transform, 6, LEVELS, 4).predict(given)
    assert medians(answer) == pytest.approx([0.5, 1.5, 3.5, 2.5, 3.0, 4.0])


def test_seasonal_is_as_wide_as_its_own_errors_once_two_seasons_are_there() -> None:
    rng = np.random.default_rng(0)
    season = np.tile(rng.normal(0, 1, 8), 6)
    narrow = Seasonal("difference", 1, LEVELS, 8).predict(window((season + rng.normal(0, 0.01, 48)).tolist()))
    alone = Seasonal("difference", 1, LEVELS, 8).predict(window(season[:9].tolist()))
    assert narrow[0, 0, 2] - narrow[0, 0, 1] == pytest.approx(Z * 0.01 * math.sqrt(2), rel=0.3)
    assert alone[0, 0, 2] - alone[0, 0, 1] == pytest.approx(Z * math.sqrt(np.mean(season[:9] ** 2)), rel=1e-5)


def test_seasonal_states_its_need_and_refuses_a_shorter_window() -> None:
    seasonal = Seasonal("difference", 2, LEVELS, 24)
    assert (seasonal.card.need_bars, seasonal.card.lookback) == (25, 25)
    with pytest.raises(BadOutput, match="25 bars"):
        seasonal.predict(window([0.1] * 24))


def test_holt_equals_a_plain_loop_over_the_usable_bars() -> None:
    rng = np.random.default_rng(1)
    prices = (50 + np.cumsum(rng.normal(0.3, 1, 30))).tolist()
    mask = [1] * 30
    mask[7] = mask[20] = 0
    answer = Holt("level", 3, LEVELS, 1).predict(levels(prices, mask))
    used = [p - prices[-1] for p, m in zip(prices, mask, strict=True) if m]
    level, trend, errors = used[0], 0.0, []
    for value in used[1:]:
        expected = level + DAMPING * trend
        errors.append(value - expected)
        new = ALPHA * value + (1 - ALPHA) * expected
        trend = BETA * (new - level) + (1 - BETA) * DAMPING * trend
        level = new
    damped = np.cumsum([DAMPING**h for h in (1, 2, 3)])
    assert medians(answer) == pytest.approx((level + damped * trend).tolist(), rel=1e-5)
    sigma = math.sqrt(np.mean(np.square(errors)))
    second = math.sqrt(1 + (ALPHA * (1 + BETA * damped[0])) ** 2)
    widths = answer[0, :2, 2] - answer[0, :2, 1]
    assert widths == pytest.approx([Z * sigma, Z * sigma * second], rel=1e-5)


def test_holt_follows_a_trend_where_naive_does_not() -> None:
    given = levels([float(i) for i in range(40)])
    first, second = medians(Holt("level", 2, LEVELS, 1).predict(given))
    assert 0.2 < first < second < 2  # the damped share of a slope of 1
    assert Naive("level", 2, LEVELS, 1).predict(given)[0, 0, 1] == 0


def test_the_digest_tells_rungs_and_their_parameters_apart() -> None:
    made = [
        Naive("level", 2, LEVELS, 1), Naive("level", 3, LEVELS, 1), Naive("difference", 2, LEVELS, 1),
        Holt("level", 2, LEVELS, 1), Seasonal("level", 2, LEVELS, 4), Seasonal("level", 2, LEVELS, 5),
    ]  # fmt: skip
    assert len({rung.card.digest for rung in made}) == len(made)
    assert Naive("level", 2, LEVELS, 1).card.digest == Naive("level", 2, LEVELS, 9).card.digest


def test_a_season_of_no_bars_is_refused() -> None:
    with pytest.raises(BadSettings, match="season_bars"):
        Seasonal("level", 2, LEVELS, 0)
