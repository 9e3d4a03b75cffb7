"""Contests: the evidence is that of a plain e-process, the verdict is right where numbers are extreme, and it goes on
from its state bit by bit."""

import hashlib
import math
import struct

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickcast.engine.core import contest
from tickcast.engine.core.contest import Contest, ContestTerms, ContestVerdict, Evidence
from tickcast.errors import BadStore
from tickcast.state import State

OPEN_ENDED = ContestTerms(alpha=0.05, block_bars=1, most_blocks=10**9)
LOSSES = st.floats(1e-100, 1e100) | st.just(0.0)
GAINS = st.lists(st.floats(-1, 1), min_size=1, max_size=80)


def losses(gain: float) -> tuple[float, float]:
    """Of champion and challenger, whose relative gain this is."""
    return 1 + gain, 1 - gain


def run(gains: list[float], terms: ContestTerms = OPEN_ENDED) -> Contest:
    held = Contest(terms)
    for gain in gains:
        held.settle(*losses(gain))
    return held


def through_json(state: State) -> State:
    """As a file would give it back."""
    return State({name: array.copy() for name, array in state.arrays.items()}, msgspec.json.decode(
        msgspec.json.encode(state.facts)
    ))  # fmt: skip


# ---------------------------------------------------------------- evidence


@given(GAINS)
def test_the_evidence_is_the_mean_over_the_stakes_of_what_a_purse_became(gains: list[float]) -> None:
    gains = [float(contest.relative_gain(*losses(gain))) for gain in gains]
    purses = [math.prod(1 + stake / 25 * gain for gain in gains) for stake in range(1, 25)]
    terms = OPEN_ENDED._replace(alpha=1e-300)
    assert run(gains, terms).evidence().log_e == pytest.approx(math.log(sum(purses) / 24), abs=1e-9)


@settings(max_examples=20)
@given(GAINS)
def test_many_gains_at_once_are_the_blocks_one_by_one(gains: list[float]) -> None:
    gains = [float(contest.relative_gain(*losses(gain))) for gain in gains]
    held, found = Contest(OPEN_ENDED._replace(alpha=1e-300)), []
    for gain in gains:
        held.settle(*losses(gain))
        found.append(held.evidence().log_e)
    np.testing.assert_allclose(contest.log_evidence(np.array([gains])), [found], rtol=0, atol=1e-9)


def test_the_evidence_is_that_of_confseq() -> None:
    """`betting.diversified_betting_mart((1 + d) / 2, 0.5, ...)` with the stakes 2 k / 25, theta 1 and trunc_scale 1, of
    github.com/gostevehoward/confseq at 70b1ef3: the logarithm after 5, 20, 40 and 60 gains."""
    gains = 0.1 + 0.6 * np.sin(1.7 * np.arange(1, 61))
    theirs = [0.4280727902928879, 0.7638632134855635, 0.7953146260438994, 1.5980749232857032]
    np.testing.assert_allclose(contest.log_evidence(gains)[[4, 19, 39, 59]], theirs, rtol=1e-13)


@pytest.mark.parametrize(("gain", "sign"), [(1.0, 1), (-1.0, -1)])
def test_evidence_neither_overflows_nor_is_lost(gain: float, sign: int) -> None:
    logs = contest.log_evidence(np.full(100_000, gain))
    assert np.isfinite(logs).all()
    assert (np.diff(logs) * sign > 0).all()
    assert abs(logs[-1]) > 1000 * math.log(10)  # beyond every float64


def test_after_a_hundred_thousand_bad_blocks_some_good_ones_promote_nobody() -> None:
    gains = np.concatenate([np.full(10_000, -1.0), np.full(300, 1.0)])
    assert run(gains.tolist(), OPEN_ENDED._replace(rounds=True)).verdict is ContestVerdict.OPEN


def test_a_verdict_comes_when_evidence_reaches_one_in_alpha_and_stays() -> None:
    gains = [0.5] * 40
    first = int(np.argmax(contest.log_evidence(np.array(gains)) >= math.log(20))) + 1
    assert 5 < first < 40
    assert run(gains[: first - 1]).verdict is ContestVerdict.OPEN
    decided = run(gains[:first])
    before = decided.evidence()
    assert before.verdict is ContestVerdict.BETTER
    for _ in range(50):
        assert decided.settle(*losses(-1.0)) is ContestVerdict.BETTER
    assert decided.evidence() == before


