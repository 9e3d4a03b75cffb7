"""The page of an evaluation: the verdict in words, and colours only where the interval allows them."""

import re
from typing import Any

import pytest

from tickcast.ui.pages.evaluate_page import page, verdict_of


def figure(value: float | None, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high}


def row(horizon: int | None, skill: dict[str, Any], group: str = "all") -> dict[str, Any]:
    return {
        "group": group, "horizon": horizon, "n": 100, "skill": skill, "skill_mae": figure(0.001, -0.01, 0.01),
        "mae": figure(0.01), "mae_naive": figure(0.011), "coverage": figure(0.9), "directional": figure(None),
        "test": {"p_value": 0.25},
    }  # fmt: skip


def found(skill: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "judged": {"name": "<net>", "version": "1", "kind": "nhits", "digest": "ab"}, "windows": 130, "moments": 65,
        "in_sample": {"windows": 10}, "block": 4, "from_ns": 0, "to_ns": 10**9, "confidence": 0.9, "seed": 3,
        "dataset_hash": "f" * 32, "symbols": 2, "unit": "log_return", "headline": row(None, skill),
        "by_horizon": [row(1, skill), row(4, figure(0.0))], "by_group": [row(1, skill, "majors")], **more,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("low", "high", "says", "colour"),
    [(0.01, 0.05, "Better than", "good"), (-0.05, -0.01, "Worse than", "bad"), (-0.01, 0.04, "Not told apart", "")],
)
def test_the_verdict_follows_from_the_interval_alone(low: float, high: float, says: str, colour: str) -> None:
    drawn = page(found(figure(0.02, low, high)))
    assert says in drawn
    assert re.findall(r'data-of="skill" class="(\w+)"', drawn) == [colour] * 3 * bool(colour)
    assert "10 windows touch the training span" in drawn
    assert "&lt;net&gt;" in drawn
    assert drawn.count("<svg") == 2


def test_too_few_moments_and_no_window_outside_say_so_and_claim_nothing() -> None:
    assert verdict_of(found(figure(0.5))).startswith("Too few moments (65)")
    nothing = found(figure(None), headline={}, by_horizon=[], by_group=[])
    assert verdict_of(nothing).startswith("No window lies outside")
    assert "<svg" not in page(nothing)
