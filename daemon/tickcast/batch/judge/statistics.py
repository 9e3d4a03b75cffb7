"""Is it skill or luck: block bootstrap, Diebold-Mariano test, Sharpe ratio and its deflation. Pure, and seeded.

Everything here reads series in event time, one row a moment: forecasts of many symbols at one moment are one row, so
that what moves the whole market is not taken for many independent successes.
"""

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from tickcast.columns import F64, I64

LEAST_ROWS = 20  # below it neither an interval nor a test says anything
DRAWS_AT_ONCE = 32
SIGNIFICANT = 2.0  # standard errors of an autocorrelation (Politis and White 2004)
EULER_GAMMA = 0.5772156649015329
NORMAL = NormalDist()


class Interval(NamedTuple):
    low: float
    high: float


NOTHING_KNOWN = Interval(math.nan, math.nan)


class Comparison(NamedTuple):
    """A Diebold-Mariano test; a positive statistic speaks for the model."""

    statistic: float
    p_value: float  # two-sided
    n: int
    lag: int  # autocovariances in the variance
    kernel: str  # rectangular, or bartlett where that gave no positive variance


# ---------------------------------------------------------------- block bootstrap


def block_length(series: F64, *, at_least: int) -> int:
    """Mean length of the blocks: Politis and White's choice for the stationary bootstrap (2004, corrected 2009), but
    no shorter than the overlap of neighbouring forecasts, and a third of the series at most.
    """
    n = len(series)
    centred = series - series.mean()
    if n < LEAST_ROWS or not centred.any():
        return max(1, min(at_least, n // 3))
    most_quiet = max(5, math.ceil(math.sqrt(math.log10(n))))  # lags in a row that must be insignificant
    longest = min(math.ceil(math.sqrt(n)) + most_quiet, n - 1)
    covariance = autocovariance(centred, longest)
    seen = _last_significant(covariance[1:] / covariance[0], n, most_quiet)
    lags = np.arange(1, min(2 * max(seen, 1), longest) + 1)
    weight = np.minimum(1.0, 2 * (1 - lags / len(lags)))  # flat-top window
    spectrum = covariance[0] + 2 * float((weight * covariance[lags]).sum())
    slope = 2 * float((weight * lags * covariance[lags]).sum())
    chosen = (slope / spectrum) ** 2 * n if spectrum > 0 else 0.0
    upper = math.ceil(3 * math.sqrt(n))
    return max(1, min(max(at_least, min(math.ceil(math.cbrt(chosen)), upper)), n // 3))


def _last_significant(correlation: F64, n: int, quiet: int) -> int:
    """The lag before the first so many insignificant ones in a row."""
    small = np.abs(correlation) < SIGNIFICANT * math.sqrt(math.log10(n) / n)
    for lag in range(len(small) - quiet + 1):
        if small[lag : lag + quiet].all():
            return lag
    return 1 + int(np.flatnonzero(~small).max(initial=-1))


def autocovariance(centred: F64, longest: int) -> F64:
    """Of lags 0 to `longest`, each divided by the whole length."""
    n = len(centred)
    found: F64 = np.array([float(centred[lag:] @ centred[: n - lag]) for lag in range(longest + 1)]) / n
    return found


def bootstrap_sums(columns: F64, *, block: int, draws: int, seed: int) -> F64:
    """[draws, K]: sums of the columns [n, K] over rows drawn anew by the stationary bootstrap (Politis, Romano 1994):
    blocks of geometric length with mean `block`, wrapped around the end.
    """
    rng = np.random.Generator(np.random.Philox(key=np.array([seed, block], np.uint64)))
    sums = np.empty((draws, columns.shape[1]))
    for first in range(0, draws, DRAWS_AT_ONCE):
        count = min(DRAWS_AT_ONCE, draws - first)
        times = np.stack([_times_drawn(rng, len(columns), block) for _ in range(count)])
        sums[first : first + count] = times @ columns
    return sums


def _times_drawn(rng: np.random.Generator, n: int, block: int) -> F64:
    """How often each row is in one sample."""
    fresh = rng.random(n) < 1 / block
    fresh[0] = True
    begins = np.flatnonzero(fresh)
    start = rng.integers(0, n, len(begins))
    of = np.cumsum(fresh) - 1
    rows: I64 = (start[of] + np.arange(n) - begins[of]) % n
    return np.bincount(rows, minlength=n).astype(np.float64)


def percentiles(values: F64, confidence: float) -> Interval:
    """The percentile interval of bootstrap values; draws in which a figure does not exist are left out."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return NOTHING_KNOWN
    low, high = np.quantile(finite, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))


# ---------------------------------------------------------------- Diebold and Mariano


def diebold_mariano(gain: F64, *, horizon: int) -> Comparison | None:
    """Of `gain` = loss of last value - loss of the model, moment by moment. Variance with the autocovariances up to lag
    horizon - 1, small-sample factor and Student's t of Harvey, Leybourne and Newbold (1997).
    """
    n, lag = len(gain), min(horizon, len(gain) // 2) - 1
    if n < LEAST_ROWS:
        return None
    covariance = autocovariance(gain - gain.mean(), lag)
    kernel, variance = "rectangular", covariance[0] + 2 * covariance[1:].sum()
    if variance <= 0:
        kernel = "bartlett"
        variance = covariance[0] + 2 * ((1 - np.arange(1, lag + 1) / (lag + 1)) * covariance[1:]).sum()
    if variance <= 0:
        return None
    h = lag + 1
    factor = math.sqrt((n + 1 - 2 * h + h * (h - 1) / n) / n)
    statistic = factor * float(gain.mean()) / math.sqrt(float(variance) / n)
    return Comparison(statistic, student_two_sided(statistic, n - 1), n, lag, kernel)


def student_two_sided(statistic: float, degrees: int) -> float:
    """Chance of a |t| at least so large."""
    return _incomplete_beta(degrees / 2, 0.5, degrees / (degrees + statistic * statistic))


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised, by its continued fraction (Lentz), on the side where that converges."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(b, a, 1 - x)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )  # fmt: skip
    tiny, c, d = 1e-300, 1.0, 1 / (1 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, 100_000):
        for step in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / (1 + step * d or tiny)
            c = 1 + step / c or tiny
            fraction *= d * c
        if abs(d * c - 1) < 1e-14:
            break
    return front * fraction / a


# ---------------------------------------------------------------- Sharpe


def sharpe(returns: F64) -> float:
    """Mean over standard deviation, per row; NaN where nothing varies."""
    deviation = float(returns.std(ddof=1)) if len(returns) > 1 else 0.0
    return float(returns.mean()) / deviation if deviation > 0 else math.nan


def sharpe_interval(returns: F64, *, block: int, draws: int, seed: int, confidence: float) -> Interval:
    """Per row, by the block bootstrap."""
    n = len(returns)
    if n < LEAST_ROWS:
        return NOTHING_KNOWN
    unit = float(returns.std()) or 1.0  # sums of squares of tiny returns would lose their digits
    scaled = returns / unit
    sums = bootstrap_sums(np.column_stack([scaled, scaled * scaled]), block=block, draws=draws, seed=seed)
    mean = sums[:, 0] / n
    variance = (sums[:, 1] / n - mean * mean) * n / (n - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = np.where(variance > 0, mean / np.sqrt(variance), np.nan)
    return percentiles(drawn, confidence)


def luckiest_sharpe(trials: float, variance: float) -> float:
    """What the best of so many trials without any edge is expected to show: SR0 of Bailey and Lopez de Prado (2014)."""
    if trials <= 1:
        return 0.0
    upper = NORMAL.inv_cdf(1 - 1 / trials), NORMAL.inv_cdf(1 - 1 / (trials * math.e))
    return math.sqrt(variance) * ((1 - EULER_GAMMA) * upper[0] + EULER_GAMMA * upper[1])


def deflated_sharpe(
    ratio: float, *, n: int, skew: float, kurtosis: float, trials: float, variance: float | None = None
) -> float:
    """Chance that the true ratio is above zero, given that the best of `trials` was kept. `ratio` and the `variance` of
    the trials' ratios are per row; without a variance it is that of trials without an edge, 1 / (n - 1).
    """
    if n < 2 or not math.isfinite(ratio):
        return math.nan
    hurdle = luckiest_sharpe(trials, 1 / (n - 1) if variance is None else variance)
    spread = 1 - skew * ratio + (kurtosis - 1) / 4 * ratio * ratio
    return NORMAL.cdf((ratio - hurdle) * math.sqrt(n - 1) / math.sqrt(spread)) if spread > 0 else math.nan


def skew_and_kurtosis(returns: F64) -> tuple[float, float]:
    """Of the sample; a normal distribution has 0 and 3."""
    centred = returns - returns.mean()
    deviation = float(np.sqrt((centred * centred).mean()))
    if deviation == 0:
        return 0.0, 3.0
    scaled = centred / deviation
    return float((scaled**3).mean()), float((scaled**4).mean())
