"""How often is a challenger promoted that is no better, and how many blocks does one take that is?

    python benchmarks/run.py loop_gate

Simulated gains of bars, each run with a hold-out of its own from which come its terms (`terms_of`): how long a block
is, and the bound of a gain. A refusal is passed over, so that every run is put to the test; alpha is 5 % for one
candidate. Turns begin after the hold-out, which shows nothing of them. The evidence is `log_evidence`; in some runs of
each case a `Contest` settles the same bars, and must decide at the same block. Heavy tails (Student's t of 4 degrees),
losses that differ between blocks by a factor of ten.
"""

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from loop_gate_cases import crypto_widths
from stats import Figure
from tickcast.columns import F64, I64
from tickcast.engine.core import contest
from tickcast.engine.core.contest import Contest, ContestTerms, ContestVerdict

RUNS, BARS, HOLD_OUT, ALPHA = 1_000, 2_000, 200, 0.05
CHECKED, CHUNK = 20, 50
DEVIATION = 0.03  # of a gain, about
MOST, MOST_BOUND, MOST_ALIKE = 5.0, 6.5, 7.0  # percent
TURN = (20, 120)  # blocks
BETTER_BY = 0.5  # deviations, within a good turn
EFFECTS = (0.1, 0.2, 0.3)
ROUND, EARNED = 250, 0.3  # blocks; deviations by which a champion was better than last value
HOURS = 8760
LAST_BLOCKS = 50  # that tuned stakes look back on
Series = Callable[[np.random.Generator, int, int], F64]  # (draws, runs, bars) -> mean gain and noise, in deviations


class Outcome(NamedTuple):
    took: I64  # blocks until the promotion; 0 = none
    bars: I64  # of a block


def noise(rng: np.random.Generator, runs: int, bars: int) -> F64:
    return rng.standard_t(4, (runs, bars)) / math.sqrt(2)


def alike(correlation: float) -> Series:
    def series(rng: np.random.Generator, runs: int, bars: int) -> F64:
        found = noise(rng, runs, bars)
        for t in range(1, bars):
            found[:, t] = correlation * found[:, t - 1] + math.sqrt(1 - correlation**2) * found[:, t]
        return found

    return series


def by_turns(rng: np.random.Generator, runs: int, bars: int) -> F64:
    """Never better on average: each good turn only makes up for the bad one before it, which is as long."""
    return _in_turns(rng, runs, bars, first=-1)


def better_by(effect: float) -> Series:
    return lambda rng, runs, bars: noise(rng, runs, bars) + effect


def _in_turns(rng: np.random.Generator, runs: int, bars: int, *, first: int) -> F64:
    found = noise(rng, runs, bars)
    found[:, HOLD_OUT:] += BETTER_BY * np.stack([_turns(rng, bars - HOLD_OUT, first=first) for _ in range(runs)])
    return found


def _turns(rng: np.random.Generator, bars: int, *, first: int) -> F64:
    found: list[F64] = []
    while sum(map(len, found)) < bars:
        length = int(rng.integers(*TURN))
        found += [np.full(length, float(first)), np.full(length, float(-first))]
    return np.concatenate(found)[:bars]


def losses_of(gains: F64, rng: np.random.Generator) -> tuple[F64, F64]:
    """Of champion and challenger, whose relative gains these are, but for those beyond one."""
    gains = np.clip(DEVIATION * gains, -1.0, 1.0)
    size = np.exp(rng.normal(0, 0.6, gains.shape))
    return size * (1 + gains), size * (1 - gains)


def run(series: Series, seed: int, *, block_rule: bool = True, alpha: float = ALPHA) -> Outcome:
    """All runs of a case."""
    took, lengths = [], []
    for first in range(0, RUNS, CHUNK):
        rng = np.random.default_rng([seed, first])
        champion, challenger = losses_of(series(rng, CHUNK, HOLD_OUT + BARS), rng)
        for i, pair in enumerate(zip(champion, challenger, strict=True)):
            terms = terms_for(*(loss[:HOLD_OUT] for loss in pair), block_rule=block_rule, alpha=alpha)
            shadow = [loss[HOLD_OUT:] for loss in pair]
            took.append(first_better(*shadow, terms))
            lengths.append(terms.block_bars)
            if first + i < CHECKED:
                check(*shadow, terms, took[-1])
    return Outcome(np.array(took), np.array(lengths))


