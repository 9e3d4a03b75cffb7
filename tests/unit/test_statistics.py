"""Bootstrap, Diebold-Mariano and Sharpe against other ways to compute them, and against published figures."""

import math

import numpy as np
import pytest
from scipy import stats

from tickcast.batch.judge import statistics
from tickcast.columns import F64


def autoregressive(n: int, phi: float, seed: int = 0) -> F64:
    noise = np.random.default_rng(seed).normal(size=n)
    out = np.zeros(n)
    for i in range(1, n):
        out[i] = phi * out[i - 1] + noise[i]
    return out


def covariance(x: F64, lag: int) -> float:
    centred = x - x.mean()
    return sum(centred[i] * centred[i + lag] for i in range(len(x) - lag)) / len(x)


@pytest.mark.parametrize("horizon", [1, 4, 12])
def test_the_test_of_diebold_and_mariano_is_that_of_the_paper(horizon: int) -> None:
    gain = 0.1 + autoregressive(150, 0.5, seed=horizon)
    n = len(gain)
    variance = (covariance(gain, 0) + 2 * sum(covariance(gain, k) for k in range(1, horizon))) / n
    factor = math.sqrt((n + 1 - 2 * horizon + horizon * (horizon - 1) / n) / n)
    statistic = factor * gain.mean() / math.sqrt(variance)
    found = statistics.diebold_mariano(gain, horizon=horizon)
    assert found is not None
    assert found.statistic == pytest.approx(statistic, rel=1e-12)
    assert found.p_value == pytest.approx(2 * stats.t.sf(abs(statistic), n - 1), rel=1e-9)
    assert (found.n, found.lag, found.kernel) == (n, horizon - 1, "rectangular")


def test_a_negative_variance_is_taken_anew_with_a_kernel_that_cannot_give_one() -> None:
    gain = np.tile([1.0, -1.0], 50) + 0.01
    found = statistics.diebold_mariano(gain, horizon=2)
    assert found is not None
    assert found.kernel == "bartlett"
    assert math.isfinite(found.statistic)
    assert statistics.diebold_mariano(np.ones(100), horizon=2) is None
    assert statistics.diebold_mariano(gain[:10], horizon=2) is None


@pytest.mark.parametrize("degrees", [1, 4, 99, 5_000, 1_000_000])
@pytest.mark.parametrize("statistic", [0.0, 0.3, -1.96, 5.0, 40.0])
def test_students_t_is_scipys(statistic: float, degrees: int) -> None:
    found = statistics.student_two_sided(statistic, degrees)
    assert found == pytest.approx(2 * stats.t.sf(abs(statistic), degrees), rel=1e-8, abs=1e-15)


def politis_white(x: F64) -> float:
    """The rule as the paper words it, in loops."""
    n = len(x)
    quiet, longest = max(5, math.ceil(math.sqrt(math.log10(n)))), math.ceil(math.sqrt(n))
    rho = [covariance(x, k) / covariance(x, 0) for k in range(longest + quiet + 1)]
    bound = 2 * math.sqrt(math.log10(n) / n)
    m = next(m for m in range(longest + 1) if all(abs(rho[m + k]) < bound for k in range(1, quiet + 1)))
    most = 2 * max(m, 1)
    g = spectrum = 0.0
    for k in range(-most, most + 1):
        weight = 1.0 if abs(k) <= most / 2 else 2 * (1 - abs(k) / most)
        g += weight * abs(k) * covariance(x, abs(k))
        spectrum += weight * covariance(x, abs(k))
    return float((2 * g**2 / (2 * spectrum**2)) ** (1 / 3) * n ** (1 / 3))


@pytest.mark.parametrize("phi", [0.0, 0.3, 0.8])
def test_the_length_of_blocks_follows_the_autocorrelation(phi: float) -> None:
    x = autoregressive(400, phi, seed=3)
    assert statistics.block_length(x, at_least=1) == max(1, math.ceil(politis_white(x)))
    assert statistics.block_length(x, at_least=30) == 30
    assert statistics.block_length(x, at_least=300) == 133
    assert statistics.block_length(np.zeros(400), at_least=3) == 3
    assert statistics.block_length(np.arange(5.0), at_least=3) == 1


