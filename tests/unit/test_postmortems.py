"""Why forecasts were wrong: a planted cause is named with its share, and where there is none, none is."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from storekit import HORIZON, SECOND, T0, card, open_store, store_settings, value
from tickcast import causes, figures
from tickcast.io.store import postmortems
from tickcast.io.store.postmortems import Looked
from tickcast.regimes import CALM, WILD
from whykit import (
    LEVELS,
    MINUTE,
    QUANTILES,
    STEPS,
    Planted,
    losses,
    lost,
    nothing_said,
    path_of,
    quiet,
    since,
    tables_of,
)
from whykit import T0 as MARKET_T0

DAY = 86_400 * SECOND
ALL = Looked(0, 1 << 62, [], log_return=True)


def why(planted: Planted, **replaced: pa.Table) -> dict[str, Any]:
    return postmortems.why_of(tables_of(planted) | replaced, log_return=True)


def named(found: dict[str, Any]) -> set[str]:
    return set(causes.sentences(found["causes"]))


def row_of(found: dict[str, Any], cause: str, step: int) -> dict[str, Any]:
    (row,) = [row for row in found["causes"] if (row["cause"], row["step"]) == (cause, step)]
    return row


def test_a_planted_gap_is_named_with_its_share_and_so_is_nothing_else() -> None:
    moves, planted = quiet(1)
    near = since(planted.gap) < causes.NEAR_BARS
    moves[1:] *= np.where(near[:-1], 2.0, 1.0)
    planted = nothing_said(planted)._replace(close=path_of(moves), gap=planted.gap)
    found = why(planted)
    assert named(found) == {"after_gap"}
    for step in STEPS:
        loss, has = (each[: -max(STEPS)].ravel() for each in (losses(planted.close, step), near))
        worst = loss > np.quantile(loss, 0.9)
        row = row_of(found, "after_gap", step)
        assert (row["n"], row["having"], row["worst"]) == (len(has), has.sum(), worst.sum())
        assert row["share"] == pytest.approx(has[worst].mean())
        assert row["base"] == pytest.approx(has.mean())
        assert row["lift"] == pytest.approx(worst[has].mean() / worst.mean())
        assert 1 < row["lift_low"] < row["lift"] < row["lift_high"]
    row = row_of(found, "after_gap", 1)
    (sentence,) = causes.sentences(found["causes"]).values()
    assert f"{100 * row['share']:.0f} % of the worst tenth at step 1 lie within 5 bars after a gap" in sentence


@pytest.mark.parametrize(
    ("cause", "of"),
    [
        ("wild", lambda planted: planted.regime == WILD),
        ("calm", lambda planted: planted.regime == CALM),
        ("odd_inputs", lambda planted: planted.odd > causes.ODD_PCT),
        ("stand_in", lambda planted: planted.rung == 0),
    ],
)  # fmt: skip
def test_whatever_is_planted_is_named(cause: str, of: Any) -> None:
    moves, planted = quiet(2)
    moves[1:] *= np.where(of(planted)[:-1], 2.5, 1.0)
    found = why(planted._replace(close=path_of(moves)))
    assert named(found) - {"jump", "after_jump"} == {cause}  # now and then such a move is a jump


def test_a_jump_is_known_before_and_after_its_bar_and_the_move_over_a_gap_is_none() -> None:
    moves, planted = quiet(3)
    planted = nothing_said(planted)
    jumps = np.zeros(moves.shape, bool)
    jumps[300::40, 1] = True
    moves[jumps] = 12.0
    gap = jumps.copy()
    gap[:900] = False
    found = why(planted._replace(close=path_of(moves), gap=gap))
    known = jumps & ~gap
    for step in STEPS:
        ahead = np.stack([np.roll(known, -k, axis=0) for k in range(1, step + 1)]).any(axis=0)[: -max(STEPS)]
        assert row_of(found, "jump", step)["having"] == ahead.sum()
        near = (since(known) < causes.NEAR_BARS)[: -max(STEPS)]
        assert row_of(found, "after_jump", step)["having"] == near.sum()
    assert row_of(found, "jump", 1)["worst_having"] == row_of(found, "jump", 1)["having"]


def test_a_model_is_old_when_half_of_its_span_has_passed_again() -> None:
    _, planted = quiet(4)
    begin, end = MARKET_T0 - 1500 * MINUTE, MARKET_T0 - 500 * MINUTE
    found = why(nothing_said(planted)._replace(trained=(begin, end)))
    assert "old_model" not in {row["cause"] for row in found["causes"]}  # 500 of 1000 minutes before the first: all are
    row = row_of(why(nothing_said(planted)._replace(trained=(begin, end + 300 * MINUTE))), "old_model", 1)
    assert row["having"] == 5 * sum(t + 1 + 200 > 650 for t in range(1200 - max(STEPS)))


def test_a_market_without_a_cause_names_none_and_its_intervals_hold_what_chance_does() -> None:
    """Of all causes and steps together, however small their lift, in 19 of 20 markets."""
    said = beyond = 0
    for seed in range(20, 40):
        found = why(quiet(seed, bars=1000)[1])
        said += bool(named(found))
        beyond += any(not row["insufficient"] and row["lift_low"] > 1 for row in found["causes"])
    assert said == 0
    assert beyond <= 3  # of 20 with a chance of .05: .016 for more


def test_what_too_few_blocks_have_is_insufficient_and_not_said() -> None:
    moves, planted = quiet(5)
    gap = np.zeros_like(planted.gap)
    gap[100:600:60] = True  # a market-wide gap is one block, however many symbols have it: 9 are too few
    moves[1:] *= np.where(since(gap)[:-1] < causes.NEAR_BARS, 4.0, 1.0)
    found = why(nothing_said(planted)._replace(close=path_of(moves), gap=gap))
    row = row_of(found, "after_gap", 1)
    assert row["blocks"] == 9
    assert row["insufficient"]
    assert row["lift"] is None
    assert "after_gap" not in named(found)


def test_figures_of_a_regime_are_those_of_its_rows() -> None:
    _, planted = quiet(6)
    found = why(planted)["regimes"]
    assert [(row["step"], row["regime"]) for row in found] == [
        (step, regime) for step in STEPS for regime in ("calm", "normal", "wild")
    ]
    row = next(row for row in found if (row["step"], row["regime"]) == (4, "wild"))
    own = (planted.regime == WILD)[: -max(STEPS)].ravel()
    loss = losses(planted.close, 4)[: -max(STEPS)].ravel()[own]
    held = (np.arange(2 * len(own)).reshape(-1, 2) % 7 > 0)[own, 1]
    assert row["n"] == own.sum()
    assert row["pinball"] == pytest.approx(loss.mean())
    assert row["skill"] == pytest.approx(0.5)
    assert row["coverage"] == pytest.approx(held.mean())
    assert row["coverage_low"] < held.mean() < row["coverage_high"]
    width = 0.25 / 1e-3 / planted.close[: -max(STEPS)].ravel()[own]
    assert row["width"] == pytest.approx(width.mean())


def test_hostile_rows_are_left_out() -> None:
    _, planted = quiet(7)
    tables = tables_of(planted)
    sound, scores = postmortems.why_of(tables, log_return=True), tables["scores"].to_pylist()
    bad = [
        {"loss": [float("nan")] * 2}, {"loss": [float("inf")] * 2}, {"loss": [None, None]}, {"in_sample": True},
        {"loss": None}, {"steps": []},
    ]  # fmt: skip
    rows = [scores[at] | change for at, change in enumerate(bad)]
    others = {"scale": 0.0, "anchor": 0.0}, {"regime": None, "odd_pct": None}, {"scale": 1e308, "anchor": 1e308}
    rows += [scores[len(bad) + at] | change for at, change in enumerate(others)]
    table = pa.Table.from_pylist(rows + scores[len(rows) :], schema=tables["scores"].schema)
    bars = tables["bars"].to_pydict()
    bars["close"][:3] = [0.0, -1.0, float("nan")]
    found = postmortems.why_of(tables | {"scores": table, "bars": pa.table(bars)}, log_return=True)
    assert row_of(sound, "stand_in", 1)["n"] - row_of(found, "stand_in", 1)["n"] == len(bad)
    assert row_of(found, "wild", 1)["n"] == row_of(found, "stand_in", 1)["n"] - 1
    for row in found["causes"] + found["regimes"]:
        assert all(each is None or isinstance(each, str) or np.isfinite(each) for each in row.values())
    empty = {name: one.slice(0, 0) for name, one in tables.items()}
    assert postmortems.why_of(empty, log_return=True)["causes"] == []


def test_without_bars_gaps_and_jumps_are_not_known() -> None:
    _, planted = quiet(8)
    tables = tables_of(planted)
    found = postmortems.why_of(tables | {"bars": tables["bars"].slice(0, 0)}, log_return=True)
    assert {row["cause"] for row in found["causes"]} == {"wild", "calm", "odd_inputs", "stand_in"}


async def test_the_worst_are_kept_once_whatever_happens_and_so_many_a_day(tmp_path: Any) -> None:
    settings, one = store_settings(tmp_path), lost(1000)
    cards = [card(trained_from_ns=T0 - 9 * SECOND, trained_to_ns=T0 - SECOND)]
    store = open_store(settings, cards=cards)
    await store.write(one)
    assert await store.look_back(ALL, 1440) == 10  # five for each whole stretch of 300 s: two, between their halves
    assert await store.look_back(ALL, 1440) == 0
    await store.close()
    store = open_store(settings, cards=cards)
    assert await store.look_back(ALL, 1440) == 0
    assert await store.look_back(ALL, 2880) == 10
    _, rows = await store.query(
        "SELECT id, step, loss, causes, model_age_ns, as_of_ns, regime FROM postmortems ORDER BY as_of_ns"
    )
    (scores,) = one.scores
    at_id = {
        f"{int(high):016x}{int(low):016x}": at for at, (high, low) in enumerate(zip(scores.id_high, scores.id_low))
    }
    limits = np.array([np.nanquantile(scores.loss.astype(np.float32)[:, j], 0.9) for j in range(HORIZON)])
    excess = np.nan_to_num(scores.loss / limits)
    stretch = scores.as_of // (300 * SECOND)
    expected = {
        int(at)
        for whole in np.unique(stretch)[1:-1]
        for at in np.argsort(np.where(stretch == whole, excess.max(axis=1), -1))[-10:]
    }
    assert {at_id[row[0]] for row in rows} == expected
    for id_, step, loss, held, age_ns, as_of_ns, regime in rows:
        at = at_id[id_]
        assert step - 1 == excess[at].argmax()
        assert loss == pytest.approx(scores.loss[at, step - 1])
        assert age_ns == as_of_ns - T0 + SECOND
        assert {"stand_in", "old_model"} >= set(held) >= {"stand_in"}
        assert regime == 1
    await store.close()


@pytest.mark.parametrize("a_day", [1, 7, 289, 100_000])
async def test_a_day_has_no_more_than_it_may_and_some(tmp_path: Any, a_day: int) -> None:
    one = lost(3000)
    for batch in (*one.forecasts, *one.scores, *one.bars):
        batch.as_of[:] = T0 // DAY * DAY + 60 * SECOND * np.arange(1, 3001)
    (scores,), (asked,) = one.scores, one.forecasts
    scores.settled_ns[:] = scores.as_of + 180 * SECOND
    asked.target_ns[:] = asked.as_of[:, None] + 60 * SECOND * np.arange(1, 4)
    store = open_store(store_settings(tmp_path))
    await store.write(one)
    while await store.look_back(ALL, a_day):
        """Until there is nothing more to keep."""
    _, rows = await store.query(f"SELECT as_of_ns // {DAY}, count(*) FROM postmortems GROUP BY ALL")
    assert max(count for _, count in rows) <= a_day
    assert sum(count for _, count in rows) >= min(a_day, 100)
    await store.close()


async def test_what_left_for_the_archive_does_not_come_back(tmp_path: Any) -> None:
    store = open_store(store_settings(tmp_path, store__keep_days=1))
    await store.write(lost(1000))
    kept = await store.look_back(ALL, 1440)
    assert kept
    assert not (await store.roll_off(T0 + 3 * 86_400 * SECOND)).problem
    assert await value(store, "SELECT count(*) FROM postmortems") == 0
    archived = f"read_parquet('{tmp_path}/archive/postmortems/*.parquet')"
    assert await value(store, f"SELECT count(*) FROM {archived}") == kept
    assert await store.look_back(ALL, 1440) == 0
    await store.close()


def test_losses_of_the_kit_are_those_of_its_quantiles() -> None:
    close = np.array([[100.0], [100.0 * np.exp(2e-3)]])
    truth = figures.pinball(np.array(LEVELS), QUANTILES, np.array(2.0))
    assert losses(close, 1)[0, 0] == pytest.approx(float(truth))