def test_a_contest_ends_undecided_when_it_has_had_its_blocks() -> None:
    terms = OPEN_ENDED._replace(most_blocks=7)
    assert run([0.01] * 6, terms).verdict is ContestVerdict.OPEN
    assert run([0.01] * 7, terms).verdict is ContestVerdict.UNDECIDED


def test_a_challenger_that_is_worse_is_ended_before_its_blocks_are_over() -> None:
    rng = np.random.default_rng(4)
    bad = run(np.clip(-0.2 + 0.3 * rng.standard_normal(400), -1, 1).tolist())
    found = bad.evidence()
    assert (found.verdict, found.blocks < 150, found.high < 0) == (ContestVerdict.WORSE, True, True)
    assert run([-0.2] * 9).evidence().high > 0  # too few to tell
    ended = [run(np.clip(0.3 * rng.standard_normal(150), -1, 1).tolist()).verdict for _ in range(40)]
    assert ended.count(ContestVerdict.WORSE) <= 3


def test_a_contest_in_rounds_begins_anew_with_less_to_spend_and_forgets_what_was_before() -> None:
    terms = OPEN_ENDED._replace(most_blocks=30, rounds=True)
    held = run([-0.4] * 60, terms)
    assert held.verdict is ContestVerdict.OPEN
    found = held.evidence()
    assert (found.round, found.blocks, found.log_e, found.digest) == (3, 0, 0.0, "0" * 64)
    assert found.alpha == pytest.approx(0.05 / 12)
    assert found.log_needed == pytest.approx(math.log(12 / 0.05))
    gains = [0.5] * 29
    first = int(np.argmax(contest.log_evidence(np.array(gains)) >= math.log(12 / 0.05))) + 1
    for block in range(1, first + 1):
        assert held.verdict is ContestVerdict.OPEN, block
        held.settle(*losses(0.5))
    assert held.verdict is ContestVerdict.BETTER
    assert run([-0.4] * 60 + gains, terms._replace(most_blocks=1000)).verdict is ContestVerdict.OPEN


def test_better_by_share_alone_but_not_in_all_it_lost_is_not_better() -> None:
    """Small blocks are won, large ones lost by more."""
    held = Contest(OPEN_ENDED)
    held.settle(10_000.0, 10_100.0)
    for _ in range(50):
        held.settle(1.0, 0.5)
    assert held.evidence().log_e > math.log(20)
    assert held.verdict is ContestVerdict.OPEN
    held.settle(1_000.0, 500.0)
    assert held.verdict is ContestVerdict.BETTER


def test_with_the_roles_swapped_every_gain_is_the_other_one() -> None:
    rng = np.random.default_rng(3)
    pairs = rng.exponential(size=(60, 2))
    one, other = Contest(OPEN_ENDED._replace(alpha=1e-9)), Contest(OPEN_ENDED._replace(alpha=1e-9))
    for a, b in pairs.tolist():
        one.settle(a, b)
        other.settle(b, a)
    ours, theirs = one.evidence(), other.evidence()
    assert ours.gain == -theirs.gain
    assert (ours.low, ours.high) == (-theirs.high, -theirs.low)
    assert ours.correlation == theirs.correlation
    assert ours.digest != theirs.digest


