"""Figures of stored scores are those of their rows, by the functions that live figures have, and so is what too few
blocks tell."""

from typing import Any

import duckdb
import numpy as np
import pytest

from tickcast import figures as of
from tickcast.io.store import scored
from tickcast.io.store.history import Everywhere

STEPS, LEVELS = [1, 3], [0.1, 0.5, 0.9]
GIVEN = {"from": 0, "to": 10**12, "symbols": None, "model": ""}


def told(rows: list[list[Any]], symbols: list[str] | None = None) -> dict[int, dict[str, Any]]:
    said = scored.Said(LEVELS, log_return=True)
    with duckdb.connect() as db:
        db.execute("CREATE TABLE models AS SELECT 0 AS model, 'net' AS name, '1' AS version, 'd' AS digest, "
                   "[0.1, 0.5, 0.9]::DOUBLE[] AS levels")  # fmt: skip
        db.execute(
            "CREATE TABLE scores (id BIGINT, symbol VARCHAR, as_of_ns BIGINT, settled_ns BIGINT, model INT, "
            "anchor DOUBLE, scale DOUBLE, steps INT[], actual_from_anchor FLOAT[], point_from_anchor FLOAT[], "
            "loss FLOAT[], loss_naive FLOAT[], covered BOOLEAN[], in_sample BOOLEAN)"
        )
        db.execute("CREATE TABLE forecasts (id BIGINT, as_of_ns BIGINT, quantiles_from_anchor FLOAT[])")
        db.executemany(f"INSERT INTO scores VALUES ({', '.join('?' * 14)})", rows)
        db.executemany("INSERT INTO forecasts VALUES (?, ?, ?)", [[row[0], row[2], quantiles_of(row)] for row in rows])
        found = scored.rows_of(
            db, scored.KEPT.format(rows="scores", once="") + scored.sums_sql(said, Everywhere("forecasts", "")),
            GIVEN | {"symbols": symbols} | scored.given_of(said),
        )  # fmt: skip
    return {row["horizon"]: row for row in scored.figures_of(found, said, one_symbol=symbols is not None)}


def quantiles_of(row: list[Any]) -> list[float]:
    """Of 3 steps, of which the second is not scored."""
    first, last = row[9]
    return [point + far for point in (first, 9.0, last) for far in (-1.2, 0.0, 0.7)]


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
        bars = np.array([quantiles_of(each) for each in known], np.float32).astype(float)[:, 3 * (step - 1) : 3 * step]
        truth, wide = np.log((100 + actual) / 100) / 0.01, np.log(1 + bars / 100) / 0.01
        beyond = np.maximum(wide[:, 0] - truth, 0) / 0.1 + np.maximum(truth - wide[:, 2], 0) / 0.1
        share, up = (actual[:, None] <= bars).mean(axis=0), ((actual > 0) & (point != 0)).sum()
        missed, said = abs(truth - np.log(1 + point / 100) / 0.01), (actual * point != 0).sum()
        first = np.array([each[8][0] for each in kept if each[8][0] is not None], np.float32).astype(float)
        expected |= {
            "winkler": (wide[:, 2] - wide[:, 0] + beyond).mean(),
            "calibration": 1 - abs(np.array(LEVELS) - share).mean(),
            "mase": missed.mean() / abs(np.log1p(first / 100) / 0.01).mean(),
            "skill_mae": 1 - missed.sum() / abs(truth).sum(), "directional_base": max(up / said, 1 - up / said),
            "r2_returns": 1 - (error**2).sum() / ((actual - actual.mean()) ** 2).sum(),
        }  # fmt: skip
        if symbols is not None:
            expected["r2"] = expected["r2_returns"]  # of one anchor
        assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-9)
        assert (row["r2"] is None) == (symbols is None)
        assert row["coverage_low"] < row["coverage"] < row["coverage_high"]
        assert row["skill"] == pytest.approx(1 - row["pinball"] / row["pinball_naive"])


def test_too_few_blocks_give_counts_and_no_figure() -> None:
    row = told(rows_of(36))[3]
    assert (row["n"], row["blocks"], row["insufficient"]) == (36, 3, True)
    counts = {"model", "version", "horizon", "n", "void", "blocks", "insufficient"}
    assert {name for name, value in row.items() if value is not None} == counts
