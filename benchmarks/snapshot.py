"""How long the engine stands still for a snapshot: its state copied between two turns. Files are written elsewhere.

    python benchmarks/run.py snapshot

1,000 symbols with full windows (L 96), features and open questions, as `engine` makes them.
"""

import time
from statistics import median

from engine import deployment, tape
from stats import Figure
from tickcast.loop.build import build

SYMBOLS, PER_BAR, BARS, RUNS, MOST_MS = 1_000, 5, 400, 20, 10.0


def main() -> list[Figure]:
    engine = build(deployment()).engine
    for batch in tape(SYMBOLS, SYMBOLS * PER_BAR * BARS, PER_BAR).batches:
        engine.turn([batch], 0)
    held = engine.builder.bars_held()
    if len(held) < SYMBOLS or held.min() < 96:
        raise SystemExit("not every symbol has a full window")
    took_ms = []
    for _ in range(RUNS):
        began = time.perf_counter_ns()
        state = engine.snapshot()
        took_ms.append((time.perf_counter_ns() - began) / 1e6)
    size = sum(array.nbytes for array in state.arrays.values()) / 1e6
    note = f"{size:.1f} MB; worst of {RUNS} {max(took_ms):.1f} ms"
    return [Figure("a snapshot stalls the engine", median(took_ms), "ms", MOST_MS, note=note)]


if __name__ == "__main__":
    for figure in main():
        print(figure)
