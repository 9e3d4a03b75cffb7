"""Two models that share out the symbols of a route are compared by the skill of each symbol, and honestly so."""

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from tickcast import figures as of
from tickcast.io.store.shares import SharedRoute, share_figures

REST, DRAWN = [f"R{i}" for i in range(8)], [f"D{i}" for i in range(6)]
SHARE = SharedRoute("40%:default", ("a" * 64, "b" * 64), (REST, DRAWN))
SECOND, BLOCK = 10**9, 2 * 3 * 10**9  # of the longest step


def told(rows: list[list[Any]], tmp_path: Path, *, from_ns: int = 0) -> dict[str, Any]:
    with duckdb.connect() as db:
        db.execute("CREATE TABLE models (model INT, name VARCHAR, version VARCHAR, digest VARCHAR, levels DOUBLE[])")
        db.executemany("INSERT INTO models VALUES (?, 'net', '1', ?, [0.5])", [*enumerate(SHARE.models)])
        db.execute(
            "CREATE TABLE scores (symbol VARCHAR, as_of_ns BIGINT, settled_ns BIGINT, model INT, steps INT[], "
            "actual_from_anchor FLOAT[], loss FLOAT[], loss_naive FLOAT[], covered BOOLEAN[], in_sample BOOLEAN)"
        )
        db.execute("CREATE TABLE archive_files (table_name VARCHAR, slice VARCHAR, part INT, file VARCHAR)")
        db.executemany(f"INSERT INTO scores VALUES ({', '.join('?' * 10)})", rows)
        return share_figures(db, SHARE, span_ns=(from_ns, 10**18), archive=tmp_path, timeout_s=9.0)


def scores(seed: int = 1, bars: int = 90) -> list[list[Any]]:
    """Each symbol has a wildness of its own; who is drawn loses a tenth less. Before bar 30 only one of the two is
    there; the newest symbol of either has but a few bars."""
    draw, rows = np.random.default_rng(seed), []
    for side, names in enumerate(SHARE.symbols):
        for number, symbol in enumerate(names):
            wild = 10.0 ** draw.uniform(-2, 2)
            for bar in range(0 if side == 0 else 30, bars):
                if number == len(names) - 1 and bar < bars - 12:
                    continue
                naive = wild * draw.uniform(0.5, 1.5, 2)
                loss = naive * (1.0 - 0.1 * side + draw.normal(0, 0.01, 2))
                at = bar * SECOND
                rows.append([symbol, at, at + 3 * SECOND, side, [1, 3], [0.1, 0.2], loss.tolist(), naive.tolist(),
                             [bar % 2 == 0, True], False])  # fmt: skip
    stranger = [[*row[:3], 1 - row[3], *row[4:]] for row in rows if row[0] == "R0"]  # what the other model said of it
    return [*rows, *stranger, [*rows[-1][:-1], True]]


def by_hand(rows: list[list[Any]], symbol: str) -> float:
    own = [
        row
        for row in rows
        if row[0] == symbol and row[3] == (symbol[0] == "D") and row[1] >= 30 * SECOND and not row[-1]
    ]
    lost, naive = (np.array([row[column] for row in own], np.float32).astype(float).sum() for column in (6, 7))
    return float(1 - lost / naive)


def test_figures_are_those_of_the_symbols_that_both_had_time_for(tmp_path: Path) -> None:
    rows = scores()
    found = told(rows, tmp_path)
    assert (found["route"], found["blocks"], found["insufficient"]) == ("40%:default", 10, False)
    skills = [np.array([by_hand(rows, symbol) for symbol in names[:-1]]) for names in SHARE.symbols]
    for side, name in enumerate(("rest", "drawn")):
        assert found[name]["model"] == SHARE.models[side]
        assert (found[name]["symbols"], found[name]["judged"]) == (len(SHARE.symbols[side]), len(skills[side]))
        assert found[name]["n"] == 2 * 60 * len(skills[side])
        assert found[name]["skill"] == pytest.approx(skills[side].mean(), rel=1e-9)
        assert found[name]["coverage"] == pytest.approx(0.75)
    assert found["more_skill"] == pytest.approx(skills[1].mean() - skills[0].mean(), rel=1e-9)
    assert 0.09 < found["low"] < found["more_skill"] < found["high"] < 0.11


@pytest.mark.parametrize(("kept", "from_bar"), [("R", 0), ("D", 0), ("RD", 60), ("", 0)])
def test_of_too_little_it_says_no_difference(kept: str, from_bar: int, tmp_path: Path) -> None:
    rows = [row for row in scores() if row[0][0] in kept]
    found = told(rows or [[*scores()[0][:-1], True]], tmp_path, from_ns=from_bar * SECOND)
    assert found["insufficient"]
    assert [found[name] for name in ("more_skill", "low", "high")] == [None] * 3
    assert found["rest"]["skill"] is None


def test_of_equal_models_the_interval_leaves_zero_out_no_oftener_than_it_says() -> None:
    """Symbols differ, and move together: what is drawn by chance is who is where."""
    draw, wrong, runs = np.random.default_rng(3), 0, 800
    for _ in range(runs):
        market, load = draw.normal(0, 0.05), draw.uniform(0, 2, 30)
        skills = draw.normal(0.01, 0.02, 30) + market * load + draw.standard_t(4, 30) * 0.01
        drawn = draw.random(30) < 0.3
        _, low, high = of.apart(skills[drawn], skills[~drawn])
        wrong += low > 0 or high < 0
    assert wrong / runs < 0.12
    assert np.isnan(of.apart(np.ones(4), np.ones(90))).all()


def test_the_interval_is_welchs() -> None:
    one, other = np.array([1.0, 2, 3, 4, 9, 7, 7, 2, 1, 5, 6, 8]), np.arange(11.0) / 2
    more, low, high = of.apart(one, other)
    variances = one.var(ddof=1) / 12, other.var(ddof=1) / 11
    degrees = sum(variances) ** 2 / (variances[0] ** 2 / 11 + variances[1] ** 2 / 10)
    assert more == pytest.approx(one.mean() - other.mean())
    assert (high - low) / 2 == pytest.approx(sum(variances) ** 0.5 * of.students(degrees))
    assert of.students(17.0) == pytest.approx(1.7396, abs=1e-3)  # of a table
    assert of.apart(np.ones(9), np.ones(9)) == (0.0, 0.0, 0.0)
