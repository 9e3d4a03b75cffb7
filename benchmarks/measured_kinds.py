"""What `tickcast recommend` knows of public data, written from the results of benchmarks into the package.

    python benchmarks/measured_kinds.py

It measures signatures alone, for which the data have to be there; all else stands in the results.
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import msgspec

from accuracy_cases import CRYPTO, CRYPTO_HORIZON, SETTINGS
from accuracy_data import FOLDS, write_bars
from accuracy_results import Row, chosen_rows
from tickcast.batch.train.history import read_history
from tickcast.figures import skill
from tickcast.io.jobs.folder import write_whole
from tickcast.loop.recommend import MEASURED, MeasuredCase, MeasuredKind, MeasuredTable
from tickcast.loop.signature import Signature, signature_of

VOLATILITY, STEP = Path(__file__).parent / "results" / "loop_volatility.json", 12
RANDOM_WALK = "last value with the widths of a random walk"
CALIBRATED = "last value, calibrated"
NAMES = {CRYPTO: "27 hourly crypto pairs", "ettm2": "ETTm2", "exchange": "8 daily exchange rates"}
USES = {  # what a kind looks for by its make: docs/models.md tells of each
    "memory": ["ridge", "ar", "lasso", "elasticnet", "nlinear", "dlinear", "micro", "arima", "kalman"],
    "clustering": ["har", "realised_range", "garch", "gjr", "ewma_vol"],
    "season": ["mstl", "prophet_like"],
    "season of size": ["har", "realised_range"],
}


def table(signatures: dict[str, Signature]) -> MeasuredTable:
    """Of every set of data whose signature is known."""
    return MeasuredTable([case for case in _cases(signatures) if case.kinds], USES)


def _cases(signatures: dict[str, Signature]) -> Iterator[MeasuredCase]:
    for data, horizon in [(CRYPTO, CRYPTO_HORIZON), *SETTINGS]:
        rows = chosen_rows(f"{data}-{horizon}")
        kinds = [_kind(kind, of) for kind, of in rows.items() if data != CRYPTO or len(of) == FOLDS]
        origin = f"benchmarks/results/accuracy/{data}-{horizon}.jsonl"
        yield _case(data, horizon, RANDOM_WALK, origin, signatures, kinds)
    origin = "benchmarks/results/loop_volatility.json"
    yield _case(CRYPTO, STEP, CALIBRATED, origin, signatures, [*volatility_kinds()])


def _case(
    data: str, horizon: int, beside: str, origin: str, signatures: dict[str, Signature], kinds: list[MeasuredKind]
) -> MeasuredCase:  # fmt: skip
    best_first = sorted(kinds, key=lambda one: -one.skill)
    return MeasuredCase(NAMES[data], horizon, beside, origin, signatures[data], best_first)


def _kind(kind: str, rows: list[Row]) -> MeasuredKind:
    """Its interval is that from the worst to the best fold or seed, where there is more than one."""
    each = [float(skill(row.pinball, row.pinball_naive)) for row in rows]
    mean = float(skill(fmean(row.pinball for row in rows), fmean(row.pinball_naive for row in rows)))
    low, high = (round(min(each), 5), round(max(each), 5)) if len(each) > 1 else (None, None)
    return MeasuredKind(kind, round(mean, 5), low, high, round(min(row.cost_us for row in rows), 2))


def volatility_kinds() -> Iterator[MeasuredKind]:
    """Those that `loop_volatility` fitted, at one step."""
    found = json.loads(VOLATILITY.read_text(encoding="utf-8"))["results"][0]["figures"]
    figures: dict[str, dict[str, Any]] = {figure["name"]: figure for figure in found}
    costs = {name.partition(":")[0]: figure["value"] for name, figure in figures.items() if figure["unit"] == "us"}
    for kind in USES["clustering"]:
        of = figures[f"{kind}: pinball skill at step {STEP}"]
        values = [round(of[name] / 100, 5) for name in ("value", "low", "high")]
        yield MeasuredKind(kind, *values, round(costs[kind], 2))


def signature_now(data: str) -> Signature:
    with tempfile.TemporaryDirectory() as folder:
        write_bars(Path(folder), data, FOLDS)
        history = read_history(Path(folder), on_gap="carry")
        return signature_of(history.closes())


if __name__ == "__main__":
    found = table({data: signature_now(data) for data in NAMES})
    write_whole(MEASURED, msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
