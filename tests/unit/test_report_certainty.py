"""Intervals of the skills of a replay: as wide as moments allow, not as labels do, and none from few moments."""

from typing import Any

import numpy as np
import polars as pl
import pytest

from tickcast.batch.judge import report_certainty
from tickcast.batch.judge.report_certainty import ALL, moments_of, with_intervals

STEP_NS = 60 * 10**9


def labels(moments: int, *, symbols: int = 2, edge: float = 0.0, shared: float = 0.0, seed: int = 1) -> pl.DataFrame:
    """Losses of last value around 1; the model's are smaller by `edge`, and by luck, of which a part is shared."""
    draw = np.random.default_rng(seed)
    common = draw.normal(0, 1, moments)
    frames = []
    for code in range(symbols):
        luck = np.sqrt(shared) * common + np.sqrt(1 - shared) * draw.normal(0, 1, moments)
        naive = 1 + draw.random(moments)
        own = naive * (1 - edge) - 0.2 * luck
        frames.append(
            pl.DataFrame({
                "symbol": f"S{code}", "as_of_ns": np.arange(moments) * STEP_NS, "horizon": 1 + np.arange(moments) % 2,
                "scaled": np.arange(moments) % 7 > 0, "loss": own, "loss_naive": naive,
                "missed": naive, "missed_naive": own,
            })
        )  # fmt: skip
    return pl.concat(frames)


def found(rows: pl.DataFrame) -> dict[str, Any]:
    return with_intervals({ALL: [{}]}, rows)[ALL][0]


def test_a_real_edge_is_told_from_none_and_from_the_contrary() -> None:
    better = found(labels(2000, edge=0.1))
    assert better["skill_low"] < 0.1 < better["skill_high"]
    assert better["skill_low"] > 0.08
    assert better["skill_mae_high"] < 0  # its columns are the other way round
    nothing = found(labels(2000))
    assert nothing["skill_low"] < 0 < nothing["skill_high"]
    assert moments_of(labels(2000)) == 2000


@pytest.mark.slow
def test_of_runs_without_an_edge_one_in_ten_has_zero_outside() -> None:
    outside = 0
    for seed in range(50):
        ends = found(labels(150, seed=seed, shared=0.5))
        outside += not ends["skill_low"] < 0 < ends["skill_high"]
    assert 1 <= outside <= 11


def test_symbols_that_move_together_are_no_more_sure_than_one() -> None:
    def width(rows: pl.DataFrame) -> float:
        ends = found(rows)
        return float(ends["skill_high"] - ends["skill_low"])

    one, alike, apart = (
        width(labels(1500, symbols=count, shared=shared)) for count, shared in ((1, 0.0), (20, 1.0), (20, 0.0))
    )
    assert alike == pytest.approx(one, rel=0.25)
    assert apart < one / 3


def test_each_row_has_its_own_interval_and_few_moments_have_none() -> None:
    rows = labels(400, edge=0.2)
    rare = labels(400).head(30).with_columns(horizon=pl.lit(8, pl.Int64))  # in 30 moments, of which 26 have a unit
    tables = {ALL: [{}], "horizon": [{"horizon": h} for h in (1, 2, 8)], "symbol": [{"symbol": "S1"}, {"symbol": "S0"}]}
    both = with_intervals(tables, pl.concat([rows, rare]))
    one, two, eight = both["horizon"]
    for symbol in both["symbol"]:
        alone = rows.filter(symbol=symbol["symbol"])
        assert symbol["skill_low"] < 1 - alone["loss"].sum() / alone["loss_naive"].sum() < symbol["skill_high"]
    assert one["skill_low"] > 0.1
    assert two["skill_low"] > 0.1
    assert eight["skill_low"] < 0 < eight["skill_high"]
    few = with_intervals(tables, pl.concat([rows, rare.head(20)]))["horizon"][2]
    assert (few["skill_low"], few["skill_high"]) == (None, None)
    assert found(labels(19))["skill_low"] is None


def test_a_long_run_is_drawn_in_stretches_and_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = labels(4000, edge=0.1)
    whole = found(rows)
    monkeypatch.setattr(report_certainty, "MOST_MOMENTS", 500)
    cut = found(rows)
    for name in ("skill_low", "skill_high"):
        assert cut[name] == pytest.approx(whole[name], abs=0.005)


def test_what_nothing_is_known_of_has_no_interval() -> None:
    many = [{"symbol": f"S{number}"} for number in range(report_certainty.MOST_ROWS + 1)]
    told = with_intervals({ALL: [{}], "model": [], "symbol": many}, labels(100))
    assert told["model"] == []
    assert {row["skill_low"] for row in told["symbol"]} == {None}
    assert found(labels(100).with_columns(scaled=pl.lit(False)))["skill_low"] is None
