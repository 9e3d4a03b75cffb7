"""Series and terms -> what a backtest reports: the strategy beside those it must beat. Pure; draws come from a seed."""

import math
from typing import Any, NamedTuple

import numpy as np

from tickcast.batch.backtest import trading
from tickcast.batch.backtest.trading import Path, Portfolio, Series, Terms
from tickcast.batch.judge import statistics
from tickcast.columns import F64, I64

Figures = dict[str, Any]
YEAR_NS = 31_557_600 * 10**9  # 365.25 days
STREAM = 7  # of the seed, for the coin tosses


class Luck(NamedTuple):
    """How chance is told from skill."""

    trials: int  # variants that were tried to get to this one
    draws: int  # of the bootstrap
    tosses: int  # runs with random signs
    confidence: float
    seed: int


class BacktestResult(NamedTuple):
    figures: Figures
    strategy: Portfolio
    held: Portfolio  # bought and held
    trades: list[trading.Trades]  # by series


def judge(series: list[Series], terms: Terms, luck: Luck, *, bars_per_year: float) -> BacktestResult:
    """Trade every series, and the same series without costs, bought and held, and on tossed coins."""
    sign = [trading.signs(each, terms) for each in series]
    paths = _walk(series, sign, terms)
    whole = trading.portfolio(series, paths)
    free = terms._replace(side_bps=0.0)
    unspread = [each._replace(half_spread=np.zeros_like(each.half_spread)) for each in series]
    before_costs = trading.portfolio(unspread, _walk(unspread, sign, free))
    hold = [trading.hold(each, path.counted, terms) for each, path in zip(series, paths, strict=True)]
    held = trading.portfolio(series, hold)
    made = [trading.trades(each, path, terms) for each, path in zip(series, paths, strict=True)]
    block = statistics.block_length(whole.returns, at_least=terms.horizon) if len(whole.returns) else 0

    def told(found: Portfolio) -> Figures:
        return performance(found.returns, luck, block=block, bars_per_year=bars_per_year)

    figures = {
        "strategy": {
            **told(whole), **_trade_figures(made), **_deflated(whole.returns, luck),
            "turnover_per_year": _mean(whole.turnover) * bars_per_year, "exposure": _mean(whole.exposure),
            "cost_per_year": _mean(_costs(series, paths)) * bars_per_year,
        },
        "before_costs": told(before_costs), "buy_and_hold": told(held),
        "random_walk": performance(np.zeros(len(whole.returns)), luck, block=block, bars_per_year=bars_per_year),
        "random_signs": _tossed(series, sign, terms, luck, own=whole.returns, bars_per_year=bars_per_year),
        "moments": len(whole.returns), "block": block, "bars_per_year": bars_per_year,
        "decisions": int(sum(np.count_nonzero(each) for each in sign)),
        "from_ns": int(whole.as_of[0]) if len(whole.as_of) else None,
        "to_ns": int(whole.as_of[-1]) if len(whole.as_of) else None,
    }  # fmt: skip
    return BacktestResult(figures, whole, held, made)


def _walk(series: list[Series], sign: list[F64], terms: Terms) -> list[Path]:
    return [
        trading.follow(each, trading.targets(own, terms.horizon), terms)
        for each, own in zip(series, sign, strict=True)
    ]  # fmt: skip


def performance(returns: F64, luck: Luck, *, block: int, bars_per_year: float) -> Figures:
    """Of one run. A Sharpe ratio is per year, the risk-free rate taken as nothing; None where nothing varied."""
    n, year = len(returns), math.sqrt(bars_per_year)
    if not n:
        return {"return": 0.0, "return_per_year": 0.0, "volatility": 0.0, "max_drawdown": 0.0,
                "sharpe": None, "sharpe_low": None, "sharpe_high": None}  # fmt: skip
    interval = statistics.sharpe_interval(
        returns, block=block, draws=luck.draws, seed=luck.seed, confidence=luck.confidence
    )
    return {
        "return": float(np.prod(1 + returns)) - 1, "return_per_year": float(returns.mean()) * bars_per_year,
        "volatility": float(returns.std()) * year, "max_drawdown": float(trading.drawdown(returns).max()),
        "sharpe": _known(statistics.sharpe(returns) * year),
        "sharpe_low": _known(interval.low * year), "sharpe_high": _known(interval.high * year),
    }  # fmt: skip


