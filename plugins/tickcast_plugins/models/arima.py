"""ARIMA and seasonal ARIMA of the moves (d = 1), by conditional least squares; orders by a stepwise search on Akaike's
criterion. Partial autocorrelations are what is optimised, so that every model that it tries is stationary. And the
plain autoregression of the moves, by least squares.
"""

from typing import Annotated, ClassVar, NamedTuple

import numpy as np
from msgspec import Meta
from scipy.optimize import least_squares

from tickcast.columns import F64
from tickcast.plugin import Parameter, Report
from tickcast_plugins.models.recursion import Forecast, Recursion, RecursionParams, SeasonalParams, information

MOST = 3  # of each order
STARTS = ((0, 0), (1, 0), (0, 1), (2, 2))
SEASONS = ((0, 0, 0), (1, 0, 0), (0, 1, 1))
EVALUATIONS = 30


class ArParams(RecursionParams, frozen=True, forbid_unknown_fields=True):
    """`model_params` of a card; of the orders up to `order`, Akaike's criterion chooses."""

    order: Annotated[int, Meta(ge=1, le=256)] = 16


class Orders(NamedTuple):
    """(p, 1, q)(P, D, Q) over `season` bars."""

    p: int
    q: int
    seasonal_p: int
    seasonal_d: int
    seasonal_q: int
    season: int

    @property
    def parameters(self) -> int:
        return self.p + self.q + self.seasonal_p + self.seasonal_q

    def parts(self, raw: F64) -> list[F64]:
        """Coefficients of the moves and errors before, then of those a season before."""
        return [coefficients(part) for part in np.split(raw, np.cumsum([self.p, self.q, self.seasonal_p]))]

    def told(self, raw: F64) -> list[str]:
        named = zip(("AR", "MA", "seasonal AR", "seasonal MA"), self.parts(raw))
        return [f"{name} " + " ".join(f"{value:.3g}" for value in part) for name, part in named if len(part)]

    def polynomials(self, raw: F64) -> tuple[F64, F64]:
        """What a move owes to the moves before it, and to the errors before it, newest first."""
        ar, ma, seasonal_ar, seasonal_ma = self.parts(raw)
        owing = _product(_polynomial(ar, 1, -1), _polynomial(seasonal_ar, self.season, -1))
        if self.seasonal_d:
            owing = _product(owing, _polynomial(np.ones(1), self.season, -1))
        erring = _product(_polynomial(ma, 1, 1), _polynomial(seasonal_ma, self.season, 1))
        return -owing[1:], erring[1:]

    def __str__(self) -> str:
        seasonal = f"({self.seasonal_p},{self.seasonal_d},{self.seasonal_q}) over {self.season} bars"
        return f"ARIMA({self.p},1,{self.q})" + (seasonal if self.season else "")


class Arima(Recursion):
    kind = "arima"
    params_type = SeasonalParams

    def estimate(self, moves: F64, y: F64, report: Report) -> Forecast:
        horizon, season = y.shape[1], self.params.season_bars
        first = max(season, MOST)  # all orders are judged by the same errors
        tried: dict[Orders, tuple[float, F64]] = {}
        ways = [Orders(p, q, *s, season) for s in (SEASONS if season else SEASONS[:1]) for p, q in STARTS]
        while ways:
            for orders in ways:
                tried[orders] = fitted(moves, orders, first)
            best = min(tried, key=lambda orders: tried[orders][0])
            ways = [orders for orders in _neighbours(best) if orders not in tried]
            if not report(step=len(tried), steps=len(tried) + len(ways), loss=tried[best][0] / moves.size):
                break
        ar, ma = best.polynomials(tried[best][1])
        self.note(", ".join([str(best), *best.told(tried[best][1])]))
        return lambda moves: foreseen(moves, ar, ma, best.season * best.seasonal_d, horizon)


