"""A small tape with a gap, a repeat and two bad lines, and what it must give: any change shows here, line by line.

`make golden` (GOLDEN=write) writes the expectation anew; the diff is then for review.
"""

import os
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from tickcast.batch.replay import ReplayOrder, in_folder, replay
from tickcast.settings import load

HERE = Path(__file__).parent
TAPE = HERE / "ticks.jsonl"
DIGITS = 10  # significant ones that are kept
WITHIN = 1e-7
ONE_BAR = 1e-6  # of it a value near zero may differ
DEPLOYMENTS = {
    "time": {"bars.every_ms": "1000"},
    "tick": {"bars.kind": "tick", "bars.every_ticks": "2", "score.adapt_every_bars": "8"},
}
COMMON = {
    "window.lookback": "6", "forecast.horizon": "2", "forecast.quantiles": "[0.1, 0.5, 0.9]", "model.default": "holt",
    "symbols.limit": "8", "uncertainty.memory_bars": "500",
}  # fmt: skip
KEPT = {
    "forecasts": ["id", "symbol", "as_of_ns", "tie", "rung", "quality", "anchor", "scale", "quantiles"],
    "scores": ["id", "symbol", "settled_ns", "anchor", "scale", "actual", "point", "pinball", "covered"],
}
REASONS = {"malformed": 1, "wrong_unit": 1, "late": 1}

Row = dict[str, Any]


async def replayed(kind: str, folder: Path) -> dict[str, list[Row]]:
    """What the tape gives now, rounded as it is kept."""
    settings = load(overrides={**COMMON, **DEPLOYMENTS[kind], "runtime.folder": str(folder / "run")}, environ={})[0]
    summary = await replay(in_folder(settings, folder), ReplayOrder(TAPE, folder, chunk=25))
    assert summary["reasons"] == REASONS
    found = {name: pl.read_parquet(folder / f"{name}.parquet").select(columns) for name, columns in KEPT.items()}
    return {name: [rounded(row) for row in frame.iter_rows(named=True)] for name, frame in found.items()}


def rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if value == value else None  # JSON has no NaN
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value


def expectation(kind: str, name: str) -> Path:
    return HERE / f"{kind}.{name}.jsonl"


def write(path: Path, rows: list[Row]) -> None:
    path.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))


def same(found: Any, expected: Any, *, near: float) -> bool:
    if isinstance(found, float) and isinstance(expected, float):
        return abs(found - expected) <= max(WITHIN * abs(expected), near)
    if isinstance(found, list):
        return len(found) == len(expected) and all(same(a, b, near=near) for a, b in zip(found, expected, strict=True))
    return bool(found == expected)


@pytest.mark.parametrize("kind", DEPLOYMENTS)
async def test_the_tape_gives_the_forecasts_and_scores_that_are_kept_here(tmp_path: Path, kind: str) -> None:
    found = await replayed(kind, tmp_path)
    if os.environ.get("GOLDEN") == "write":
        for name, rows in found.items():
            write(expectation(kind, name), rows)
    for name, rows in found.items():
        lines = expectation(kind, name).read_bytes().splitlines()
        expected = [msgspec.json.decode(line) for line in lines]
        assert len(rows) == len(expected) > 40, name
        for row, kept in zip(rows, expected, strict=True):
            near = ONE_BAR * row.get("scale", 0.0) * row.get("anchor", 0.0)
            apart = {key: (row[key], kept[key]) for key in kept if not same(row[key], kept[key], near=near)}
            assert not apart, f"{name} of {row['symbol']}"
