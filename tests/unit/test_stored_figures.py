"""Figures of stored scores are those of their rows, by the functions that live figures have, and so is what too few
blocks tell."""

from typing import Any

import duckdb
import numpy as np
import pytest

from tickcast import figures as of
from tickcast.io.store import scored

STEPS = [1, 3]
GIVEN = {"from": 0, "to": 10**12, "symbols": None, "model": ""}


def told(rows: list[list[Any]], symbols: list[str] | None = None) -> dict[int, dict[str, Any]]:
    with duckdb.connect() as db:
        db.execute("CREATE TABLE models AS SELECT 0 AS model, 'net' AS name, '1' AS version, 'd' AS digest")
        db.execute(
            "CREATE TABLE scores (id BIGINT, symbol VARCHAR, as_of_ns BIGINT, settled_ns BIGINT, model INT, "
            "anchor DOUBLE, scale DOUBLE, steps INT[], actual_from_anchor FLOAT[], point_from_anchor FLOAT[], "
            "loss FLOAT[], loss_naive FLOAT[], covered BOOLEAN[], in_sample BOOLEAN)"
        )
        db.executemany(f"INSERT INTO scores VALUES ({', '.join('?' * 14)})", rows)
        found = scored._rows(
            db, scored.KEPT.format(rows="scores", once="") + scored.SUMS, GIVEN | {"symbols": symbols}
        )  # fmt: skip
    return {row["horizon"]: scored._figures(row) for row in found}


def rows_of(count: int, *, seed: int = 1) -> list[list[Any]]:
    """Two symbols a bar; every ninth truth is void."""
    draw, rows = np.random.default_rng(seed), []
    for number in range(count):
        actual, point, loss = draw.normal(size=(3, 2)).round(3)
        truth = [None if number % 9 == 0 else float(actual[0]), float(actual[1])]
        void = [value is None for value in truth]
        loss = [None if gone else abs(float(each)) for gone, each in zip(void, loss, strict=True)]
        held = [None if gone else bool(draw.random() < 0.8) for gone in void]
        rows.append([
            number, "AB"[number % 2], number // 2 * 1000, number // 2 * 1000 + 3000, 0, 100.0, 0.01, STEPS, truth,
            point.tolist(), loss, [None if each is None else each + 0.1 for each in loss], held, False,
        ])  # fmt: skip
    return rows


@pytest.mark.parametrize("symbols", [None, ["A"]])
def test_figures_are_those_of_the_rows(symbols: list[str] | None) -> None:
    rows = rows_of(200)
    kept = [row for row in rows if symbols is None or row[1] in symbols]
    for at, step in enumerate(STEPS):
        row = told(rows, symbols)[step]
        known = [each for each in kept if each[8][at] is not None]
        actual, point = (np.array([each[column][at] for each in known], np.float32).astype(float) for column in (8, 9))
        held = np.array([each[12][at] for each in known])
        assert (row["n"], row["void"]) == (len(known), len(kept) - len(known))
        assert row["blocks"] == len({each[2] // (2 * step * 1000) for each in known}) >= of.LEAST_BLOCKS
        assert not row["insufficient"]
        error, y, x = abs(actual - point), abs(100 + actual), abs(100 + point)
        expected = {
            "mae": error.mean(), "mae_naive": abs(actual).mean(), "rmse": np.sqrt((error**2).mean()),
            "mape": 100 * (error / y).mean(), "smape": 100 * (2 * error / (y + x)).mean(), "coverage": held.mean(),
            "directional": (actual * point > 0)[actual * point != 0].mean(),
        }  # fmt: skip
        assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-9)
        assert row["coverage_low"] < row["coverage"] < row["coverage_high"]
        assert row["skill"] == pytest.approx(1 - row["pinball"] / row["pinball_naive"])


def test_too_few_blocks_give_counts_and_no_figure() -> None:
    row = told(rows_of(36))[3]
    assert (row["n"], row["blocks"], row["insufficient"]) == (36, 3, True)
    counts = {"model", "version", "horizon", "n", "void", "blocks", "insufficient"}
    assert {name for name, value in row.items() if value is not None} == counts
