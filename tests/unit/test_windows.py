"""The gather that serving and training share, against a plain computation."""

import numpy as np
import pytest

from kit import T0
from tickcast.columns import Inputs
from tickcast.engine.core import windows
from tickcast.scales import speeds

L, N = 6, 20


def history(transform: int, *, carried: tuple[int, ...] = ()) -> tuple[windows.Bars, np.ndarray]:
    """One symbol's bars in a ring of 32, with channel 0 and one more channel of values."""
    rng = np.random.default_rng(1)
    bars = windows.ring(2, 32)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, N)))
    for k in carried:
        close[k] = close[k - 1]
    at = bars.start[1] + np.arange(N)
    bars.close[at], bars.mask[at] = close, 1
    bars.mask[at[list(carried)]] = 0
    values = np.zeros((64, 2))
    first = windows.target_lookback(transform) - 1
    out = np.empty(N - first)
    windows.target_channel(bars, np.full(N - first, 1, np.int32), np.arange(first, N), transform, out)
    values[at[first:], 0] = out
    values[at, 1] = np.arange(N)
    return bars, values


def ask(
    bars: windows.Bars, values: np.ndarray, transform: int, *, first: int = 0, scale: str = "rms"
) -> tuple[Inputs, float, float]:
    symbol, ordinal = np.array([1], np.int32), np.array([N - 1])
    inputs, anchor, unit = windows.gather_inputs(
        bars, values, symbol, ordinal, np.array([first]), lookback=L, transform=transform,
        future=np.empty((1, 3, 0), np.float32), speeds=speeds(scale, L),
    )  # fmt: skip
    return inputs, float(anchor[0]), float(unit[0])


@pytest.mark.parametrize("transform", [windows.LOG_RETURN, windows.DIFFERENCE, windows.LEVEL])
def test_a_window_holds_the_last_bars_and_its_scale_is_their_rms_move(transform: int) -> None:
    bars, values = history(transform)
    inputs, anchor, scale = ask(bars, values, transform)
    close = bars.close[bars.start[1] : bars.start[1] + N]
    moves = np.diff(np.log(close)) if transform == windows.LOG_RETURN else np.diff(close)
    assert anchor == close[-1]
    if transform == windows.LEVEL:
        np.testing.assert_array_equal(inputs.past[0, :, 0], (close[-L:] - close[-1]).astype(np.float32))
        moves = moves[-(L - 1) :]
    else:
        np.testing.assert_array_equal(inputs.past[0, :, 0], moves[-L:].astype(np.float32))
        moves = moves[-L:]
    np.testing.assert_array_equal(inputs.past[0, :, 1], np.arange(N - L, N))
    assert inputs.mask.all()
    assert scale == pytest.approx(np.sqrt(np.mean(moves**2)), rel=1e-12)


def test_carried_bars_have_mask_zero_and_do_not_enter_the_scale() -> None:
    bars, values = history(windows.LOG_RETURN, carried=(16, 17))
    inputs, _, scale = ask(bars, values, windows.LOG_RETURN)
    assert inputs.mask[0].tolist() == [1, 1, 0, 0, 1, 1]
    close = bars.close[bars.start[1] : bars.start[1] + N]
    real = np.diff(np.log(close))[[13, 14, 17, 18]]
    assert scale == pytest.approx(np.sqrt(np.mean(real**2)), rel=1e-12)


def test_a_window_begins_no_earlier_than_the_symbols_oldest_bar() -> None:
    bars, values = history(windows.LOG_RETURN)
    inputs, _, _ = ask(bars, values, windows.LOG_RETURN, first=N - 3)
    assert inputs.mask[0].tolist() == [0, 0, 0, 0, 1, 1]
    assert not inputs.past[0, :4].any()


def test_a_window_that_never_moved_has_the_floor_as_its_scale() -> None:
    bars, values = history(windows.LOG_RETURN)
    bars.close[:] = 5.0
    values[:, 0] = 0.0
    assert ask(bars, values, windows.LOG_RETURN)[2] == windows.SCALE_FLOOR


