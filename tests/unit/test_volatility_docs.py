"""docs/volatility.md: its example runs and prints what the page says, and its constants are those of the code."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tickcast.scales import HAR_BARS, HAR_SHARES, SCALES

PAGE = (Path(__file__).parents[2] / "docs" / "volatility.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_worked_example_runs_and_prints_what_the_page_says(run_example: Callable[[str], list[str]]) -> None:
    wider, where_to = run_example(PAGE)
    assert len(found := [float(number) for number in re.findall(r"\d+\.\d*", wider)]) == 4
    assert all(times > 1 for times in found)
    assert where_to.endswith("False")


def test_the_page_names_every_scale_and_what_it_is() -> None:
    (table,) = re.findall(r"\| `window.scale` \|(.*?)\n\n", PAGE, re.DOTALL)
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == [*SCALES]
    bars, shares = [str(bar) for bar in HAR_BARS], [f"{share:g}" for share in HAR_SHARES]
    (said,) = re.findall(r"^\| `har` \| (.*) \|$", table, re.MULTILINE)
    assert [number for number in re.findall(r"[\d.]+", said) if number in (*bars, *shares)] == [
        bars[0], shares[0], bars[1], shares[1], shares[2],
    ]  # fmt: skip
