"""This tree beside another one, in one run: each figure of the named scripts, in interleaved pairs of turning order.

    python benchmarks/pairs.py ../before engine decode live --pairs 5

`../before` is a checkout that was set up by its own `make setup`. Each run is a process of its own tree's interpreter.
The ratio is cost now / cost before (of a figure where higher is better, before / now), with the 90 % bootstrap interval
of its median. Exit 1 if the whole interval of one lies beyond --bar. Writes benchmarks/results/pairs_NAME.json, anew
after each pair: a run that is stopped keeps what it has measured.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from run import CHILD, RESULTS, TIMEOUT_S, machine, save
from stats import Figure, ratio_of

HERE = Path(__file__).parent.parent


def figures(tree: Path, script: str) -> dict[str, dict[str, Any]]:
    """Of one run in that tree, by name."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "figures.json"
        environment = {**os.environ, "PYTHONPATH": str(tree / "benchmarks"), "OMP_NUM_THREADS": "1"}
        command = [str(tree / ".venv/bin/python"), "-c", CHILD, script, str(out)]
        subprocess.run(
            command, env=environment, cwd=tree, timeout=TIMEOUT_S, check=True, stdout=subprocess.DEVNULL
        )  # fmt: skip
        return {figure["name"]: figure for figure in json.loads(out.read_text())}


def cost(now: dict[str, Any], before: dict[str, Any]) -> float:
    """Above 1 where it became worse, whichever way the figure is read."""
    a, b = (now, before) if now["better"] == "lower" else (before, now)
    return float(a["value"] / b["value"])


def compared(tree: Path, script: str, pairs: int, bar: float) -> list[Figure]:
    told: list[Figure] = []
    where = machine()
    found: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {}
    for pair in range(pairs):
        order = (HERE, tree) if pair % 2 else (tree, HERE)
        runs = {which: figures(which, script) for which in order}
        for name in runs[HERE].keys() & runs[tree].keys():
            found.setdefault(name, []).append((runs[HERE][name], runs[tree][name]))
        print(f"  {script}: pair {pair + 1} of {pairs}", file=sys.stderr, flush=True)
        told = [figure_of(f"{script}: {name}", both, bar) for name, both in sorted(found.items())]
        result = {"script": script, "failed": "", "figures": [figure.as_json() for figure in told]}
        save(f"pairs_{script}", where, [result])
    return told


def figure_of(name: str, both: list[tuple[dict[str, Any], dict[str, Any]]], bar: float) -> Figure:
    ratio = ratio_of([cost(now, before) for now, before in both])
    unit = both[0][0]["unit"]
    values = [
        f"{min(row):,.4g} to {max(row):,.4g}" for row in zip(*((b["value"], n["value"]) for n, b in both), strict=True)
    ]
    note = f"{len(both)} pairs; {unit}: {values[0]} before, {values[1]} now"
    return Figure(name, ratio.median, "x", bar, "lower", ratio.low, ratio.high, note=note)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="the other tree")
    parser.add_argument("names", nargs="+", help="scripts that both trees have")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--bar", type=float, default=1.05, help="the cost that is still allowed")
    given = parser.parse_args()
    slower = False
    RESULTS.mkdir(exist_ok=True)
    for name in given.names:
        told = compared(given.before.resolve(), name, given.pairs, given.bar)
        slower |= any(not figure.holds for figure in told)
        for figure in told:
            word = "slower" if not figure.holds else "within" if (figure.high or 0) <= given.bar else "not told apart"
            interval = f"[{figure.low:.3f}, {figure.high:.3f}]"
            print(f"{figure.name:<70} {figure.value:6.3f} {interval:<16} {word:<15} {figure.note}", flush=True)
    return int(slower)


if __name__ == "__main__":
    sys.exit(main())
