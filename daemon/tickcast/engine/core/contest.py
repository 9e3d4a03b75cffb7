"""A contest: is the challenger better than the champion? Evidence is gathered block by block, until there is enough.

It counts. Who is in a contest, and what follows from its verdict, is said elsewhere (`loop/policy.py`).

The gain of a block is (champion - challenger) / (champion + challenger) of their pinball over all symbols and steps; a
bound from the hold-out makes it a number in -1 .. 1. Evidence is the mean, over 24 stakes that never change, of what a
purse became that bet this share of itself on every block. Of each stake the purse is at most a martingale times
exp(stake x the sum of the gains that could be expected), so by Ville's inequality the chance that it ever reaches
1 / alpha while that sum is not above zero is at most alpha: a challenger that is better only by turns does not pass
either. A stake that is tuned on the way has no such bound.
"""

import hashlib
import math
import struct
from enum import StrEnum
from typing import Any, NamedTuple, Self

import numpy as np

from tickcast.columns import F64, I64, U8
from tickcast.figures import skill
from tickcast.state import State, copied, put_back

STAKES: F64 = np.arange(1, 25) / 25  # none so high that one lost block ruins it
CENTRE = 0.25  # furthest that the mean of the blocks before is followed
SCALE = 1 + CENTRE  # widest distance of a gain from it
CURVES: F64 = -(np.log1p(-STAKES) + STAKES) / SCALE**2  # of the exponential law, at stakes / SCALE
ALPHA = 0.05  # chance of a wrong promotion, over all candidates until the next one
INTERVAL_ALPHA = 0.05
MOST_CORRELATION = 0.1  # of neighbouring blocks
LEAST_BLOCKS = 20  # of a hold-out, from which a correlation can be told
BOUND = 3.0  # standard deviations of the hold-out's gains, beyond their mean
HALVINGS = 60


class ContestVerdict(StrEnum):
    OPEN = "open"
    BETTER = "better"  # the challenger
    WORSE = "worse"  # the interval of its mean gain lies below zero; not in rounds, which go on
    UNDECIDED = "undecided"  # the contest has had all of its blocks


class ContestTerms(NamedTuple):
    """What a contest begins with, and what of the hold-out speaks for it. With a refusal it is not begun."""

    alpha: float
    block_bars: int
    most_blocks: int
    rounds: bool = False  # a contest without end: after its blocks it begins anew, with the next share of alpha
    bound: float = 1.0  # of the relative gain: one beyond it counts as this much
    correlation: float = 0.0  # of neighbouring blocks of the hold-out
    blocks: int = 0  # of the hold-out
    gain: float = 0.0  # its mean there
    needed_blocks: float = 0.0
    refusal: str = ""


class Evidence(NamedTuple):
    """What a decision is written down with."""

    verdict: ContestVerdict
    round: int  # from 1; what follows is of this one
    alpha: float
    blocks: int
    unusable: int  # blocks in which the challenger gave something that is no number
    log_e: float
    log_needed: float  # ln(1 / alpha)
    gain: float  # mean, relative; beyond the bound it counts as the bound
    low: float  # empirical-Bernstein interval of it, which holds at all blocks at once
    high: float
    skill: float  # 1 - challenger's loss / champion's, over the usable blocks
    correlation: float  # of neighbouring blocks, as it was
    more_blocks: float  # that it needs about; inf where it does not get on
    digest: str  # SHA-256 over the gains in their order, each on the digest before it


class Tally(NamedTuple):
    """Of the round that is on."""

    wealth: F64  # [stakes] logarithms
    bars: I64  # [1] of the block that is open
    losses: F64  # [2] of that block: champion, challenger
    totals: F64  # [2] of all usable blocks
    blocks: I64  # [1]
    unusable: I64  # [1]
    gains: F64  # [SUMS] over blocks, in units of the bound
    digest: U8  # [32]


(TOTAL, SQUARES, SPREAD, BESIDE, FIRST, LAST) = SUMS = range(6)
"""SPREAD: squared distances from the mean of the blocks before, within CENTRE; BESIDE: products of neighbours."""


