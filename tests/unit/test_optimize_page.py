"""The page of a search: what won in words, trials that are counted once, and no trial that hides the others."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tickcast.batch.by_hand.optimize import resume
from tickcast.errors import BadSettings
from tickcast.io.jobs.folder import Result
from tickcast.io.jobs.orders import FitOrder, TuneOrder
from tickcast.records import TrialRow
from tickcast.ui.pages import optimize_plots
from tickcast.ui.pages.optimize_page import counts, page, ranked, verdict
from tickcast.ui.pages.optimize_plots import Sought

SPACE: dict[str, Any] = {
    "rate": {"kind": "float", "low": 1e-4, "high": 1e-2, "log": True}, "deep": {"kind": "int", "low": 1, "high": 8},
    "<layers>": {"kind": "choice", "choices": [[], [16]]}, "held": {"kind": "choice", "choices": ["a"]},
}  # fmt: skip


def trial(number: int, value: float | None, state: str = "complete", why: str = "") -> TrialRow:
    params = {"rate": 1e-4 * (1 + number), "deep": 1 + number % 8, "<layers>": [16] * (number % 2), "held": "a"}
    return TrialRow(
        job="optimize", number=number, state=state, params=params, value=value, epochs=2, seconds=30.0, why=why,  # type: ignore[arg-type]
    )  # fmt: skip


ROWS = [
    trial(0, 0.5), trial(1, 0.4), trial(2, 0.7, "pruned"), trial(3, None, "failed", "bad_data: <script>"),
    trial(4, None, "failed", "interrupted"), trial(5, 0.45),
]  # fmt: skip


def order(**fields: Any) -> TuneOrder:
    return TuneOrder(fit=FitOrder(kind="nhits", name="<net>"), **fields)


def found(
    best: TrialRow, first: TrialRow | None, *, skill: tuple[float | None, ...] = (0.02, 0.01, 0.03), **more: Any
) -> Result:
    held = dict(zip(("skill", "skill_low", "skill_high"), skill, strict=True)) | {"windows": 900, "moments": 150}
    data = {"hash": "ab" * 16, "symbols": 2, "bars": 1000, "from_ns": 0, "to_ns": 10**12}
    content = {
        "best": best, "first": first, "space": SPACE, "importance": {}, "dataset": data, "past": {},
        "earlier": {}, **more,
    }  # fmt: skip
    return Result(ok=True, model="model", status="done", metrics=held, content=msgspec.to_builtins(content))


def test_the_page_says_first_what_won_and_what_it_is_worth() -> None:
    drawn = page(found(ROWS[1], ROWS[0]), ROWS, order())
    notes = re.findall(r'<p class="note">(.*?)</p>', drawn)
    assert notes == [
        "Of 5 trials, number 1 won: pinball 0.4 over the validation part, against 0.5 of the default parameters "
        "(lower is better).",
        "On the hold-out, which the search never saw: better than last value: skill +2.0%, +1.0% to +3.0% at 90%.",
    ]
    assert drawn.index(notes[1]) < drawn.index('class="card"')
    assert "3 complete, 1 given up early, 1 failed" in drawn
    assert "2 min 30 s" in drawn
    assert "<script" not in drawn
    assert "&lt;net&gt;, tuned" in drawn
    assert "&lt;layers&gt;" in drawn


def test_the_page_says_what_a_search_began_with_and_which_trial_that_was() -> None:
    rows = [*ROWS[:1], msgspec.structs.replace(ROWS[1], origin="0123456789abcdef")]
    more = {"past": {"0123456789abcdef": 0.123}, "earlier": {"fedcba9876543210": 1200}}
    drawn = page(found(rows[1], rows[0], **more), rows, order())
    assert "the best of 1 past job on data much like these: 0123456789ab at 0.12." in drawn
    assert "on other bars of this market: 1,200 of fedcba987654." in drawn
    assert "1 (from 0123456789ab)" in drawn
    assert "0 (default)" in drawn
    assert not [line for line in verdict(found(ROWS[1], ROWS[0]), order(), ROWS) if "past job" in line]


def test_every_parameter_that_was_varied_has_its_plot_at_both_widths_and_no_other() -> None:
    drawn = page(found(ROWS[1], ROWS[0]), ROWS, order())
    titles = re.findall(r'aria-label="([^"]+)"', drawn)
    wanted = ["Trials over time", "pinball by rate", "pinball by deep", "pinball by &lt;layers&gt;"]
    assert titles == [title for title in wanted for _ in range(2)]
    assert drawn.count('class="dot actual"') == 2 * 3  # the best, in each plot by parameter
    assert drawn.count('class="dot naive"') == 2 * 2  # without a value: on the axis


@pytest.mark.parametrize(
    ("best", "first", "says"),
    [
        (ROWS[0], ROWS[0], "Nothing better than the default parameters in 5 trials: pinball 0.5"),
        (ROWS[1], None, "The default parameters ended without a value"),
    ],
)
def test_it_is_said_plainly_when_tuning_gained_nothing_or_nobody_knows(
    best: TrialRow, first: TrialRow | None, says: str
) -> None:
    assert says in next(verdict(found(best, first), order(), ROWS))
    assert says in page(found(best, first), ROWS, order())


@pytest.mark.parametrize(
    ("skill", "says"),
    [
        ((0.02, -0.01, 0.05), "not told apart from last value"),
        ((-0.02, -0.05, -0.01), "worse than last value"),
        ((0.5, None, None), "too few moments (150)"),
    ],
)
def test_the_worth_on_the_hold_out_follows_from_its_interval(skill: tuple[float | None, ...], says: str) -> None:
    assert says in list(verdict(found(ROWS[1], ROWS[0], skill=skill), order(), ROWS))[1]


def test_of_some_metrics_most_is_best() -> None:
    drawn = page(found(ROWS[0], ROWS[1]), ROWS, order(metric="sharpe"))
    assert [row.number for row in ranked(ROWS, "sharpe")] == [0, 5, 1]
    assert [row.number for row in ranked(ROWS, "mae")] == [1, 5, 0]
    assert "(higher is better)" in drawn
    assert "sought: Sharpe ratio after costs, higher is better" in drawn


def test_a_trial_that_was_interrupted_counts_as_it_ended_at_last() -> None:
    assert counts([*ROWS, trial(6, 0.41)]) == "4 complete, 1 given up early, 1 failed"


def test_one_trial_that_went_astray_flattens_no_plot_and_is_told() -> None:
    astray, sought = [*ROWS, trial(6, 1e9), trial(7, float("inf"))], Sought("pinball", False)
    assert optimize_plots.far_off(ROWS, sought) == 0
    assert optimize_plots.far_off(astray, sought) == 1
    drawn = page(found(ROWS[1], ROWS[0]), astray, order())
    assert "1 far off, drawn at the edge" in drawn
    ticks = [float(text) for text in re.findall(r'text-anchor="end">([0-9.]+)<', drawn)]
    assert max(ticks) < 1


def test_one_trial_alone_has_a_page_too() -> None:
    drawn = page(found(ROWS[0], ROWS[0]), ROWS[:1], order())
    assert "in 1 trial:" in drawn
    assert "By parameter" not in drawn
    assert "Fewer than 20 trials" in drawn


def test_a_search_that_goes_on_writes_its_page_through_no_link(tmp_path: Path) -> None:
    mine, folder = tmp_path / "mine.html", tmp_path / "study"
    folder.mkdir()
    (folder / ".tickcast").touch()
    mine.write_text("mine")
    order().write(folder)
    (folder / "report.html").symlink_to(mine)
    with pytest.raises(BadSettings, match=r"report\.html is a link"):
        resume(folder)
    assert mine.read_text() == "mine"