class Ar(Recursion):
    kind = "ar"
    params_type = ArParams
    space: ClassVar = {"bars": Parameter("int", 500, 5_000, log=True), "order": Parameter("int", 2, 64, log=True)}

    def estimate(self, moves: F64, y: F64, report: Report) -> Forecast:
        most, horizon = min(self.params.order, moves.shape[1] - 1), y.shape[1]
        lags = np.lib.stride_tricks.sliding_window_view(moves, most + 1, axis=1).reshape(-1, most + 1)[:, ::-1]
        products = lags.T @ lags  # of the move with itself and the moves before it, newest first
        tried = [least_squares_of(products, len(lags), order) for order in range(most + 1)]
        ar = min(tried, key=lambda found: found[0])[1]
        report(step=1, steps=1, order=float(len(ar)))
        self.note(f"AR({len(ar)}) " + " ".join(f"{value:.3g}" for value in ar))
        return lambda moves: foreseen(moves, ar, np.zeros(0), 0, horizon)


def least_squares_of(products: F64, errors: int, order: int) -> tuple[float, F64]:
    """The criterion of an order, and its coefficients, newest first."""
    before = products[1 : order + 1, 1 : order + 1] + 1e-9 * products[0, 0] * np.eye(order)
    ar: F64 = np.linalg.solve(before, products[1 : order + 1, 0])
    return information(float(products[0, 0] - ar @ products[1 : order + 1, 0]), errors, order), ar


def fitted(moves: F64, orders: Orders, first: int) -> tuple[float, F64]:
    """The criterion of these orders, and their parameters before the transformation."""
    start = orders.season * orders.seasonal_d

    def surprises(raw: F64) -> F64:
        return errors(moves, *orders.polynomials(raw), start)[:, first:].ravel()

    raw = np.full(orders.parameters, 0.1)
    if orders.parameters:
        raw = least_squares(surprises, raw, max_nfev=EVALUATIONS, ftol=1e-5).x
    left = surprises(raw)
    return information(float(left @ left), left.size, orders.parameters), raw


def _neighbours(orders: Orders) -> list[Orders]:
    around = [(p, q) for p in (-1, 0, 1) for q in (-1, 0, 1) if p or q]
    near = [orders._replace(p=orders.p + p, q=orders.q + q) for p, q in around]
    return [orders for orders in near if 0 <= orders.p <= MOST and 0 <= orders.q <= MOST]


def coefficients(raw: F64) -> F64:
    """Of a stationary process, from any numbers: tanh makes them partial autocorrelations, Durbin-Levinson the rest."""
    found = np.zeros(0)
    for partial in np.tanh(raw):
        found = np.append(found - partial * found[::-1], partial)
    return found


def _polynomial(values: F64, spacing: int, sign: int) -> F64:
    made = np.zeros(len(values) * spacing + 1)
    made[0] = 1.0
    if len(values):
        made[spacing::spacing] = sign * values
    return made


def _product(one: F64, other: F64) -> F64:
    product: F64 = np.convolve(one, other)
    return product


def errors(moves: F64, ar: F64, ma: F64, start: int) -> F64:
    """[B, L]: one-step errors from bar `start` on; before it there are none, and no moves before the window."""
    length = moves.shape[1]
    wanted = moves.copy()
    for lag in np.flatnonzero(ar) + 1:
        wanted[:, lag:] -= ar[lag - 1] * moves[:, :-lag]
    wanted[:, :start] = 0.0
    lags = np.flatnonzero(ma) + 1
    for t in range(start + 1, length) if len(lags) else ():
        seen = lags[lags <= t]
        wanted[:, t] -= wanted[:, t - seen] @ ma[seen - 1]
    return wanted


def foreseen(moves: F64, ar: F64, ma: F64, start: int, horizon: int) -> F64:
    """[B, H]: the sum of the next moves."""
    length, reach = moves.shape[1], max(len(ar), len(ma))
    ahead = np.zeros((len(moves), horizon))
    before = np.zeros((len(moves), reach))
    path = np.concatenate([before, moves, ahead], axis=1)
    wrong = np.concatenate([before, errors(moves, ar, ma, start), ahead], axis=1)
    for t in range(reach + length, reach + length + horizon):
        path[:, t] = path[:, t - len(ar) : t][:, ::-1] @ ar + wrong[:, t - len(ma) : t][:, ::-1] @ ma
    summed: F64 = path[:, reach + length :].cumsum(axis=1)
    return summed
