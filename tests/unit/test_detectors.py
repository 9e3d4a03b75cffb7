"""Evidence on blocks: as defined, bounded in its false alarms, and an alarm that begins, goes on and ends."""

import numpy as np
import pytest
from numba import njit

from tickcast.engine.core import detectors as d

N = 1000.0
ONE = np.array([0, 1])


def streams(*blocks: float, begin: np.ndarray | None = None) -> d.Streams:
    count = len(blocks)
    of = np.array([0, count]) if begin is None else begin
    return d.Streams(of, np.array(blocks, np.float64), np.zeros(count), np.ones(count))


def limits(*, threshold: float = N, cooldown: float = 100.0, per_bar: bool = True) -> d.DetectorLimits:
    return d.DetectorLimits(threshold, cooldown, 0.5 * threshold, 1.2, per_bar)


@njit
def feed(found, of, rules, hits, expected, raised):  # type: ignore[no-untyped-def]
    """One label a bar [bars, partitions] of partitions of one stream; when each alarm was raised."""
    for t in range(hits.shape[0]):
        for p in range(hits.shape[1]):
            d.add(found.stream[p], hits[t, p], 1.0, expected)
            before = found.alarm[p].raised
            d.close_mark(found, of, rules, p, t)
            if found.alarm[p].raised > before and before < raised.shape[1]:
                raised[p, before] = t


@njit
def count(found, s, hit, weight, expected):  # type: ignore[no-untyped-def]
    d.add(found.stream[s], hit, weight, expected)


def run(hits: np.ndarray, *, block: float = 20.0, **rules: object) -> tuple[d.Detectors, np.ndarray]:
    of = streams(block)
    found, raised = d.fresh_detectors(hits.shape[1], of), np.full((hits.shape[1], 50), -1)
    feed(found, of, limits(**rules), hits, 0.1, raised)  # type: ignore[arg-type]
    return found, raised


def misses(rate: float, bars: int, partitions: int, *, stay: float = 0.0, seed: int = 0) -> np.ndarray:
    """Misses of that rate, whose correlation from bar to bar is `stay`."""
    rng = np.random.default_rng(seed)
    hit, stays = rng.random((bars, partitions)) < rate, rng.random((bars, partitions)) < stay
    for t in range(1, bars):
        hit[t] = np.where(stays[t], hit[t - 1], hit[t])
    return hit.astype(float)


def test_evidence_is_shiryaev_roberts_of_each_stake_counted_in_bars() -> None:
    hits = misses(0.15, 103, 1, seed=1)
    found, _ = run(hits)
    plain = np.zeros(len(d.STAKES))
    for block in hits[:100, 0].reshape(-1, 20):
        plain = (plain + 20) * (1 + d.STAKES * (block.mean() / 0.12 - 1))
    np.testing.assert_allclose(found.evidence[0], plain, rtol=1e-12)
    assert found.alarm[0]["statistic"] == pytest.approx(plain.mean())
    assert (found.stream[0]["blocks"], found.stream[0]["bars"], found.stream[0]["share"]) == (5, 3, hits[80:100].mean())


@pytest.mark.parametrize("stay", [0.0, 0.2, 0.4])
def test_false_alarms_are_rarer_than_stated_even_where_all_is_as_bad_as_tolerated(stay: float) -> None:
    found, _ = run(misses(0.12, 20_000, 20, stay=stay, seed=2))
    alarms = int(found.alarm["raised"].sum())
    assert alarms > 20
    assert 20_000 * 20 / alarms >= N


def test_on_single_bars_correlated_misses_would_break_the_bound() -> None:
    """Which is what blocks are for."""
    found, _ = run(misses(0.12, 20_000, 20, stay=0.4, seed=2), block=1.0)
    assert 20_000 * 20 / found.alarm["raised"].sum() < N / 2


def test_a_doubled_rate_is_found_soon_goes_on_as_one_alarm_and_ends_after_it() -> None:
    quiet, wild = misses(0.1, 500, 30, seed=3), misses(0.2, 1000, 30, seed=4)
    after = misses(0.1, 600, 30, seed=5)
    found, raised = run(np.concatenate([quiet, wild, after]), cooldown=400)
    assert np.median(raised[:, 0]) - 500 < 300
    assert (found.alarm["raised"] == 1).mean() > 0.8
    assert (found.alarm["on"] == 0).mean() > 0.9
    assert (found.alarm["event"] == d.ENDED).mean() > 0.9
    assert (found.alarm["since"] > 1500).mean() > 0.9


def test_the_streams_that_changed_are_named_and_the_others_are_not() -> None:
    of = streams(*[20.0] * 10)
    found, rules, rng = d.fresh_detectors(1, of), limits(), np.random.default_rng(6)
    rates = np.where(np.arange(10) < 2, 0.4, 0.08)
    for t in range(400):
        for s in range(10):
            count(found, s, float(rng.random() < rates[s]), 1.0, 0.1)
        if d.close_mark(found, of, rules, 0, t):
            break
    assert found.alarm[0]["event"] == d.RAISED
    assert found.stream["named"][:2].sum() >= 1
    assert not found.stream["named"][2:].any()
    assert not found.evidence.any()  # it begins anew


@pytest.mark.parametrize(
    ("evidence", "named"),
    [([50, 20, 1, 1], [1, 1, 0, 0]), ([41, 1, 1, 1], [1, 0, 0, 0]), ([10, 10, 10, 10], [1, 1, 1, 1]),
     ([25, 14, 9, 1], [1, 0, 0, 0])],
)  # fmt: skip
def test_of_k_named_all_have_enough_for_k(evidence: list[float], named: list[int]) -> None:
    """Of four, one needs 4 times the threshold of 10, two need twice, all need it once."""
    found = d.fresh_detectors(1, streams(*[20.0] * 4))
    found.stream["shown"], found.stream["blocks"] = evidence, 1
    d.name_streams(found.stream, 10.0, 0, 4)
    assert found.stream["named"].tolist() == named


def test_what_is_empty_does_nothing_and_what_cannot_be_too_much_neither() -> None:
    of = streams(20.0, 20.0)
    found = d.fresh_detectors(1, of)
    for t in range(50):
        count(found, 1, 1.0, 1.0, 0.9)  # 1.2 times .9 is more than all
        d.close_mark(found, of, limits(), 0, t)
    assert found.stream["blocks"].tolist() == [0, 0]
    assert found.alarm[0]["watched"] == 0
    for t in range(50):
        count(found, 0, 0.0, 0.0, 0.5)  # a market that stands still has no losses to compare
        d.close_mark(found, of, limits(), 0, t)
    assert found.stream["blocks"].tolist() == [0, 0]


def test_labels_of_tick_bars_are_bars_of_their_own() -> None:
    of = streams(20.0)
    found = d.fresh_detectors(1, of)
    for _ in range(256):
        count(found, 0, 0.0, 1.0, 0.1)
    d.close_mark(found, of, limits(per_bar=False), 0, 7)
    assert found.stream[0]["blocks"] == 1
    np.testing.assert_allclose(found.evidence[0], 256 * (1 - d.STAKES))


def test_evidence_never_overflows() -> None:
    found, _ = run(np.ones((3000, 1)), threshold=1e300)
    assert found.evidence.max() == d.CEILING
    d.restart(found, 0, 1)
    assert not found.evidence.any()
