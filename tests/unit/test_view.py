"""The terminal view: what it shows of a snapshot, and that it degrades to plain lines."""

import dataclasses
import re
from io import StringIO

import pytest
from rich.console import Console

from tickcast.records import Accuracy, Health, IntervalFigures
from tickcast.ui.view import LastForecast, LiveView, ProgressBar, ViewSnapshot, sparkline


def health(uptime_s: float, consumed: int) -> Health:
    return Health(
        instance="t", state="running", uptime_s=uptime_s, consumed=consumed, accepted=consumed, late=3, rejected=6,
        held=0, reasons={}, bars=1, forecasts=77, scored=66, symbols=50, cold=2, turns=9, batch_mean=43.2,
        loop_lag_ms={"p50": 0.12, "p99": 1.1}, latency_ms={"p50": 0.8, "p99": 3.0}, store_units_behind=1, unasked=0,
        loop_lag_life_ms={}, latency_life_ms={},
        rss_bytes=1, produced_ns=1,
    )  # fmt: skip


def accuracy(n: int = 100) -> Accuracy:
    nan = float("nan")
    return Accuracy(
        model="nhits", version="1", group="all", horizon=12, window="all", n=n, void=0, pending=0, mae=0.5,
        mae_naive=1.0, mae_pct=nan, rmse=nan, rmse_pct=nan, mape=nan, smape=nan, r2=nan, r2_returns=nan, pinball=nan,
        pinball_naive=nan, crps=nan, coverage={"0.05": 0.06, "0.5": 0.5, "0.95": 0.93}, width=nan, directional=nan,
        directional_base=nan, calibration=nan, skill=0.5 if n else nan, skill_mae=nan, as_of_ns=0,
        outside=0, blocks=n // 5, insufficient=0 < n < 50, mase=nan, directional_low=nan, directional_high=nan,
        class_accuracy=nan, class_accuracy_base=nan, log_loss=nan, calibration_error=nan,
        intervals={"0.9": IntervalFigures(coverage=0.87, coverage_low=0.8, coverage_high=0.9, width=1.0, winkler=1.5)},
    )  # fmt: skip


FORECAST = LastForecast("[SYM]", [1.0, 2.0, 3.0], anchor=3.0, point=3.5, low=2.5, high=4.5, model="nhits")


def test_a_terminal_gets_a_page_with_all_of_a_snapshot() -> None:
    out = StringIO()
    with LiveView(Console(file=out, force_terminal=True, width=120, height=50), title="demo") as view:
        view.show(ViewSnapshot(health(1.0, 1_000), [accuracy()], [FORECAST], lag=7, note="drift at 2 min"))
        view.show(ViewSnapshot(health(3.0, 41_000), [accuracy()], [FORECAST], lag=7, note="drift at 2 min"))
    text = out.getvalue()
    for part in (
        "demo",
        "20,000",
        "41,000",
        "+50.0%",
        "87.0%",
        "90%",
        "[SYM]",
        "▁▄█",
        "3.5",
        "p99 3.00",
        "drift at 2 min",
    ):
        assert part in text, part


@pytest.mark.parametrize(("terminal", "headless"), [(False, False), (True, True)])
def test_without_a_terminal_or_headless_it_prints_a_line_every_two_seconds(terminal: bool, headless: bool) -> None:
    out = StringIO()
    with LiveView(Console(file=out, force_terminal=terminal, width=60), headless=headless) as view:
        for at in (1.0, 1.5, 2.9, 3.0, 4.0, 5.0):
            view.show(ViewSnapshot(health(at, int(at * 500)), [accuracy()], [FORECAST], lag=4, served=accuracy()))
    lines = out.getvalue().splitlines()
    assert len(lines) == 3
    assert all("500 ticks/s" in line and "lag 4" in line and "skill +50.0%" in line for line in lines)


def test_figures_of_nothing_are_not_shown_as_numbers() -> None:
    out = StringIO()
    with LiveView(Console(file=out, width=200), headless=True) as view:
        view.show(ViewSnapshot(health(0.0, 0), [accuracy(n=0)], served=accuracy(n=0)))
    assert "nan" not in out.getvalue()
    assert "skill - " in out.getvalue()


def test_a_skill_that_rests_on_too_few_blocks_is_called_insufficient() -> None:
    out = StringIO()
    with LiveView(Console(file=out, width=200), headless=True) as view:
        view.show(ViewSnapshot(health(0.0, 0), served=accuracy(n=40)))
    assert "skill insufficient" in out.getvalue()
    assert "50.0%" not in out.getvalue()


