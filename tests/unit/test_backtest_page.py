"""What a backtest says first: whether it earns, by the interval of its Sharpe ratio alone."""

from typing import Any

import pytest

from tickcast.ui.pages.backtest_page import CONTESTANTS, contestants, verdict_of


def found(low: float | None, high: float | None, **more: Any) -> dict[str, Any]:
    own = {"trades": 40, "return": 0.12, "sharpe": 0.8, "sharpe_low": low, "sharpe_high": high}
    return {"strategy": own | more, "moments": 900, "confidence": 0.9}


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [
        (0.2, 1.4, "It earns: +12.00% after costs, Sharpe ratio +0.80, +0.20 to +1.40 at 90%."),
        (-2.0, -0.1, "It loses: "),
        (-0.3, 1.9, "Not told apart from earning nothing: "),
        (None, None, "Too few moments (900) to say whether it earns: "),
        (float("nan"), float("nan"), "Too few moments (900)"),
    ],
)
def test_the_verdict_follows_from_the_interval(low: float | None, high: float | None, says: str) -> None:
    assert verdict_of(found(low, high)).startswith(says)


def test_who_trades_nothing_and_who_has_no_bar_have_no_verdict() -> None:
    assert verdict_of(found(0.2, 0.3, trades=0)).startswith("Nothing was traded")
    assert verdict_of(found(0.2, 0.3) | {"moments": 0}).startswith("No bar came after a forecast")


@pytest.mark.parametrize(("days", "per_year"), [(29, None), (31, -3.5)])
def test_what_minutes_returned_is_not_told_per_year(days: int, per_year: float | None) -> None:
    runs = {run: {"return": -0.01, "return_per_year": -3.5} for run, _ in CONTESTANTS}
    rows = contestants({**runs, "from_ns": 0, "to_ns": days * 86_400 * 10**9})
    assert [row["return_per_year"] for row in rows] == [per_year] * len(CONTESTANTS)
    assert {row["return"] for row in rows} == {-0.01}