def test_the_input_hash_changes_with_any_value_and_not_with_the_batch() -> None:
    bars, values = history(windows.LOG_RETURN)
    inputs, _, _ = ask(bars, values, windows.LOG_RETURN)
    twice = Inputs.concat([inputs, inputs])
    assert (windows.input_hash(twice) == windows.input_hash(inputs)[0]).all()
    changed = Inputs(inputs.past.copy(), inputs.mask, inputs.future, inputs.static)
    changed.past[0, 0, 1] += 1
    assert windows.input_hash(changed)[0] != windows.input_hash(inputs)[0]
    words = inputs.past.reshape(1, -1).view(np.uint32)
    one = np.zeros(1, np.uint64)
    windows._hash_rows(words, one)
    assert one[0] != 0
    assert windows.mix(np.uint64(1)) != windows.mix(np.uint64(2))


@pytest.mark.parametrize("transform", [windows.LOG_RETURN, windows.DIFFERENCE, windows.LEVEL])
def test_moves_lead_to_prices_and_back(transform: int) -> None:
    anchor, moves = np.array([100.0, 7.0]), np.random.default_rng(2).normal(0, 0.1, (2, 3, 5))
    price = windows.prices(transform, anchor, moves)
    np.testing.assert_allclose(windows.moves_of(transform, anchor, price), moves, atol=1e-12)


def test_calendar_channels_are_where_in_day_and_week_a_target_lies() -> None:
    midnight_sunday = 1_699_747_200 * 10**9  # 2023-11-12 00:00 UTC
    channels = windows.calendar_channels(np.array([[midnight_sunday]]), ["time_of_day", "day_of_week"])
    np.testing.assert_allclose(channels[0, 0], [0, 1, 0, 1], atol=1e-6)
    assert windows.calendar_channels(np.array([[T0]]), []).shape == (1, 1, 0)


@pytest.mark.parametrize("transform", [windows.LOG_RETURN, windows.DIFFERENCE, windows.LEVEL])
@pytest.mark.parametrize("scale", ["ewma", "har"])
def test_a_scale_that_forecasts_is_a_product_of_means_that_forget(scale: str, transform: int) -> None:
    bars, values = history(transform, carried=(16,))
    inputs, _, found = ask(bars, values, transform, scale=scale)
    own, mask = inputs.past[0, :, 0].astype(np.float64), inputs.mask[0].astype(np.float64)
    if transform == windows.LEVEL:
        own, mask = np.diff(own), mask[1:] * mask[:-1]
    means = []
    for keep in speeds(scale, L).keep:
        top = bottom = 0.0
        for move, seen in zip(own.tolist(), mask.tolist()):
            top, bottom = keep * top + (1 - keep) * seen * move**2, keep * bottom + (1 - keep) * seen
        means.append(top / bottom)
    shares = {"ewma": [1.0], "har": [0.2, 0.3, 0.5]}[scale]
    expected = np.exp(sum(share * np.log(mean) for share, mean in zip(shares, means)) / 2)
    assert found == pytest.approx(expected, rel=1e-6)
    assert found != pytest.approx(ask(bars, values, transform)[2], rel=1e-3)


@pytest.mark.parametrize("scale", ["ewma", "har"])
def test_a_scale_that_forecasts_has_its_floor_where_nothing_moved_or_nothing_is_known(scale: str) -> None:
    bars, values = history(windows.LOG_RETURN)
    values[:, 0] = 0.0
    assert ask(bars, values, windows.LOG_RETURN, scale=scale)[2] == windows.SCALE_FLOOR
    values[:, 0] = 0.01
    bars.mask[:] = 0
    assert ask(bars, values, windows.LOG_RETURN, scale=scale)[2] == windows.SCALE_FLOOR
    bars.mask[:] = 1
    assert ask(bars, values, windows.LOG_RETURN, scale=scale)[2] == pytest.approx(0.01)