def test_a_sparkline_shows_the_newest_values_between_its_extremes() -> None:
    assert sparkline([9.0, 0.0, 1.0, 2.0], width=3) == "▁▄█"
    assert sparkline([5.0, 5.0]) == "▁▁"
    assert sparkline([]) == ""
    assert sparkline([2.0, float("nan"), 1.0]) == "█ ▁"
    assert sparkline([float("nan")] * 2) == "  "


def test_a_story_is_told_once_where_lines_are_printed() -> None:
    out, story = StringIO(), list[str]()
    with LiveView(Console(file=out, width=80), headless=True) as view:
        for at in (0.1, 0.2, 0.3):
            story.append(f"it was {at}")
            view.show(ViewSnapshot(health(at, 0), story=story))
    view.tell([*story, "the end"])
    told = [line for line in out.getvalue().splitlines() if "|" not in line]
    assert told == ["it was 0.1", "it was 0.2", "it was 0.3", "the end"]


def test_a_page_shows_the_end_of_its_story_and_fits_a_terminal_of_30_lines() -> None:
    out, story = StringIO(), [f"line {n} of what was done" for n in range(50)]
    console = Console(file=out, force_terminal=True, width=100, height=30)
    rows, shown = [accuracy()] * 3, [FORECAST] * 3
    with LiveView(console, title="demo") as view:
        view.show(ViewSnapshot(health(1.0, 1), rows, shown, note="n", served=rows[0], skills=[0.1, -0.1], story=story,
                               waits_for="a fit is running"))  # fmt: skip
        page = out.getvalue()
    assert page.count("\n") < 30
    assert "line 49" in page
    assert "line 45" in page
    assert "line 0" not in page
    assert "-10.0% to +10.0%" in page
    assert "a fit is running" in page
    view.tell(story)
    assert "line 0" in out.getvalue()


def test_progress_without_a_terminal_prints_each_tenth_once() -> None:
    out = StringIO()
    with ProgressBar(1_000, "replay", Console(file=out, width=80)) as progress:
        for _ in range(40):
            progress.advance(25)
    lines = out.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[0] == "replay: 10 % (100 of 1,000)"
    assert lines[-1] == "replay: 100 % (1,000 of 1,000)"


def test_progress_of_unknown_length_stays_quiet_without_a_terminal() -> None:
    out = StringIO()
    with ProgressBar(None, "replay", Console(file=out)) as progress:
        progress.advance(10)
    assert out.getvalue() == ""


def test_progress_on_a_terminal_is_a_bar() -> None:
    out = StringIO()
    with ProgressBar(10, "replay", Console(file=out, force_terminal=True, width=80)) as progress:
        progress.advance(10)
    assert "10/10" in out.getvalue()


def test_a_picture_of_the_view_stands_alone() -> None:
    view = LiveView(Console(file=StringIO()), title="demo", headless=True)
    drawn = view.picture(ViewSnapshot(health(3.0, 41_000), [accuracy()], [FORECAST], lag=7))
    assert drawn.startswith("<svg")
    assert "41,000" in drawn
    assert "[SYM]" in drawn
    assert "url(" not in drawn.replace("url(#", "")
    assert set(re.findall(r"https?://[^\s\"<]+", drawn)) <= {"http://www.w3.org/2000/svg", "https://www.textualize.io"}


@pytest.mark.parametrize(("anchor", "colour"), [(2.0, "32"), (3.0, ""), (5.0, "31")])
def test_a_forecast_has_a_colour_where_its_interval_leaves_the_anchor_out(anchor: float, colour: str) -> None:
    page = drawn(ViewSnapshot(health(1.0, 500), [accuracy()], [dataclasses.replace(FORECAST, anchor=anchor)]))
    assert re.findall(r"(?:\x1b\[(\d+)m)? +3\.5\b", page)[-1] == colour


def test_skill_has_no_colour_for_it_has_no_interval_and_no_direction_reads_as_a_dash() -> None:
    page = drawn(ViewSnapshot(health(1.0, 500), [accuracy()]))
    row = [line for line in page.splitlines() if "nhits" in line][-1]
    assert re.search(r"100 +\+50\.0% +- +87\.0% +90% +-", row)


def drawn(now: ViewSnapshot) -> str:
    out = StringIO()
    with LiveView(Console(file=out, force_terminal=True, color_system="standard", width=160)) as view:
        view.show(now)
    return out.getvalue()