class Contest:
    def __init__(self, terms: ContestTerms) -> None:
        self.terms = terms
        self.verdict = ContestVerdict.OPEN
        self.round = 1
        self._tally = _fresh_tally()

    def settle(self, champion: float, challenger: float) -> ContestVerdict:
        """A bar that was the truth for both: their losses on the same labels. After a verdict nothing changes it."""
        if self.verdict is not ContestVerdict.OPEN:
            return self.verdict
        tally = self._tally
        tally.losses[:] += (champion, challenger)
        tally.bars[0] += 1
        if tally.bars[0] == self.terms.block_bars:
            self._close_block()
        return self.verdict

    def evidence(self) -> Evidence:
        tally, bound = self._tally, self.terms.bound
        n, mean, deviation = int(tally.blocks[0]), self._mean(), self._deviation()
        log_e, log_needed = float(log_mean(tally.wealth)), -math.log(self.alpha)
        margin = mean_margin(n, float(tally.gains[SPREAD]), INTERVAL_ALPHA)
        return Evidence(
            verdict=self.verdict, round=self.round, alpha=self.alpha, blocks=n, unusable=int(tally.unusable[0]),
            log_e=log_e, log_needed=log_needed, gain=bound * mean, low=bound * max(mean - margin, -1.0),
            high=bound * min(mean + margin, 1.0), skill=float(skill(tally.totals[1], tally.totals[0])),
            correlation=self._correlation(), more_blocks=blocks_needed(mean, deviation, log_needed - log_e),
            digest=tally.digest.tobytes().hex(),
        )  # fmt: skip

    @property
    def alpha(self) -> float:
        """Of this round."""
        return spent_alpha(self.round, self.terms.alpha) if self.terms.rounds else self.terms.alpha

    def snapshot(self) -> State:
        state = copied(self._tally)
        state.facts.update(terms=self.terms._asdict(), verdict=self.verdict.value, round=self.round)
        return state

    @classmethod
    def resumed(cls, state: State) -> Self:
        contest = cls(ContestTerms(**state.facts["terms"]))
        contest.verdict, contest.round = ContestVerdict(state.facts["verdict"]), state.facts["round"]
        put_back(state, contest._tally)
        return contest

    def _close_block(self) -> None:
        tally, terms = self._tally, self.terms
        relative = float(relative_gain(*tally.losses))
        self._add(min(max(relative / terms.bound, -1.0), 1.0))
        tally.digest[:] = _chained(tally.digest, relative)
        if np.isfinite(tally.losses).all():
            tally.totals[:] += tally.losses
        else:
            tally.unusable[0] += not math.isfinite(tally.losses[1])
        tally.losses[:], tally.bars[:] = 0.0, 0
        if log_mean(tally.wealth) >= -math.log(self.alpha) and tally.totals[1] < tally.totals[0]:
            self.verdict = ContestVerdict.BETTER
        elif terms.rounds:
            if tally.blocks[0] >= terms.most_blocks:
                self.round, self._tally = self.round + 1, _fresh_tally()
        elif is_below(float(tally.gains[TOTAL]), float(tally.gains[SPREAD]), INTERVAL_ALPHA):
            self.verdict = ContestVerdict.WORSE
        elif tally.blocks[0] >= terms.most_blocks:
            self.verdict = ContestVerdict.UNDECIDED

    def _add(self, gain: float) -> None:
        tally = self._tally
        sums, n = tally.gains, int(tally.blocks[0])
        tally.wealth[:] += np.log1p(STAKES * gain)
        sums[SPREAD] += (gain - min(max(self._mean(), -CENTRE), CENTRE)) ** 2
        sums[BESIDE] += gain * sums[LAST] if n else 0.0
        sums[FIRST] = sums[FIRST] if n else gain
        sums[TOTAL] += gain
        sums[SQUARES] += gain * gain
        sums[LAST] = gain
        tally.blocks[0] += 1

    def _mean(self) -> float:
        """0 before the first block."""
        return float(self._tally.gains[TOTAL] / max(self._tally.blocks[0], 1))

    def _deviation(self) -> float:
        n = max(int(self._tally.blocks[0]), 1)
        return math.sqrt(max(float(self._tally.gains[SQUARES]) / n - self._mean() ** 2, 0.0))

    def _correlation(self) -> float:
        sums, n, mean = self._tally.gains, int(self._tally.blocks[0]), self._mean()
        around = n * self._deviation() ** 2
        if n < LEAST_BLOCKS or around <= 0:
            return math.nan
        ends = 2 * sums[TOTAL] - sums[FIRST] - sums[LAST]
        return float((sums[BESIDE] - mean * ends + (n - 1) * mean * mean) / around)


def _fresh_tally() -> Tally:
    return Tally(
        wealth=np.zeros(len(STAKES)), bars=np.zeros(1, np.int64), losses=np.zeros(2), totals=np.zeros(2),
        blocks=np.zeros(1, np.int64), unusable=np.zeros(1, np.int64), gains=np.zeros(len(SUMS)),
        digest=np.zeros(32, np.uint8),
    )  # fmt: skip


# ---------------------------------------------------------------- before it begins


def spent_alpha(candidate: int, alpha: float = ALPHA) -> float:
    """The share of `alpha` of the k-th candidate since the last promotion, or round, from 1: in all it is `alpha`."""
    return alpha / (candidate * (candidate + 1))


