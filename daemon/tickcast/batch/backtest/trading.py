"""What forecasts would have earned: signs -> positions -> fills -> returns, one symbol after the other. Pure.

A decision is made when a bar closes and filled at the first price after that: the open of the symbol's next real bar.
Nothing that happens after a moment changes a position, a fill or a return up to it.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tickcast.columns import F64, I64

BPS = 1e-4
Flags = npt.NDArray[np.bool_]


class Series(NamedTuple):
    """One symbol's real bars in the order in which they closed, and what was forecast when each had closed."""

    begin: I64  # no price of the bar is older
    as_of: I64
    open: F64  # the first price of the bar: the mid where ticks are quotes
    close: F64
    half_spread: F64  # (ask - bid) / (ask + bid) at the open; 0 where nothing is quoted
    move: F64  # forecast at the traded horizon, as a share of the close; NaN where there is none
    in_sample: Flags  # the model that made it was trained on this moment


class Terms(NamedTuple):
    """What trading costs, and how a forecast becomes a position."""

    horizon: int  # bars ahead; a position is the mean of so many signs
    side_bps: float  # fee and slippage of one side
    dead_band_bps: float  # a move forecast to be no larger is not traded
    delay_ns: int = 0  # after as_of, until the bar is known to be closed
    every_bars: int = 1  # a forecast each so many bars; it stands until the next one


class Path(NamedTuple):
    """One symbol's way, bar by bar."""

    position: F64  # held from the open of the bar, as a share of the capital
    decided: I64  # the bar at whose close that position was decided; -1 before the first
    growth: F64  # factor from the close before to this close
    counted: Flags  # whether the bar belongs to the headline
    cost: F64  # of the fill at the open, as a share of the capital


def signs(series: Series, terms: Terms) -> F64:
    """+1, 0 or -1 at each close. In-sample forecasts are not traded, and those within the dead band are not either."""
    usable = np.isfinite(series.move) & ~series.in_sample
    move = np.where(usable, series.move, 0.0)
    fresh = np.where(np.abs(move) > terms.dead_band_bps * BPS, np.sign(move), 0.0)
    if terms.every_bars == 1:
        return fresh
    rows = np.arange(len(fresh))
    last = np.maximum.accumulate(np.where(usable, rows, -1))
    stands = (last >= 0) & (rows - last < terms.every_bars)
    return np.where(stands, fresh[last], 0.0)


def targets(sign: F64, horizon: int) -> F64:
    """The mean of the last `horizon` signs: each forecast is held for as long as it looked ahead."""
    total = np.cumsum(np.concatenate([np.zeros(horizon), sign]))
    mean: F64 = (total[horizon:] - total[:-horizon]) / horizon
    return mean


def follow(series: Series, target: F64, terms: Terms) -> Path:
    """Bring the position to `target[i]`, decided at close i, at the first open that is not before as_of + delay."""
    rows = np.arange(len(target))
    filled_at = np.maximum(rows + 1, np.searchsorted(series.begin, series.as_of + terms.delay_ns, side="left"))
    decided = np.searchsorted(filled_at, rows, side="right") - 1
    position = np.where(decided >= 0, target[decided], 0.0)
    before = np.concatenate([[0.0], position[:-1]])
    cost = np.abs(position - before) * (terms.side_bps * BPS + series.half_spread)
    night = np.concatenate([[1.0], series.open[1:] / series.close[:-1]])
    day = series.close / series.open
    growth = (1 + before * (night - 1)) * (1 - cost) * (1 + position * (day - 1))
    return Path(position, decided, growth, _counted(series, position, before), cost)


def _counted(series: Series, position: F64, before: F64) -> Flags:
    """From the first forecast outside a training span on; of in-sample bars only those in which something is held."""
    outside = np.isfinite(series.move) & ~series.in_sample
    begun = np.concatenate([[False], np.logical_or.accumulate(outside)[:-1]])
    idle = np.concatenate([[False], series.in_sample[:-1]]) & (position == 0) & (before == 0)
    counted: Flags = begun & ~idle
    return counted


def hold(series: Series, counted: Flags, terms: Terms) -> Path:
    """Bought with the whole capital at the open of the first counted bar, and held."""
    held = np.logical_or.accumulate(counted)
    target = np.concatenate([held[1:], held[-1:]]).astype(np.float64)
    return follow(series, target, terms._replace(delay_ns=0))._replace(counted=counted)