def _deflated(returns: F64, luck: Luck) -> Figures:
    if len(returns) < statistics.LEAST_ROWS:
        return {"trials": luck.trials, "deflated_sharpe": None}
    skew, kurtosis = statistics.skew_and_kurtosis(returns)
    chance = statistics.deflated_sharpe(
        statistics.sharpe(returns), n=len(returns), skew=skew, kurtosis=kurtosis, trials=luck.trials
    )
    return {"trials": luck.trials, "deflated_sharpe": _known(chance), "skew": skew, "kurtosis": kurtosis}


def _trade_figures(made: list[trading.Trades]) -> Figures:
    """Of trades that were closed again."""
    net = np.concatenate([each.net[each.left_ns >= 0] for each in made]) if made else np.empty(0)
    won, lost = float(net[net > 0].sum()), -float(net[net < 0].sum())
    return {
        "trades": len(net), "open_trades": int(sum(np.count_nonzero(each.left_ns < 0) for each in made)),
        "win_rate": float((net > 0).mean()) if len(net) else None,
        "profit_factor": won / lost if lost else None,
        "mean_trade": float(net.mean()) if len(net) else None,
    }  # fmt: skip


def _costs(series: list[Series], paths: list[Path]) -> F64:
    return trading.portfolio(series, [path._replace(growth=1 + path.cost) for path in paths]).returns


def _tossed(
    series: list[Series], sign: list[F64], terms: Terms, luck: Luck, *, own: F64, bars_per_year: float
) -> Figures:
    """The same decisions with a coin for the direction of each spell of equal signs: what is left to chance. A coin for
    every single sign would turn the capital over more often, and lose by that alone.
    """
    rng = np.random.Generator(np.random.Philox(key=np.array([luck.seed, STREAM], np.uint64)))
    ratios, ends = np.full(luck.tosses, np.nan), np.zeros(luck.tosses)
    for run in range(luck.tosses if len(own) else 0):
        coins = [_toss(each, rng) for each in sign]
        returns = trading.portfolio(series, _walk(series, coins, terms)).returns
        ratios[run], ends[run] = statistics.sharpe(returns), np.prod(1 + returns) - 1
    finite = ratios[np.isfinite(ratios)] * math.sqrt(bars_per_year)
    ratio = statistics.sharpe(own) * math.sqrt(bars_per_year)
    interval = statistics.percentiles(finite, luck.confidence)
    return {
        "runs": luck.tosses, "return": _mean(ends), "sharpe": _mean(finite) if len(finite) else None,
        "sharpe_low": _known(interval.low), "sharpe_high": _known(interval.high),
        "as_good": float((finite >= ratio).mean()) if len(finite) and math.isfinite(ratio) else None,
    }  # fmt: skip


def _toss(sign: F64, rng: np.random.Generator) -> F64:
    spell = np.cumsum(np.diff(sign, prepend=0.0) != 0)
    coin = 2.0 * rng.integers(0, 2, len(sign) + 1) - 1
    tossed: F64 = np.abs(sign) * coin[spell]
    return tossed


def _mean(values: F64) -> float:
    return float(values.mean()) if len(values) else 0.0


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def moments_per_year(as_of: I64) -> float:
    """As seen, of bars that no calendar spaces."""
    span_ns = int(as_of[-1] - as_of[0]) if len(as_of) > 1 else 0
    return (len(as_of) - 1) * YEAR_NS / span_ns if span_ns else 0.0