def terms_of(champion: F64, challenger: F64, *, horizon: int, alpha: float, most_bars: int) -> ContestTerms:
    """The terms of a contest of at most so many bars, from losses bar by bar over the hold-out. A block has so many
    bars, from the horizon on by doublings, that neighbours are no longer alike."""
    block_bars = horizon
    gains = block_gains(champion, challenger, block_bars)
    while (correlation := lag_correlation(gains)) >= MOST_CORRELATION and len(gains) >= LEAST_BLOCKS:
        block_bars *= 2
        gains = block_gains(champion, challenger, block_bars)
    terms = ContestTerms(alpha, block_bars, most_bars // block_bars, correlation=correlation, blocks=len(gains))
    if len(gains) < LEAST_BLOCKS:
        return terms._replace(
            refusal=f"the hold-out has {len(gains)} blocks of {block_bars} bars: too few to tell how alike they are"
        )
    bound = bound_of(gains)
    clipped = np.clip(gains, -bound, bound)
    needed = blocks_needed(float(clipped.mean()) / bound, float(clipped.std()) / bound, -math.log(alpha))
    terms = terms._replace(bound=bound, gain=float(clipped.mean()), needed_blocks=needed)
    if needed <= terms.most_blocks:
        return terms
    why = f"it needs about {needed:,.0f} blocks of {block_bars} bars" if needed < math.inf else "it is no better there"
    return terms._replace(refusal=f"by its hold-out {why}, and the budget is {most_bars:,} bars")


def bound_of(gains: F64) -> float:
    """Beyond which hardly any gain lies; 1 where none differs from nothing."""
    return min(1.0, abs(float(gains.mean())) + BOUND * float(gains.std())) or 1.0


def block_gains(champion: F64, challenger: F64, block_bars: int) -> F64:
    """Of the whole blocks."""
    whole = len(champion) // block_bars * block_bars
    sums = [loss[:whole].reshape(-1, block_bars).sum(axis=1) for loss in (champion, challenger)]
    return relative_gain(*sums)


def relative_gain(champion: Any, challenger: Any) -> F64:
    """(champion - challenger) / (champion + challenger), in -1 .. 1: 0 where neither lost anything, -1 where the
    challenger's loss is no number, 1 where only the champion's is none."""
    ours, theirs = np.asarray(champion, np.float64) / 2, np.asarray(challenger, np.float64) / 2  # no sum overflows
    with np.errstate(invalid="ignore", divide="ignore"):
        gain = np.where(ours + theirs > 0, np.clip((ours - theirs) / (ours + theirs), -1.0, 1.0), 0.0)
    gain = np.where(np.isfinite(ours), gain, 1.0)
    return np.where(np.isfinite(theirs), gain, -1.0)


def lag_correlation(gains: F64) -> float:
    """Of neighbours. Beside the mean of the same few it comes out too low by about one in their number."""
    centred = gains - gains.mean() if len(gains) else gains
    around = float(centred @ centred)
    return float(centred[1:] @ centred[:-1]) / around + 1 / len(gains) if around > 0 else 0.0


def blocks_needed(gain: float, deviation: float, log_needed: float) -> float:
    """About how many blocks evidence takes to grow so much: 2 s^2 ln(1 / alpha) / d^2 for gains of mean d and deviation
    s, and more where the best stake would be higher than the highest. Of gains in units of the bound.
    """
    if log_needed <= 0:
        return 0.0
    if not gain > 0:
        return math.inf
    square = deviation**2 + gain**2
    stake = min(gain / square, float(STAKES[-1]))
    growth = stake * gain - stake**2 * square / 2
    return float(math.ceil(log_needed / growth)) if growth > 0 else math.inf


# ---------------------------------------------------------------- evidence


def log_evidence(gains: F64) -> F64:
    """[..., n] After each block of the gains [..., n], in units of the bound: what a contest counts one by one."""
    return log_mean(np.log1p(STAKES * gains[..., None]).cumsum(axis=-2))


def log_mean(logs: F64) -> F64:
    """ln of the mean of exp over the last axis."""
    largest = logs.max(axis=-1, keepdims=True)
    mean: F64 = np.log(np.exp(logs - largest).mean(axis=-1)) + largest[..., 0]
    return mean


def mean_margin(blocks: int, spread: float, alpha: float) -> float:
    """How far the mean of the gains may be from the mean of what could be expected, at all blocks at once: empirical
    Bernstein, Howard, Ramdas, McAuliffe and Sekhon 2021 (Theorem 4), as Choe and Ramdas 2023 compare forecasters
    (Theorem 2), here mixed over our stakes.
    """
    if not blocks:
        return math.inf
    logs, wanted = -CURVES * spread, math.log(2 / alpha)
    low, high = 0.0, SCALE * (wanted + float((CURVES * spread)[-1]) + math.log(len(STAKES))) / STAKES[-1]
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if log_mean(STAKES / SCALE * middle + logs) >= wanted else (middle, high)
    return float(high) / blocks


def is_below(total: float, spread: float, alpha: float) -> bool:
    """Whether that interval of gains with such a sum lies below zero."""
    return total < 0 and bool(log_mean(-STAKES / SCALE * total - CURVES * spread) >= math.log(2 / alpha))


def _chained(digest: U8, gain: float) -> U8:
    return np.frombuffer(hashlib.sha256(digest.tobytes() + struct.pack("<d", gain)).digest(), np.uint8)
