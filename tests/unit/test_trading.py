"""Trading by hand, to the cent; and nothing that comes later changes what was done."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tapekit import settings
from tickcast.batch.backtest import trading
from tickcast.batch.backtest.figures import Luck, judge
from tickcast.batch.backtest.quotes import read_quotes, spread_at
from tickcast.batch.backtest.trading import Series, Terms
from tickcast.columns import F64

STEP = 60
FREE = Terms(horizon=1, side_bps=0.0, dead_band_bps=0.0)
LUCK = Luck(trials=1, draws=100, tosses=20, confidence=0.9, seed=0)


def series(opens: list[float] | F64, closes: list[float] | F64, move: list[float] | F64, **given: object) -> Series:
    n = len(closes)
    as_of = (np.arange(n) + 1) * STEP
    made = Series(
        as_of - STEP, as_of, np.array(opens, float), np.array(closes, float), np.zeros(n), np.array(move, float),
        np.zeros(n, np.bool_),
    )  # fmt: skip
    return made._replace(**given)


def walk(made: Series, terms: Terms) -> trading.Path:
    return trading.follow(made, trading.targets(trading.signs(made, terms), terms.horizon), terms)


def random_series(n: int, *, seed: int) -> Series:
    """Prices that move within bars and between them, and forecasts of no worth."""
    rng = np.random.default_rng(seed)
    prices = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, 2 * n)))
    return series(prices[::2], prices[1::2], rng.normal(0, 0.01, n))


HAND = series([100, 101, 102, 100], [100, 102, 101, 104], [0.01, 0.001, -0.01, 0.0])
HAND_TERMS = Terms(horizon=2, side_bps=10.0, dead_band_bps=20.0)


def test_a_small_example_is_right_to_the_cent() -> None:
    """Signs +1, 0 (within the band), -1; halves of the capital, for a forecast is held for two bars."""
    path = walk(HAND, HAND_TERMS)
    assert path.position.tolist() == [0, 0.5, 0.5, -0.5]
    assert path.counted.tolist() == [False, True, True, True]
    money = 10_000 * np.cumprod(path.growth)
    # bar 1: buy 5,000 for 5.00, then half of +1/101. bar 2: half of -1/102. bar 3: half of -1/101, turn 10,000
    # around for a thousandth, then half of -4 %
    assert [f"{each:.2f}" for each in money] == ["10000.00", "10044.48", "9995.24", "9737.10"]
    free = 10_000 * np.prod(walk(HAND, HAND_TERMS._replace(side_bps=0.0)).growth)
    assert f"{free:.2f}" == "9751.72"


def test_the_trades_of_the_example_are_a_long_one_and_a_short_one_still_open() -> None:
    made = trading.trades(HAND, walk(HAND, HAND_TERMS), HAND_TERMS)
    assert made.side.tolist() == [1, -1]
    assert (made.entered_ns.tolist(), made.left_ns.tolist()) == ([60, 180], [180, -1])
    assert (made.decided_ns.tolist(), made.bars.tolist()) == ([60, 180], [2, 1])
    assert (made.entry_price.tolist(), made.exit_price.tolist()) == ([101, 100], [100, 104])
    long = 0.5 * (1 / 101 + 0 - 1 / 102 - 1 / 101)
    np.testing.assert_allclose(made.gross, [long, -0.5 * 0.04], rtol=1e-12)
    np.testing.assert_allclose(made.cost, [0.001, 0.0005], rtol=1e-12)
    np.testing.assert_allclose(made.net, made.gross - made.cost)


def test_quotes_are_bought_at_the_ask_and_sold_at_the_bid(tmp_path: Path) -> None:
    ticks = pl.DataFrame({
        "symbol": ["A"] * 4, "ts": [10, 70, 130, 190],
        "bid": [99.0, 99.9, 109.0, 104.0], "ask": [101.0, 100.1, 111.0, 106.0],
    })  # fmt: skip
    ticks.write_parquet(tmp_path / "quotes.parquet")
    quotes = read_quotes(settings(), tmp_path / "quotes.parquet")
    begin = np.array([0, 60, 120, 180])
    np.testing.assert_allclose(spread_at(quotes, "A", begin, after=False), [0.01, 0.001, 1 / 110, 1 / 105])
    np.testing.assert_array_equal(spread_at(quotes, "A", np.array([70]), after=True), [1 / 110])
    np.testing.assert_array_equal(spread_at(quotes, "B", begin, after=False), 0.0)
    made = series([100, 100, 110, 105], [100, 105, 110, 105], [0.1, 0.0, 0.0, 0.0])
    made = made._replace(half_spread=spread_at(quotes, "A", begin, after=False))
    trade = trading.trades(made, walk(made, FREE), FREE)
    np.testing.assert_allclose([trade.entry_price[0], trade.exit_price[0]], [100.1, 109.0])
    np.testing.assert_allclose(trade.cost, [0.001 + 1 / 110])
    assert np.prod(walk(made, FREE).growth) == pytest.approx((1 - 0.001) * 1.1 * (1 - 1 / 110))


def test_a_feed_of_trades_has_no_spread(tmp_path: Path) -> None:
    pl.DataFrame({"symbol": ["A"], "ts": [10], "price": [1.0]}).write_parquet(tmp_path / "trades.parquet")
    assert read_quotes(settings(), tmp_path / "trades.parquet") == {}


@pytest.mark.parametrize("horizon", [1, 3])
@pytest.mark.parametrize("delay", [0, STEP])
def test_changing_all_prices_after_a_moment_changes_no_position_fill_or_return_up_to_it(
    horizon: int, delay: int
) -> None:
    first, n, turn = random_series(300, seed=1), 300, 200
    terms = Terms(horizon, side_bps=5.0, dead_band_bps=10.0, delay_ns=delay)
    rng = np.random.default_rng(9)
    later = np.arange(n) > turn
    wild = [np.where(later, column * rng.uniform(0.5, 2, n), column) for column in (first.open, first.close)]
    second = first._replace(open=wild[0], close=wild[1], move=np.where(later, rng.normal(size=n), first.move))
    one, other = walk(first, terms), walk(second, terms)
    for name in one._fields:
        np.testing.assert_array_equal(getattr(one, name)[: turn + 1], getattr(other, name)[: turn + 1])
    assert not np.array_equal(one.position, other.position)
    made, again = trading.trades(first, one, terms), trading.trades(second, other, terms)
    closed = (made.left_ns >= 0) & (made.left_ns <= first.begin[turn])
    assert closed.sum() > 20
    rows = np.flatnonzero(closed)
    for name in made._fields:
        np.testing.assert_array_equal(getattr(made, name)[rows], getattr(again, name)[rows])


def test_a_fill_is_never_at_a_price_that_was_known_at_the_decision() -> None:
    """Whatever the open of a bar, what was decided at the close before it is the same, and only it pays that open."""
    made = random_series(100, seed=4)
    path = walk(made, FREE)
    assert (path.decided < np.arange(100)).all()
    assert (made.as_of[path.decided[1:]] <= made.begin[1:]).all()
    late = walk(made, FREE._replace(delay_ns=STEP))
    assert (made.as_of[late.decided[2:]] + STEP <= made.begin[2:]).all()


def test_who_knows_the_bar_he_decides_on_does_not_profit_from_it() -> None:
    """Every bar leaps and the next one leaps back: paid at the close of the known bar he would win each time."""
    leap = np.tile([1.02, 1 / 1.02], 100)
    closes = 100 * np.cumprod(leap)
    opens = np.concatenate([[100.0], closes[:-1]])
    known = series(opens, closes, leap - 1)
    assert np.prod(walk(known, FREE).growth) < 0.1
    # who knows the way to the next open, where he is filled, earns nothing of it either
    gap = series(closes, closes, np.append(leap[1:] - 1, 0.0))
    assert np.prod(walk(gap, FREE).growth) < 0.1
    # while one who knows the bar after his fill wins: the first two lose for want of a fill in time, not of a signal
    after = series(opens, closes, np.append(leap[1:] - 1, 0.0))
    assert np.prod(walk(after, FREE).growth) > 10


def test_costs_and_the_dead_band_only_take(tmp_path: Path) -> None:
    made = random_series(400, seed=6)
    ends = [float(np.prod(walk(made, FREE._replace(side_bps=bps)).growth)) for bps in (0, 1, 10)]
    assert ends == sorted(ends, reverse=True)
    bands = [int(np.count_nonzero(trading.signs(made, FREE._replace(dead_band_bps=bps)))) for bps in (0, 50, 200, 1e4)]
    assert bands == sorted(bands, reverse=True)
    assert bands[0] == 400
    assert bands[-1] == 0


def test_in_sample_forecasts_are_neither_traded_nor_counted() -> None:
    made = random_series(60, seed=2)
    trained = np.arange(60) < 40
    path = walk(made._replace(in_sample=trained), FREE)
    assert not path.position[:41].any()
    assert path.position[41:].all()
    assert path.counted.tolist() == [False] * 41 + [True] * 19
    between = walk(made._replace(in_sample=(np.arange(60) >= 20) & trained), FREE)
    assert between.counted[1:21].all()
    assert between.counted[21], "the fill that ends the position belongs to it"
    assert not between.counted[22:41].any()
    assert between.counted[41:].all()


def test_a_forecast_stands_until_the_next_one_is_due_and_no_longer() -> None:
    nan = np.nan
    made = series([1.0] * 7, [1.0] * 7, [0.1, nan, nan, nan, nan, -0.1, nan])
    assert trading.signs(made, FREE._replace(every_bars=3)).tolist() == [1, 1, 1, 0, 0, -1, -1]


def test_buy_and_hold_is_the_way_of_the_price() -> None:
    made = random_series(50, seed=3)
    counted = np.arange(50) >= 10
    held = trading.hold(made, counted, FREE)
    assert np.prod(held.growth[counted]) == pytest.approx(made.close[-1] / made.open[10])
    paid = trading.hold(made, counted, FREE._replace(side_bps=30.0))
    assert np.prod(paid.growth) == pytest.approx(0.997 * made.close[-1] / made.open[10])


def test_symbols_have_equal_shares_of_the_capital() -> None:
    both = [random_series(30, seed=1), random_series(30, seed=2)]
    paths = [walk(each, FREE) for each in both]
    found = trading.portfolio(both, paths)
    np.testing.assert_allclose(found.returns, (paths[0].growth + paths[1].growth)[1:] / 2 - 1)
    assert found.as_of.tolist() == both[0].as_of[1:].tolist()
    np.testing.assert_array_equal(found.exposure, 1.0)


def test_a_drawdown_is_measured_from_the_highest_so_far_the_start_among_them() -> None:
    np.testing.assert_allclose(trading.drawdown(np.array([-0.5, 2.0, -0.2, 0.1])), [0.5, 0.0, 0.2, 0.12])


def test_the_figures_are_those_of_the_returns() -> None:
    made = [random_series(500, seed=seed) for seed in range(3)]
    terms = Terms(2, side_bps=2.0, dead_band_bps=4.0)
    done = judge(made, terms, LUCK, bars_per_year=1000.0)
    own, returns = done.figures["strategy"], done.strategy.returns
    assert own["return"] == pytest.approx(np.prod(1 + returns) - 1)
    assert own["sharpe"] == pytest.approx(returns.mean() / returns.std(ddof=1) * np.sqrt(1000))
    assert own["sharpe_low"] < own["sharpe"] < own["sharpe_high"]
    equity = np.cumprod(np.append(1.0, 1 + returns))
    assert own["max_drawdown"] == pytest.approx(max(1 - e / equity[: i + 1].max() for i, e in enumerate(equity)))
    net = np.concatenate([each.net[each.left_ns >= 0] for each in done.trades])
    assert own["trades"] == len(net) > 100
    assert own["win_rate"] == pytest.approx((net > 0).sum() / len(net))
    assert own["profit_factor"] == pytest.approx(net[net > 0].sum() / -net[net < 0].sum())
    assert done.figures["before_costs"]["return"] > own["return"]
    assert done.figures["random_walk"]["return"] == 0.0
    assert done.figures["random_walk"]["sharpe"] is None
    coins = done.figures["random_signs"]
    assert coins["sharpe_low"] < coins["sharpe"] < coins["sharpe_high"]
    assert judge(made, terms, LUCK, bars_per_year=1000.0).figures == done.figures


def test_coins_are_as_good_as_a_model_of_no_worth_and_not_as_one_that_knows() -> None:
    made = random_series(600, seed=8)
    ahead = np.append(made.close[1:] / made.open[1:] - 1, 0.0)
    knowing = judge([made._replace(move=ahead)], FREE, LUCK, bars_per_year=1000.0).figures
    assert knowing["random_signs"]["as_good"] == 0.0
    assert knowing["strategy"]["deflated_sharpe"] > 0.999
    guessing = judge([made], FREE, LUCK, bars_per_year=1000.0).figures
    assert 0.0 < guessing["random_signs"]["as_good"] < 1.0


def test_where_nothing_may_be_counted_there_are_no_figures_and_no_failure() -> None:
    made = random_series(30, seed=1)._replace(in_sample=np.ones(30, np.bool_))
    found = judge([made], FREE, LUCK, bars_per_year=1000.0).figures
    assert found["moments"] == 0
    assert found["strategy"]["sharpe"] is None
    assert found["strategy"]["trades"] == 0