def test_a_challenger_that_is_better_by_turns_but_never_on_average_does_not_pass() -> None:
    """And does, where a stake follows the last blocks."""
    rng, runs, blocks = np.random.default_rng(2), 150, 800
    turns = np.where(np.arange(blocks) // 40 % 2, 0.2, -0.2)
    gains = np.clip(turns + 0.3 * rng.standard_normal((runs, blocks)), -1, 1)
    assert (contest.log_evidence(gains) >= math.log(20)).any(axis=1).mean() <= 0.05
    purse, passed = np.zeros(runs), np.zeros(runs, np.bool_)
    for t in range(20, blocks):
        past = gains[:, t - 20 : t]
        purse += np.log1p(np.clip(past.mean(axis=1) / (past**2).mean(axis=1), 0, 0.96) * gains[:, t])
        passed |= purse >= math.log(20)
    assert passed.mean() > 0.5


# ---------------------------------------------------------------- blocks and gains


def test_a_gain_is_the_difference_over_the_sum_of_a_whole_block() -> None:
    held = Contest(OPEN_ENDED._replace(block_bars=3, alpha=1e-9))
    for champion, challenger in [(1.0, 2.0), (3.0, 1.0), (2.0, 1.5), (9.0, 9.0)]:
        held.settle(champion, challenger)
    found = held.evidence()
    assert found.blocks == 1
    assert found.gain == pytest.approx((6 - 4.5) / (6 + 4.5))
    assert found.skill == pytest.approx(1 - 4.5 / 6)


@pytest.mark.parametrize(
    ("champion", "challenger", "gain"),
    [
        (0.0, 0.0, 0.0), (0.0, 1.0, -1.0), (1.0, 0.0, 1.0), (1.0, math.nan, -1.0), (1.0, math.inf, -1.0),
        (math.nan, 1.0, 1.0), (math.nan, math.nan, -1.0), (1e308, 1e308, 0.0), (3e-320, 1e-320, 0.5),
        (1e308, 5e307, 1 / 3),
    ],
)  # fmt: skip
def test_what_is_no_number_counts_against_who_gave_it(champion: float, challenger: float, gain: float) -> None:
    assert contest.relative_gain(champion, challenger) == pytest.approx(gain, rel=1e-3)


def test_a_challenger_that_gives_no_number_loses_the_block_and_it_is_counted() -> None:
    held = Contest(OPEN_ENDED._replace(block_bars=2, alpha=1e-9))
    for challenger in (0.5, math.nan, 0.5, 0.5):
        held.settle(1.0, challenger)
    found = held.evidence()
    assert (found.blocks, found.unusable) == (2, 1)
    assert found.gain == pytest.approx((-1 + 1 / 3) / 2)
    assert found.skill == pytest.approx(0.5)
    never = Contest(OPEN_ENDED)
    for _ in range(500):
        never.settle(1.0, math.nan)
    found = never.evidence()
    assert found.verdict is ContestVerdict.WORSE
    assert 3 < found.unusable == found.blocks < 30


def test_a_gain_beyond_the_bound_counts_as_the_bound() -> None:
    found = run([0.9, -0.9, 0.05], OPEN_ENDED._replace(bound=0.1)).evidence()
    expected = contest.log_evidence(np.array([1.0, -1.0, 0.5]))[-1]
    assert found.log_e == pytest.approx(expected)
    assert found.gain == pytest.approx(0.05 / 3)


def test_the_digest_is_a_chain_over_the_gains() -> None:
    digest = bytes(32)
    for champion, challenger in (losses(0.25), losses(-0.5)):
        gain = (champion - challenger) / (champion + challenger)
        digest = hashlib.sha256(digest + struct.pack("<d", gain)).digest()
    assert run([0.25, -0.5]).evidence().digest == digest.hex()
    assert run([-0.5, 0.25]).evidence().digest != digest.hex()


def test_the_correlation_of_neighbours_is_that_of_the_series() -> None:
    gains = np.random.default_rng(5).uniform(-0.3, 0.3, 200)
    gains[1:] += 0.4 * gains[:-1]
    centred = gains - gains.mean()
    expected = (centred[1:] * centred[:-1]).sum() / (centred**2).sum()
    held = run(gains.tolist(), OPEN_ENDED._replace(alpha=1e-300))
    assert held.evidence().correlation == pytest.approx(expected, abs=1e-9)
    assert contest.lag_correlation(gains) == pytest.approx(expected + 1 / 200, abs=1e-9)
    assert math.isnan(run(gains[:5].tolist()).evidence().correlation)


# ---------------------------------------------------------------- the interval


def test_the_margin_is_where_the_law_of_the_bound_says() -> None:
    """Of Howard and others: exp(l S - psi(l) V), psi(l) = (-ln(1 - c l) - c l) / c^2, is 2 / alpha in the mean."""
    for blocks, spread in ((1, 0.5), (40, 3.0), (1000, 90.0), (10**6, 5e4)):
        total = contest.mean_margin(blocks, spread, 0.05) * blocks
        found = 0.0
        for k in range(1, 25):
            rate = k / 25 / 1.25
            found += math.exp(rate * total - (-math.log(1 - 1.25 * rate) - 1.25 * rate) / 1.25**2 * spread) / 24
        assert found == pytest.approx(40, rel=1e-6)


def test_the_interval_is_that_of_comparecast_for_each_stake() -> None:
    """`eprocess.eprocess_expm(d, vs=spread, lambda_=k / 31.25, cgf="exponential", c=1.25)`, k = 1 .. 24, of
    github.com/yjchoe/ComparingForecasters at 52748c8: the logarithm of the mean after 5, 20 and 60 gains."""
    gains = 0.1 + 0.6 * np.sin(1.7 * np.arange(1, 61))
    theirs = {5: 0.12006738119481995, 20: 0.15742884470123666, 60: 0.5776747774452322}
    means = np.array([0.0, *np.cumsum(gains)[:-1] / np.arange(1, 60)])
    spread = np.cumsum((gains - np.clip(means, -0.25, 0.25)) ** 2)
    for blocks, log_e in theirs.items():
        total = contest.mean_margin(blocks, spread[blocks - 1], 2 / math.exp(log_e)) * blocks
        assert total == pytest.approx(gains[:blocks].sum(), rel=1e-9)
    found = run(gains.tolist(), OPEN_ENDED._replace(alpha=1e-300)).evidence()
    assert found.high - found.gain == pytest.approx(contest.mean_margin(60, spread[-1], 0.05))
    assert found.gain - found.low == pytest.approx(contest.mean_margin(60, spread[-1], 0.05))


def test_the_interval_holds_the_mean_at_all_blocks_at_once() -> None:
    rng, outside = np.random.default_rng(11), 0
    for _ in range(50):
        gains = np.where(rng.random(160) < 0.3, 1.0, -0.4)  # mean 0.02
        held, wrong = Contest(OPEN_ENDED._replace(alpha=1e-300)), False
        for block, gain in enumerate(gains.tolist()):
            held.settle(*losses(gain))
            if block % 20 == 19:
                found = held.evidence()
                wrong |= not found.low <= 0.02 <= found.high
        outside += wrong
    assert outside <= 6  # 2 or 3 are expected at most
    assert found.high - found.low < 0.45


def test_before_the_first_block_nothing_is_known() -> None:
    found = Contest(OPEN_ENDED).evidence()
    assert (found.blocks, found.log_e, found.gain, found.low, found.high) == (0, 0.0, 0.0, -1.0, 1.0)
    assert math.isnan(found.skill)
    assert found.more_blocks == math.inf


# ---------------------------------------------------------------- terms


def two_losses(bars: int, *, better: float, correlation: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    apart = rng.standard_normal(bars)
    for i in range(1, bars):
        apart[i] = correlation * apart[i - 1] + math.sqrt(1 - correlation**2) * apart[i]
    return np.ones(bars), np.exp(-better + 0.05 * apart)


def terms(*pair: np.ndarray, horizon: int = 4, alpha: float = 0.05, most_bars: int = 10_000) -> ContestTerms:
    return contest.terms_of(*pair, horizon=horizon, alpha=alpha, most_bars=most_bars)


def test_blocks_are_as_long_as_the_horizon_where_neighbours_are_not_alike() -> None:
    found = terms(*two_losses(2000, better=0.02))
    assert (found.block_bars, found.most_blocks, found.blocks, found.refusal) == (4, 2500, 500, "")
    assert abs(found.correlation) < 0.1
    assert found.gain == pytest.approx(0.01, abs=0.002)
    assert 0.02 < found.bound < 0.1


def test_blocks_double_until_neighbours_are_no_longer_alike() -> None:
    alike = two_losses(20_000, better=0.05, correlation=0.9)
    found = terms(*alike)
    gains = {bars: contest.block_gains(*alike, bars) for bars in (found.block_bars // 2, found.block_bars)}
    assert found.block_bars > 4
    assert [contest.lag_correlation(of) >= 0.1 for of in gains.values()] == [True, False]


def test_a_contest_is_not_begun_that_cannot_end_within_its_budget_and_says_so() -> None:
    pair = two_losses(2000, better=0.004)
    needed = terms(*pair).needed_blocks
    assert 0 < needed < 2500
    assert terms(*pair).refusal == ""
    short = terms(*pair, most_bars=int(needed - 1) * 4)
    assert f"it needs about {needed:,.0f} blocks of 4 bars" in short.refusal
    assert f"the budget is {int(needed - 1) * 4:,} bars" in short.refusal


def test_nor_one_of_a_challenger_that_was_no_better_or_too_little_seen() -> None:
    assert "no better" in terms(*two_losses(2000, better=-0.02)).refusal
    same = np.ones(400)
    assert "no better" in terms(same, same).refusal
    assert "too few to tell" in terms(*two_losses(70, better=0.2)).refusal
    assert "too few to tell" in terms(np.empty(0), np.empty(0)).refusal
    assert "too few to tell" in terms(*two_losses(400, better=0.2, correlation=0.99)).refusal
    never = np.full(400, np.nan)
    assert "no better" in terms(same, never).refusal


def test_more_blocks_are_needed_by_the_formula_and_as_many_as_it_then_takes() -> None:
    for gain, deviation in ((0.02, 0.2), (0.05, 0.25)):
        told = contest.blocks_needed(gain, deviation, math.log(20))
        assert told == pytest.approx(2 * deviation**2 * math.log(20) / gain**2, rel=0.08)
        rng = np.random.default_rng(1)
        gains = np.clip(gain + deviation * rng.standard_normal((200, 3 * int(told))), -1, 1)
        passed = contest.log_evidence(gains) >= math.log(20)
        took = np.where(passed.any(axis=1), passed.argmax(axis=1), passed.shape[1])
        assert 0.7 * told < np.median(took) < 1.4 * told
    assert contest.blocks_needed(0.5, 0.01, math.log(20)) == pytest.approx(math.log(20) / math.log(1.48), abs=1.5)
    assert contest.blocks_needed(0.0, 0.1, 3.0) == contest.blocks_needed(math.nan, 0.1, 3.0) == math.inf
    assert contest.blocks_needed(0.1, 0.1, -1.0) == 0


def test_what_candidates_may_spend_is_alpha_in_all() -> None:
    assert contest.spent_alpha(1) == 0.025
    assert sum(contest.spent_alpha(k) for k in range(1, 10_000)) == pytest.approx(0.05, rel=1e-3)


# ---------------------------------------------------------------- state


@settings(max_examples=40)
@given(st.lists(st.tuples(LOSSES, LOSSES | st.just(math.nan)), max_size=60), st.data())
def test_a_contest_that_was_cut_anywhere_goes_on_bit_by_bit(
    pairs: list[tuple[float, float]], data: st.DataObject
) -> None:
    terms = ContestTerms(alpha=0.025, block_bars=2, most_blocks=9, bound=0.3, rounds=data.draw(st.booleans()))
    whole, part = Contest(terms), Contest(terms)
    cut = data.draw(st.integers(0, len(pairs)))
    for i, pair in enumerate(pairs):
        if i == cut:
            part = Contest.resumed(through_json(part.snapshot()))
        whole.settle(*pair)
        part.settle(*pair)
    assert part.terms == whole.terms
    assert part.verdict is whole.verdict
    assert same(part.evidence(), whole.evidence())
    ours, theirs = part.snapshot().arrays, whole.snapshot().arrays
    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in theirs)


def same(one: Evidence, other: Evidence) -> bool:
    """NaN equals NaN."""
    return all(a == b or (a != a and b != b) for a, b in zip(one, other, strict=True))


def test_a_snapshot_does_not_change_with_the_contest_and_a_damaged_one_is_refused() -> None:
    held = run([0.1, 0.2])
    state = held.snapshot()
    held.settle(*losses(0.5))
    assert Contest.resumed(state).evidence().blocks == 2
    damaged = State({**state.arrays, "wealth": np.zeros(24, np.float32)}, state.facts)
    with pytest.raises(BadStore, match="wealth"):
        Contest.resumed(damaged)