def terms_for(champion: F64, challenger: F64, *, block_rule: bool, alpha: float) -> ContestTerms:
    terms = contest.terms_of(champion, challenger, horizon=1, alpha=alpha, most_bars=BARS)
    block_bars = terms.block_bars if block_rule else 1
    bound = contest.bound_of(contest.block_gains(champion, challenger, block_bars))
    return terms._replace(block_bars=block_bars, most_blocks=BARS // block_bars, bound=bound)


def first_better(champion: F64, challenger: F64, terms: ContestTerms) -> int:
    """The block at which evidence is enough; 0 = none."""
    gains = contest.block_gains(champion, challenger, terms.block_bars)
    enough = contest.log_evidence(np.clip(gains / terms.bound, -1.0, 1.0)) >= -math.log(terms.alpha)
    return int(enough.argmax()) + 1 if enough.any() else 0


def check(champion: F64, challenger: F64, terms: ContestTerms, expected: int) -> None:
    """That a contest decides the same; it may wait where the sum of losses says otherwise, or have ended it before."""
    held = Contest(terms)
    for pair in zip(champion.tolist(), challenger.tolist(), strict=True):
        held.settle(*pair)
    found = held.evidence()
    decided = found.blocks if found.verdict is ContestVerdict.BETTER else 0
    if decided != expected and not (expected and (decided == 0 or decided > expected)):
        raise AssertionError(f"a contest decides at block {decided}, the series at {expected}")


def wrong(name: str, found: Outcome, most: float | None, most_bound: float | None = None) -> list[Figure]:
    """Share of runs with a promotion, and what it is at most (95 %, Wilson)."""
    promoted = int((found.took > 0).sum())
    share, at_most = 100 * promoted / RUNS, 100 * upper(promoted, RUNS)
    note = f"of {RUNS:,} runs, {told_lengths(found.bars)}"
    figures = [Figure(f"{name}: promoted", share, "%", most, note=note)]
    if most_bound is not None:
        figures.append(Figure(f"{name}: promoted, 95 % bound", at_most, "%", most_bound))
    return figures


def told_lengths(bars: I64) -> str:
    lengths, counts = np.unique(bars, return_counts=True)
    return "bars in a block: " + ", ".join(f"{n} ({c})" for n, c in zip(lengths, counts, strict=True))


def upper(hits: int, n: int) -> float:
    z, share = NormalDist().inv_cdf(0.95), hits / n
    centre, spread = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (centre + spread) / (1 + z * z / n)


def power(effect: float, seed: int) -> list[Figure]:
    found = run(better_by(effect), seed)
    took = np.where(found.took > 0, found.took * found.bars, BARS + 1)
    formula = 2 * -math.log(ALPHA) / effect**2
    name = f"effect {effect:g}"
    return [
        Figure(f"{name}: median blocks to a promotion", float(np.median(took)), "blocks",
               note=f"2 s^2 ln(1 / alpha) / d^2 says {formula:,.0f}; {told_lengths(found.bars)}"),
        Figure(f"{name}: promoted within {BARS:,} blocks", 100 * float((found.took > 0).mean()), "%", better="higher"),
    ]  # fmt: skip


def one_after_the_other(seed: int, candidates: int = 10) -> Figure:
    """Runs in which any of so many candidates that are no better is promoted, each with its share of alpha."""
    rounds = [run(noise, seed + k, alpha=contest.spent_alpha(k)).took > 0 for k in range(1, candidates + 1)]
    any_wrong = 100 * float(np.any(rounds, axis=0).mean())
    return Figure(f"{candidates} candidates that are no better: any promoted", any_wrong, "%", MOST)


def tuned_stakes(seed: int) -> Figure:
    """What we do not do: one stake, tuned on the last blocks. Its purse is no e-process where means come by turns."""
    rng = np.random.default_rng(seed)
    gains = np.clip(by_turns(rng, RUNS, HOLD_OUT + BARS)[:, HOLD_OUT:] / contest.BOUND, -1.0, 1.0)
    purse, promoted = np.zeros(RUNS), np.zeros(RUNS, np.bool_)
    for t in range(LAST_BLOCKS, BARS):
        past = gains[:, t - LAST_BLOCKS : t]
        stake = np.clip(past.mean(axis=1) / (past * past).mean(axis=1), 0.0, contest.STAKES[-1])
        purse += np.log1p(stake * gains[:, t])
        promoted |= purse >= -math.log(ALPHA)
    return Figure("better by turns, one stake tuned on 50 blocks: promoted", 100 * float(promoted.mean()), "%")


def last_value_takes_over(seed: int) -> list[Figure]:
    """A champion earned its place for 1,000 blocks, and is worse than last value from then on: blocks until it goes."""
    rng, half, rounds = np.random.default_rng(seed), BARS // 2, BARS // ROUND
    drift = np.concatenate([np.full(half, -EARNED), np.full(half, BETTER_BY)])
    needed = -np.log([contest.spent_alpha(k) for k in range(1, rounds + 1)])
    enough: dict[str, list[F64]] = {"in rounds": [], "in one go": []}
    for _ in range(RUNS // CHUNK):
        gains = np.clip((noise(rng, CHUNK, BARS) + drift) / contest.BOUND, -1.0, 1.0)
        cut = contest.log_evidence(gains.reshape(CHUNK, rounds, ROUND)) >= needed[:, None]
        enough["in rounds"].append(cut.reshape(CHUNK, BARS))
        enough["in one go"].append(contest.log_evidence(gains) >= -math.log(ALPHA))
    return [_takeover(name, np.concatenate(parts), half) for name, parts in enough.items()]


def _takeover(name: str, enough: F64, half: int) -> Figure:
    found, early = enough[:, half:].any(axis=1), 100 * enough[:, :half].any(axis=1).mean()
    late = np.where(found, enough[:, half:].argmax(axis=1) + 1, half)
    note = f"in {100 * found.mean():.0f} % of runs within {half:,}; before the break in {early:.1f} %"
    return Figure(f"last value takes over, {name}: median blocks", float(np.median(late)), "blocks", note=note)


def a_good_turn_first(seed: int) -> list[Figure]:
    """No better in the end, but better at first: promoted rightly then. The roles are swapped after it."""
    rng, needed = np.random.default_rng(seed), -math.log(ALPHA)
    promoted, served = 0, []  # blocks until the rollback
    for gains in _in_turns(rng, RUNS, HOLD_OUT + BARS, first=1)[:, HOLD_OUT:] / contest.BOUND:
        enough = contest.log_evidence(np.clip(gains, -1.0, 1.0)) >= needed
        if enough.any():
            promoted += 1
            back = contest.log_evidence(np.clip(-gains[enough.argmax() + 1 :], -1.0, 1.0)) >= needed
            served += [int(back.argmax()) + 1] if back.any() else []
    share, after = 100 * len(served) / max(promoted, 1), np.median(served) if served else math.nan
    note = f"{share:.0f} % of these are rolled back before the end, after {after:,.0f} blocks in the median"
    return [Figure("better in a first turn only: promoted", 100 * promoted / RUNS, "%", note=note)]


def interval_ever_off(seed: int) -> Figure:
    """Runs in which the interval once leaves out the mean, which is 0."""
    rng = np.random.default_rng(seed)
    off = 0
    for _ in range(RUNS // CHUNK):
        gains = np.clip(noise(rng, CHUNK, BARS) / contest.BOUND, -1.0, 1.0)
        sums, blocks = gains.cumsum(axis=1), np.arange(1, BARS + 1)
        before = np.hstack([np.zeros((CHUNK, 1)), (sums / blocks)[:, :-1]])
        spread = ((gains - np.clip(before, -contest.CENTRE, contest.CENTRE)) ** 2).cumsum(axis=1)
        law = contest.CURVES * spread[..., None]
        rate = contest.STAKES / contest.SCALE * np.abs(sums)[..., None]
        off += int((contest.log_mean(rate - law) >= math.log(2 / contest.INTERVAL_ALPHA)).any(axis=1).sum())
    return Figure("interval of the mean gain: ever off", 100 * off / RUNS, "%", 100 * contest.INTERVAL_ALPHA)


def on_crypto() -> Figure:
    """How long a contest on real bars is: a year as the hold-out, and how many more bars it says that it needs."""
    champion, challenger = (loss[-HOURS:] for loss in crypto_widths())
    terms = contest.terms_of(champion, challenger, horizon=12, alpha=contest.spent_alpha(1), most_bars=HOURS)
    note = (
        f"{terms.needed_blocks:,.0f} blocks of {terms.block_bars} bars, mean gain {terms.gain:+.4f}, bound "
        f"{terms.bound:.3f}, correlation {terms.correlation:.2f} over {terms.blocks} blocks of the hold-out"
    )
    needed = terms.needed_blocks * terms.block_bars
    return Figure("hourly crypto, EWMA's width beside the window's: bars needed", needed, "bars", note=note)


def main() -> list[Figure]:
    figures = [
        *wrong("no better", run(noise, 1), MOST, MOST_BOUND),
        *wrong("better by turns, never on average", run(by_turns, 2), MOST, MOST_BOUND),
        tuned_stakes(3),
        *a_good_turn_first(4),
    ]
    for correlation in (0.3, 0.5):
        name = f"no better, neighbours alike by {correlation:g}"
        figures += wrong(name, run(alike(correlation), 5), MOST_ALIKE)
        figures += wrong(f"{name}, without the block rule", run(alike(correlation), 5, block_rule=False), None)
    figures.append(one_after_the_other(100))
    figures.append(interval_ever_off(6))
    figures += [*last_value_takes_over(8), on_crypto()]
    for effect in EFFECTS:
        figures += power(effect, 7)
    return figures


if __name__ == "__main__":
    for figure in main():
        print(figure)
