"""What retraining by need is worth where the truth is known: on streams that turn, and on streams that never do.

    python benchmarks/run.py loop_replay

Eight hourly walks whose moves turn back; in the streams that turn they go on instead from bar 4,000 of 9,500. A ridge
regression is fitted on the first 1,500 bars in every arm. What an oracle of the law would lose is known of each label;
`recovered` is the skill over last value in parts of the oracle's, over the last half of what comes after the turn.
A fit sees 1,000 bars, and comes 1,000 bars after an alarm, so that it has seen nothing of before the turn.
Quiet streams go on as they began: there retraining can only cost. Each arm is that of `tickcast replay --loop`.
"""

import asyncio
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from accuracy_data import HOUR_NS
from coverage_cases import T0
from loop_replay_cases import Stream, oracle_loss, stream, write
from stats import Figure
from tickcast.batch.judge.report_certainty import ALL, with_intervals
from tickcast.batch.loop_replay.arm_figures import beside
from tickcast.batch.loop_replay.arms import arms_of
from tickcast.batch.loop_replay.host import FirstModel
from tickcast.batch.loop_replay.loop_replay import ArmDone, LoopOrder, replayed
from tickcast.batch.replay import ReplayOrder
from tickcast.figures import skill
from tickcast.progress import unshown
from tickcast.settings import Settings, load

SEEDS, BARS, TURNS_AT, FIRST = (1, 2, 3), 9_500, 4_000, 1_500
CHUNK = 320  # rows, four of a bar: ten bars from one look to the next
RECOVERED = 80.0  # percent
ARMS = ("last value", "static", "triggered")
SETTINGS = {
    "bars.every_ms": str(HOUR_NS // 10**6), "window.lookback": "48", "forecast.horizon": "2", "schedule.kind": "ridge",
    "schedule.max_new_bars": "1500", "schedule.min_new_bars": "1000", "schedule.keep_bars": "1000",
    "schedule.skill_floor": "0.01",
}  # fmt: skip


class Run(NamedTuple):
    of: Stream
    arms: dict[str, ArmDone]


def run(of: Stream, folder: Path) -> Run:
    """Those whose intervals are adaptive."""
    settings = deployment(folder)
    order = LoopOrder(ReplayOrder(write(of, folder / "bars.parquet"), folder / "out", chunk=CHUNK), first_bars=FIRST)
    first, done = FirstModel(), {}
    for arm in arms_of(settings):
        if arm.adaptive and arm.name in ARMS:
            done[arm.name] = asyncio.run(replayed(arm, order, first, unshown))
    return Run(of, done)


def deployment(folder: Path) -> Settings:
    return load(overrides={**SETTINGS, "runtime.folder": str(folder / "run")}, environ={})[0]


def labels_of(found: Run, arm: str, other: str, from_ns: int) -> pl.DataFrame:
    return beside(found.arms[arm].scores(), found.arms[other].scores(), log_return=True, from_ns=from_ns)


def recovered(found: Run, arm: str, from_bar: int) -> float:
    """Skill in parts of the oracle's, percent."""
    labels = labels_of(found, arm, "last value", T0 + from_bar * HOUR_NS)
    symbol = labels["symbol"].str.slice(1).cast(pl.Int64).to_numpy()
    bar = (labels["as_of_ns"].to_numpy() - T0) // HOUR_NS - 1
    oracle = oracle_loss(found.of, symbol, bar, labels["horizon"].to_numpy(), labels["scale"].to_numpy())
    own, naive = labels["loss"].to_numpy(), labels["loss_naive"].to_numpy()
    return 100 * float(skill(own.sum(), naive.sum()) / skill(oracle.sum(), naive.sum()))


def delay(found: Run, kind: str) -> float:
    """Bars from the turn to the first alarm, or to the first promotion after it; NaN where there is none."""
    story, turn = found.arms["triggered"].host.story, T0 + TURNS_AT * HOUR_NS
    at = [one.from_ns for one in story.alarms] if kind == "alarm" else [
        one.at_ns for one in story.decisions if one.kind == "promote"]  # fmt: skip
    return min(((one - turn) / HOUR_NS for one in at if one > turn), default=np.nan)


def of_turns(runs: list[Run]) -> list[Figure]:
    from_bar, figures = TURNS_AT + (BARS - TURNS_AT) // 2, []
    for arm, bar in (("triggered", RECOVERED), ("static", None)):
        shares = [recovered(one, arm, from_bar) for one in runs]
        note = f"of {len(runs)} streams the least; {', '.join(f'{share:.1f}' for share in shares)}"
        figures.append(Figure(f"a turn: recovered, {arm}", min(shares), "%", bar, better="higher", note=note))
        print(figures[-1], flush=True)
    for kind in ("alarm", "promotion"):
        delays = [delay(one, kind) for one in runs]
        note = ", ".join(f"{bars:,.0f}" for bars in delays)
        figures.append(
            Figure(f"a turn: bars to the first {kind}, triggered", float(np.median(delays)), "bars", note=note)
        )
    counts = [one.arms["triggered"].host.story.counts() for one in runs]
    note = f"promotions {', '.join(str(count['promotions']) for count in counts)}"
    figures.append(Figure("a turn: fits, triggered", max(count["fits"] for count in counts) - 1, "fits", note=note))
    return figures


def of_quiet(runs: list[Run]) -> list[Figure]:
    """Beside static: below 0 where retraining loses."""
    figures = []
    for seed, one in zip(SEEDS, runs, strict=True):
        told, served = one.arms["triggered"].host.story.counts(), one.arms["static"].host.serves_from_ns
        labels = labels_of(one, "triggered", "static", served)
        own, other = labels["loss"].to_numpy(), labels["loss_naive"].to_numpy()
        if (own == other).all():
            low = high = 0.0
        else:
            (row,) = with_intervals({ALL: [{}]}, labels)[ALL]
            low, high = 100 * row["skill_low"], 100 * row["skill_high"]
        note = f"{told['alarmed']} alarms, {told['fits'] - 1} fits after the first, {told['promotions']} promoted"
        gain = 100 * float(skill(own.sum(), other.sum()))
        figures.append(Figure(
            f"quiet {seed}: triggered beside static", gain, "%", 0.0, better="higher", low=low, high=high, note=note
        ))  # fmt: skip
    return figures


def main() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        turns = [run(stream(BARS, changes_at=TURNS_AT, seed=seed), Path(folder) / f"turn-{seed}") for seed in SEEDS]
        figures = of_turns(turns)
        quiet = [run(stream(BARS, seed=seed), Path(folder) / f"quiet-{seed}") for seed in SEEDS]
        return figures + of_quiet(quiet)


if __name__ == "__main__":
    for figure in main():
        print(figure)
