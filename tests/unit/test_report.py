"""Reports: figures from scores against a plain computation, in-sample rows left out, a page that stands alone."""

import json
import re
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from tickcast.ui.pages import report_plots
from tickcast.ui.pages.page import Column, milliseconds, table_of, verdict
from tickcast.ui.pages.report import print_summary, write_report

HORIZON, LEVELS, SCORED = 4, [0.1, 0.5, 0.9], [1, 2, 4]
START_NS, STEP_NS = 1_700_000_000 * 10**9, 10**9
SUMMARY = {  # what the page reads of `replay.summary`
    "title": "Replay of a&b", "data": "a&b",
    "models": [{"name": "m", "version": "<script>", "trained_from_ns": 0, "trained_to_ns": 0}],
    "consumed": 1250, "accepted": 1200, "late": 34, "rejected": 9, "held": 7, "reasons": {"late": 34, "bad_json": 9},
    "refused": "", "mixed": "", "to_ns": START_NS + 200 * STEP_NS, "wall_s": 2.2, "ticks_per_s": 568,
    "turn_ms": {"p50": 1.0, "p99": 2.0, "max": 1051.53}, "digest": "ab12",
}  # fmt: skip


def run(rows: int = 120, *, timed: bool = True, in_sample: int = 0) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Forecasts, scores and bars of two symbols: one dear, one cheap; the last target of each symbol is void."""
    draw = np.random.default_rng(5)
    forecasts, scores, bars = [], [], []
    for code, (symbol, price) in enumerate((("<DEAR>", 1000.0), ("CHEAP", 1.0))):
        path = price * np.exp(np.cumsum(draw.normal(0, 1e-3, rows + HORIZON)))
        for k in range(rows):
            as_of, row_id = START_NS + k * STEP_NS, f"{code:016x}{k:016x}"
            quantiles = [[path[k] * (1 + z * 1e-3 * step**0.5) for z in (-1, 0.2, 1)] for step in range(1, HORIZON + 1)]
            actual = [path[k + step] if k < rows - 1 else float("nan") for step in SCORED]
            target = [as_of + step * STEP_NS if timed else -1 for step in range(1, HORIZON + 1)]
            shared = {"id": row_id, "symbol": symbol, "as_of_ns": as_of, "model": "m", "anchor": path[k], "scale": 1e-3}
            forecasts.append(
                {**shared, "tie": 0, "rung": "model", "target_ns": target, "levels": LEVELS, "quantiles": quantiles,
                 "transform": "log_return"}
            )  # fmt: skip
            scores.append(
                {**shared, "horizons": SCORED, "actual": actual, "point": [quantiles[h - 1][1] for h in SCORED],
                 "loss": [0.25] * 3, "loss_naive": [0.5] * 3, "in_sample": k < in_sample,
                 "settled_ns": as_of + HORIZON * STEP_NS, "regime": k % 3, "odd_pct": None,
                 "covered": [quantiles[h - 1][0] <= a <= quantiles[h - 1][2] for h, a in zip(SCORED, actual)]}
            )  # fmt: skip
            bars.append({"symbol": symbol, "as_of_ns": as_of, "tie": 0, "close": path[k], "mask": 1, "gap": 0})
    return pl.DataFrame(forecasts), pl.DataFrame(scores), pl.DataFrame(bars)


def report(folder: Path, *, summary: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    forecasts, scores, bars = run(**options)
    return write_report(folder, summary=SUMMARY | (summary or {}), forecasts=forecasts, scores=scores, bars=bars)


def test_figures_equal_a_plain_computation(tmp_path: Path) -> None:
    found = report(tmp_path)["by_horizon"]
    _, scores, _ = run()
    assert [row["horizon"] for row in found] == SCORED
    for j, row in enumerate(found):
        actual, point, anchor = (
            np.array([value[j] if isinstance(value, list) else value for value in scores[name].to_list()])
            for name in ("actual", "point", "anchor")
        )
        known = np.isfinite(actual)
        error, naive = np.abs(actual - point)[known], np.abs(actual - anchor)[known]
        assert row["n"] == known.sum() == 238
        assert row["mae"] == pytest.approx(error.mean())
        assert row["mae_naive"] == pytest.approx(naive.mean())
        assert (row["pinball"], row["pinball_naive"], row["crps"], row["skill"]) == (0.25, 0.5, 0.5, 0.5)
        missed, naive_missed = (np.abs(np.log(actual / said))[known].mean() for said in (point, anchor))
        assert row["skill_mae"] == pytest.approx(1 - missed / naive_missed)
        assert row["directional"] == pytest.approx(((actual - anchor)[known] > 0).mean())
        covered = np.array([value[j] for value in scores["covered"].to_list()])[known]
        assert row["coverage"] == pytest.approx(covered.mean())


def test_void_targets_are_counted_and_never_scored(tmp_path: Path) -> None:
    found = report(tmp_path)
    assert found["void"] == 2 * len(SCORED)
    assert found["headline"]["n"] == 2 * 119 * len(SCORED)


def test_in_sample_scores_are_left_out_of_headlines_and_said_so(tmp_path: Path) -> None:
    clean, found = report(tmp_path / "clean"), report(tmp_path / "found", in_sample=50)
    assert found["headline"]["n"] == clean["headline"]["n"] - 2 * 50 * len(SCORED)
    assert found["in_sample"]["labels"] == 2 * 50 * len(SCORED)
    assert found["in_sample"]["to_ns"] == START_NS + 49 * STEP_NS
    page = (tmp_path / "found" / "report.html").read_text()
    assert "span that the model was trained on" in page
    assert 'class="span trained"' in page
    assert "trained on" not in (tmp_path / "clean" / "report.html").read_text()


def test_reliability_is_the_share_at_or_below_each_quantile(tmp_path: Path) -> None:
    found = {row["level"]: row["share"] for row in report(tmp_path)["reliability"]}
    forecasts, scores, _ = run()
    below = []
    for quantiles, actual in zip(forecasts["quantiles"].to_list(), scores["actual"].to_list()):
        below += [[truth <= q for q in quantiles[h - 1]] for h, truth in zip(SCORED, actual) if np.isfinite(truth)]
    assert [found[level] for level in LEVELS] == pytest.approx(np.mean(below, axis=0))


def test_report_json_holds_the_summary_and_no_invalid_numbers(tmp_path: Path) -> None:
    report(tmp_path, summary={"odd": float("nan")})

    def refuse(name: str) -> None:
        raise AssertionError(name)

    found = json.loads((tmp_path / "report.json").read_text(), parse_constant=refuse)
    assert (found["data"], found["consumed"], found["odd"]) == ("a&b", 1250, None)
    assert found["nominal_coverage"] == 0.8


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.plots: list[str] = []
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "path", "rect", "circle"):
            self.open.append(tag)
        if tag == "svg":
            self.plots.append(dict(attrs)["aria-label"] or "")
        self.outside += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        assert tag not in ("script", "link", "iframe")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Self-closed marks of a plot."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_stands_alone_is_well_formed_and_small(tmp_path: Path) -> None:
    report(tmp_path)
    text = (tmp_path / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert page.open == []
    assert page.outside == []
    assert "http" not in text
    assert page.plots[::2] == page.plots[1::2] == [  # once more for a phone
        "Error by horizon against the last value", "Coverage by level", "Error relative to the last value over time",
        "Forecasts of <DEAR>", "Forecasts of CHEAP",
    ]  # fmt: skip
    assert len(text) < 3_000_000


@pytest.mark.slow
def test_long_runs_stay_below_three_megabytes(tmp_path: Path) -> None:
    report(tmp_path, rows=6_000)
    assert (tmp_path / "report.html").stat().st_size < 300_000


def test_the_line_over_time_breaks_where_nothing_was_scored() -> None:
    rows = [{"as_of_ns": float(at), "ratio": 0.9} for at in (0, 10, 20, 50, 60)]
    drawn = report_plots.ratio_over_time(rows, {"labels": 5, "from_ns": 22, "to_ns": 48})
    (path,) = {line.count("M") for line in re.findall(r'class="line model" d="([^"]+)"', drawn)}
    assert path == 2
    whole = report_plots.ratio_over_time(rows[:3], {"labels": 0})
    assert [line.count("M") for line in re.findall(r'class="line model" d="([^"]+)"', whole)] == [1, 1]


def test_a_figure_is_coloured_only_where_its_interval_leaves_zero_out() -> None:
    column = Column("skill", "skill", "+.1%", signed=True)
    for low, high, colour in ((0.01, 0.2, "good"), (-0.2, -0.01, "bad"), (-0.1, 0.2, ""), (None, None, "")):
        row = {"skill": 0.1, "skill_low": low, "skill_high": high}
        assert verdict(column, row) == colour
        assert (f'class="{colour}"' in table_of([column], [row])) == bool(colour)
    assert verdict(column, {"skill": 0.1}) == ""


def test_page_and_terminal_begin_with_the_verdict_and_every_skill_has_its_interval(tmp_path: Path) -> None:
    found = report(tmp_path)
    head = found["headline"]
    assert 0 < head["skill_low"] < head["skill"] + 1e-9
    assert (head["moments"], head["confidence"]) == (119, 0.9)
    for rows in (found["by_horizon"], found["by_model"], found["by_symbol"]):
        assert all(row["skill_low"] > 0 for row in rows)
    text, out = (tmp_path / "report.html").read_text(), StringIO()
    (note,) = re.findall(r'<p class="note">(.*?)</p>', text)
    assert note.startswith("Better than last value: skill +")
    assert text.index(note) < text.index('class="card"')
    assert "By symbol" in text
    assert text.count('data-of="skill" class="good"') == len(SCORED) + 2
    print_summary(Console(file=out, width=80), found)
    assert out.getvalue().startswith(note)


def test_a_run_of_few_moments_claims_nothing(tmp_path: Path) -> None:
    found = report(tmp_path, rows=12)
    assert found["headline"]["skill_low"] is None
    text = (tmp_path / "report.html").read_text()
    assert "Too few moments (11) to say" in text
    assert 'class="good"' not in text
    assert 'class="bad"' not in text


def test_tick_bars_without_target_times_are_drawn_by_number(tmp_path: Path) -> None:
    report(tmp_path, timed=False)
    text = (tmp_path / "report.html").read_text()
    assert 'aria-label="Forecasts of CHEAP"' in text
    assert ">bar</text>" in text


def test_a_run_without_forecasts_says_so(tmp_path: Path) -> None:
    nothing = pl.DataFrame()
    found = write_report(tmp_path, summary=SUMMARY, forecasts=nothing, scores=nothing, bars=None)
    assert (found["forecasts"], found["headline"], found["by_horizon"]) == (0, {}, [])
    assert "No forecast was scored" in (tmp_path / "report.html").read_text()


def test_empty_frames_with_columns_are_no_forecasts_too(tmp_path: Path) -> None:
    forecasts, scores, bars = run(rows=2)
    found = write_report(
        tmp_path, summary=SUMMARY, forecasts=forecasts.clear(), scores=scores.clear(), bars=bars.clear()
    )
    assert found["forecasts"] == 0


def test_lazy_frames_give_the_same_report(tmp_path: Path) -> None:
    forecasts, scores, bars = run()
    for name, frame in (("forecasts", forecasts), ("scores", scores), ("bars", bars)):
        frame.write_parquet(tmp_path / f"{name}.parquet")
    lazy = {name: pl.scan_parquet(tmp_path / f"{name}.parquet") for name in ("forecasts", "scores", "bars")}
    write_report(tmp_path / "lazy", summary=SUMMARY, **lazy)
    report(tmp_path / "eager")
    for name in ("report.json", "report.html"):
        assert (tmp_path / "lazy" / name).read_text() == (tmp_path / "eager" / name).read_text()


def test_the_summary_fits_a_terminal(tmp_path: Path) -> None:
    out = StringIO()
    print_summary(Console(file=out, width=80), report(tmp_path, in_sample=10))
    text = out.getvalue()
    for part in (
        "consumed 1,250 · accepted 1,200 · late 34 · rejected 9 · held 7",
        "bad_json 9",
        "nominal coverage 80%",
        "training span",
        "bars ahead",
    ):
        assert part in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(("value", "text"), [(1731.2, "1,730 ms"), (0.04219, "0.0422 ms"), (12.0, "12 ms")])
def test_times_have_three_digits_and_no_power_of_ten(value: float, text: str) -> None:
    assert milliseconds(value) == text