def test_the_bootstrap_has_the_variance_that_its_authors_derived() -> None:
    x, block, n = autoregressive(150, 0.6, seed=5), 8, 150
    keep = 1 - 1 / block
    weights = [(1 - k / n) * keep**k + k / n * keep ** (n - k) for k in range(n)]
    expected = covariance(x, 0) + 2 * sum(weights[k] * covariance(x, k) for k in range(1, n))
    columns = np.column_stack([x, np.ones(n)])
    sums = statistics.bootstrap_sums(columns, block=block, draws=6000, seed=1)
    assert (sums[:, 1] == n).all()
    assert sums[:, 0].var() / n == pytest.approx(expected, rel=0.06)
    assert expected > 2 * covariance(x, 0)  # what single rows instead of blocks would give is far too small
    np.testing.assert_array_equal(sums, statistics.bootstrap_sums(columns, block=block, draws=6000, seed=1))
    assert not np.array_equal(sums, statistics.bootstrap_sums(columns, block=block, draws=6000, seed=2))


def test_intervals_of_a_sharpe_ratio_hold_the_truth_about_as_often_as_they_say() -> None:
    held = 0
    for seed in range(100):
        returns = np.random.default_rng(seed).normal(0.1, 1.0, 200) * 1e-4
        low, high = statistics.sharpe_interval(returns, block=2, draws=200, seed=seed, confidence=0.9)
        assert low < statistics.sharpe(returns) < high
        held += low < 0.1 < high
    assert 80 <= held <= 97


def test_the_deflated_sharpe_ratio_is_that_of_the_published_example() -> None:
    """Bailey and Lopez de Prado (2014): 2.5 a year over five years of days; of the trials 1/2 a year."""
    year, n = 250, 1250
    daily, variance = 2.5 / math.sqrt(year), 0.5 / year
    assert statistics.luckiest_sharpe(100, variance) == pytest.approx(0.1132, abs=5e-5)
    given = {"n": n, "variance": variance}
    assert statistics.deflated_sharpe(daily, skew=-3, kurtosis=10, trials=100, **given) == pytest.approx(
        0.9004, abs=5e-5
    )
    assert statistics.deflated_sharpe(daily, skew=-3, kurtosis=10, trials=46, **given) == pytest.approx(
        0.9505, abs=5e-5
    )
    assert statistics.deflated_sharpe(daily, skew=0, kurtosis=3, trials=88, **given) == pytest.approx(0.9505, abs=2e-4)


def test_one_trial_is_not_deflated_and_more_trials_say_less() -> None:
    given = {"n": 500, "skew": 0.0, "kurtosis": 3.0}
    chances = [statistics.deflated_sharpe(0.08, trials=trials, **given) for trials in (1, 2, 10, 1000)]
    assert chances == sorted(chances, reverse=True)
    assert chances[0] == pytest.approx(stats.norm.cdf(0.08 * math.sqrt(499) / math.sqrt(1 + 0.5 * 0.08**2)), rel=1e-12)
    best = np.random.default_rng(1).normal(size=(4000, 50)).max(axis=1).mean()
    assert statistics.luckiest_sharpe(50, 1.0) == pytest.approx(best, rel=0.02)
    assert math.isnan(statistics.deflated_sharpe(math.nan, trials=1, **given))


def test_skew_and_kurtosis_are_scipys() -> None:
    x = np.random.default_rng(2).gamma(2.0, size=300)
    skew, kurtosis = statistics.skew_and_kurtosis(x)
    assert skew == pytest.approx(stats.skew(x))
    assert kurtosis == pytest.approx(stats.kurtosis(x, fisher=False))
    assert statistics.skew_and_kurtosis(np.ones(5)) == (0.0, 3.0)