# ---------------------------------------------------------------- trades


class Trades(NamedTuple):
    """Stays on one side of the market: from leaving zero, or the other side, until back there."""

    side: F64
    entered_ns: I64  # begin of the bar whose open filled it
    left_ns: I64  # -1 while it is open
    entry_price: F64
    exit_price: F64  # the last close while it is open
    bars: I64
    largest: F64  # position, as a share of the capital
    gross: F64  # as a share of the capital
    cost: F64
    decided_ns: I64

    @property
    def net(self) -> F64:
        return self.gross - self.cost


def trades(series: Series, path: Path, terms: Terms) -> Trades:
    """The rows of the position grouped by side; a fill that turns it over costs the old trade its exit, and the new one
    its entry.
    """
    q, side = path.position, np.sign(path.position)
    before, side_before = np.concatenate([[0.0], q[:-1]]), np.concatenate([[0.0], side[:-1]])
    enter = np.flatnonzero((side != 0) & (side != side_before))
    leave = np.flatnonzero((side_before != 0) & (side != side_before))
    left = np.append(leave, len(q))[: len(enter)]
    rate = terms.side_bps * BPS + series.half_spread
    same = side == side_before
    own = np.where(same, np.abs(q - before), np.abs(q)) * rate
    exit_cost = np.append(np.where(same, 0.0, np.abs(before)) * rate, 0.0)
    next_open = np.append(series.open[1:], series.close[-1:])
    gained = q * (series.close / series.open - 1) + q * (next_open / series.close - 1)
    is_open = left == len(q)
    inside = np.minimum(left, len(q) - 1)
    direction = side[enter]
    spread = series.half_spread
    return Trades(
        side=direction, entered_ns=series.begin[enter], left_ns=np.where(is_open, -1, series.begin[inside]),
        entry_price=series.open[enter] * (1 + direction * spread[enter]),
        exit_price=np.where(is_open, series.close[-1], series.open[inside] * (1 - direction * spread[inside])),
        bars=left - enter, largest=_per_run(np.abs(q), enter, left, np.maximum),
        gross=_per_run(gained, enter, left, np.add), cost=_per_run(own, enter, left, np.add) + exit_cost[left],
        decided_ns=series.as_of[path.decided[enter]],
    )  # fmt: skip


def _per_run(values: F64, enter: I64, left: I64, how: np.ufunc) -> F64:
    """`how` over the rows enter[i]..left[i]; runs may have room between them."""
    if not len(enter):
        return np.empty(0)
    edges = np.column_stack([enter, left]).ravel()
    found: F64 = how.reduceat(np.append(values, 0.0), edges)[::2]
    return found


# ---------------------------------------------------------------- a portfolio


class Portfolio(NamedTuple):
    """Equal shares of the capital for every symbol, evened out at each moment."""

    as_of: I64
    returns: F64
    turnover: F64  # of the capital, at each moment
    exposure: F64  # mean absolute position


def portfolio(series: list[Series], paths: list[Path]) -> Portfolio:
    """What all symbols earned together, at each moment at which a counted bar of any of them closed."""
    kept = [np.flatnonzero(path.counted) for path in paths]
    at = np.concatenate([s.as_of[rows] for s, rows in zip(series, kept, strict=True)])
    moments, place = np.unique(at, return_inverse=True)
    share = max(sum(len(rows) > 0 for rows in kept), 1)

    def mean(columns: list[F64]) -> F64:
        values = np.concatenate([column[rows] for column, rows in zip(columns, kept, strict=True)])
        found: F64 = np.bincount(place, weights=values, minlength=len(moments)) / share
        return found

    traded = [np.abs(np.diff(path.position, prepend=0.0)) for path in paths]
    return Portfolio(
        moments, mean([path.growth - 1 for path in paths]), mean(traded), mean([np.abs(p.position) for p in paths])
    )


def drawdown(returns: F64) -> F64:
    """How far the equity lies below its highest so far, as a share of that."""
    equity = np.cumprod(1 + returns)
    highest = np.maximum(np.maximum.accumulate(equity), 1.0)
    below: F64 = 1 - equity / highest
    return below
