"""Does a price leave a band, or touch a level, as often as `forecast` tells? On real bars, whose highs and lows say it.

    python benchmarks/run.py loop_leaving

The whole engine at its default settings, the naive rung, bars in. Over the second half of each series every symbol is
asked now and then how likely it leaves bounds that lie so many one-bar moves of its window away; beside it stands what
the highs and lows of the next bars did. The figure is the step, of all bounds, at which both are furthest apart; where
fewer than 1,000 answers each are there it is told without a verdict.
"""

import tempfile
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from coverage_by_step import deployment
from coverage_cases import CASES, written
from stats import Figure
from tickcast.columns import F64, BarBatch
from tickcast.engine.core.engine import Engine
from tickcast.engine.core.events import Ask
from tickcast.io.tape.tape import Tape
from tickcast.loop.build import build

HORIZON, STEPS = 24, (1, 4, 12, 24)
BOUNDS = {  # in one-bar moves of the window
    "2 down or up": (2.0, 2.0), "3 up": (np.inf, 3.0), "3 down": (3.0, np.inf), "4 down or 6 up": (4.0, 6.0),
}  # fmt: skip
ASKED, WITHIN, FOR_A_VERDICT = 24, 5.0, 1_000  # bars from one question to the next of a symbol, points, answers
MOST = 2_000  # turns of a series


class Told(NamedTuple):
    """One answer."""

    bounds: str
    symbol: int
    as_of: int
    low: float
    high: float
    odds: F64  # [H]


def ask_all(engine: Engine, names: list[str], turn: int) -> list[Told]:
    """Each symbol about the bounds whose turn it is."""
    found = []
    for symbol, name in enumerate(names):
        bounds = [*BOUNDS][(turn + symbol) % len(BOUNDS)]
        (plain,) = engine.turn([Ask((name,))], 0).answers
        if plain.refused is not None:  # too few bars
            continue
        scale, (down, up) = float(plain.scale[0]), BOUNDS[bounds]
        low, high = float(plain.anchor[0] * np.exp(-down * scale)), float(plain.anchor[0] * np.exp(up * scale))
        (answer,) = engine.turn([Ask((name,), bounds=(low, high))], 0).answers
        if answer.leaving is not None:
            found.append(Told(bounds, symbol, int(answer.as_of[0]), low, high, answer.leaving[0]))
    return found


def came(told: list[Told], bars: BarBatch) -> tuple[dict[str, list[F64]], dict[str, list[F64]]]:
    """By bounds, what was told at each of STEPS and 1 where it had come by then, where all of the bars are there."""
    at, both = np.array(STEPS) - 1, (defaultdict[str, list[F64]](list), defaultdict[str, list[F64]](list))
    of = {int(s): np.flatnonzero(bars.symbol == s) for s in np.unique(bars.symbol)}
    for one in told:
        rows = of[one.symbol]
        rows = rows[np.searchsorted(bars.as_of[rows], one.as_of, "right") :][:HORIZON]
        if len(rows) == HORIZON and (bars.gap[rows] == 0).all() and (bars.mask[rows] == 1).all():
            out = (bars.low[rows] <= one.low) | (bars.high[rows] >= one.high)
            both[0][one.bounds].append(one.odds[at])
            both[1][one.bounds].append(np.maximum.accumulate(out.astype(np.float64))[at])
    return both


def figure_of(name: str, frame: pl.DataFrame, every_ns: int, folder: Path) -> Figure:
    settings, symbols = deployment(every_ns, **{"forecast.horizon": str(HORIZON)}), frame["symbol"].n_unique()
    tape = Tape(written(frame, folder / "bars.parquet"), settings, chunk=4 * symbols * ASKED)
    serving, told, bars, turns = build(tape.settings), list[Told](), list[BarBatch](), len(frame) // symbols // ASKED
    every = turns // MOST + 1
    for turn, batch in enumerate(tape):
        bars += serving.engine.turn([batch], 0).bars
        if turn > turns // 2 and turn % every == 0:
            told += ask_all(serving.engine, serving.symbols.names(), turn // every)
    said, done = came(told, BarBatch.concat(bars))
    means = {bounds: (100 * np.mean(said[bounds], axis=0), 100 * np.mean(done[bounds], axis=0)) for bounds in said}
    apart = max(float(np.abs(one - other).max()) for one, other in means.values())
    text = [
        f"{bounds} ({len(said[bounds])}): " + " ".join(f"{a:.0f}/{b:.0f}" for a, b in zip(one, other, strict=True))
        for bounds, (one, other) in means.items()
    ]
    note = f"told / came in percent at steps {', '.join(map(str, STEPS))}; " + "; ".join(text)
    bar = WITHIN if min(map(len, said.values())) >= FOR_A_VERDICT else None
    return Figure(f"{name}: furthest of what was told from what came", apart, "points", bar, note=note)


def main() -> list[Figure]:
    figures = []
    with tempfile.TemporaryDirectory(prefix="leaving-") as folder:
        for name, (read, every_ns) in CASES.items():
            if name != "GARCH walk":  # its bars have no highs
                figures.append(figure_of(name, read(), every_ns, Path(folder)))
                print(figures[-1], flush=True)
    return figures


if __name__ == "__main__":
    main()
