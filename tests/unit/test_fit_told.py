"""What `fit` says at its end: the worth on the hold-out, as far as its interval allows."""

from typing import Any

import pytest

from tickcast.io.jobs.folder import Result
from tickcast.ui.fit_command import told


def result(**held: Any) -> Result:
    figures = {"windows": 2000, "moments": 400, "skill": 0.02, "coverage": {"0.5": 0.51, "0.9": 0.884}, "fit": {}}
    return Result(ok=True, status="done", metrics=figures | held)


@pytest.mark.parametrize(
    ("held", "says"),
    [
        ({"skill_low": 0.01, "skill_high": 0.03}, "better than last value: skill +2.0%, +1.0% to +3.0% at 90%"),
        ({"skill_low": -0.01, "skill_high": 0.05}, "not told apart from last value: skill +2.0%, -1.0% to +5.0%"),
        ({"skill_low": -0.05, "skill_high": -0.01}, "worse than last value"),
        ({"skill_low": None, "skill_high": None}, "too few moments (400)"),
        ({}, "too few moments (400)"),
    ],
)
def test_the_skill_stands_with_its_interval_in_words(held: dict[str, Any], says: str) -> None:
    first, second, *more = told(result(**held))
    assert first.startswith("done; on the hold-out, 2,000 windows: ")
    assert says in first
    assert second == "  88.4% of truths lie in the 90% band"
    assert not more


def test_few_windows_and_advice_follow() -> None:
    advice = [{"code": "few_epochs", "text": "Raise epochs."}]
    lines = list(told(result(windows=60, fit={"advice": advice})))
    assert [line.split(":")[0] for line in lines[2:]] == ["  few windows", "  few epochs"]
