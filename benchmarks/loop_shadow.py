"""What one shadow of the same size as the model that serves costs those who wait for a forecast.

    python benchmarks/run.py loop_shadow

The daemon of `live` under the same load, in pairs of turning order: with a second NHITS that answers every question,
too, is widened, scored and published on `shadow`; and without it. The store writes everything.
"""

import sys
import tempfile
from pathlib import Path

import uvloop

from live import fitted, settings_for, under_load
from stats import Figure, ratio_of

PAIRS, MOST = 5, 1.3
NO_UPKEEP = {"schedule__look_every_s": "3600"}  # it would end a contest that is not its own


def main() -> list[Figure]:
    latencies: list[dict[bool, float]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        serves, beside = (fitted(folder, seed=seed, bars__kind="tick") for seed in (0, 1))
        for pair in range(PAIRS):
            found = {}
            for shadowed in (True, False)[:: -1 if pair % 2 else 1]:
                settings = settings_for(
                    folder / f"{pair}{shadowed}", bars__kind="tick", model__default=str(serves), **NO_UPKEEP
                )
                run = under_load(settings, shadow=beside if shadowed else None)
                found[shadowed] = uvloop.run(run)[0]
            latencies.append(found)
            print(f"  pair {pair + 1} of {PAIRS}: {found}", file=sys.stderr, flush=True)
    ratio = ratio_of([found[True] / found[False] for found in latencies])
    spans = [f"{min(of):.2f} to {max(of):.2f}" for of in ([found[on] for found in latencies] for on in (False, True))]
    note = f"{PAIRS} pairs; ms: {spans[0]} without, {spans[1]} with"
    return [Figure("tick to forecast, p99, with a shadow over without", ratio.median, "x", MOST, "lower", ratio.low,
                   ratio.high, note=note)]  # fmt: skip


if __name__ == "__main__":
    for figure in main():
        print(figure)
