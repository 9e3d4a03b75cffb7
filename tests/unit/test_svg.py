"""Plots: valid SVG, nothing outside the frame, no spike lost, text escaped."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from tickcast.ui.pages.svg import (
    Plot,
    decimate,
    factor_axis,
    fitted,
    legend,
    logarithms,
    named_axis,
    number_axis,
    ticks_for,
    time_axis,
)

DAY_NS = 86_400 * 10**9


def plot(width: int = 640) -> Plot:
    return Plot(
        number_axis(np.array([0.0, 10.0]), "x"), number_axis(np.array([-1.0, 1.0]), "y"), title="a & b", width=width
    )


def test_a_plot_is_well_formed_and_escapes_its_text() -> None:
    drawn = Plot(named_axis(["<1>", "&"], "a<b"), number_axis(np.ones(1), "c&d"), title='"quoted" <title>').svg()
    tree = ElementTree.fromstring(drawn)
    texts = [element.text for element in tree.iter("text")]
    assert tree.get("aria-label") == '"quoted" <title>'
    assert {"<1>", "&", "a<b", "c&d"} <= set(texts)


def test_a_line_breaks_where_a_value_is_missing() -> None:
    drawn = plot()
    drawn.line(np.arange(5.0), np.array([0.0, 0.5, np.nan, 0.5, 1.0]), "model")
    path = re.search(r'class="line model" d="([^"]+)"', drawn.svg())
    assert path is not None
    assert (path[1].count("M"), path[1].count("L"), "nan" in path[1]) == (2, 2, False)


def test_higher_values_lie_higher_and_stay_within_the_picture() -> None:
    drawn = plot()
    drawn.dots(np.array([0.0, 10.0]), np.array([-1.0, 1.0]), "model")
    places = re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', drawn.svg())
    (x0, y0), (x1, y1) = ((float(x), float(y)) for x, y in places)
    assert 0 < x0 < x1 < 640
    assert 280 > y0 > y1 > 0


def test_bands_with_missing_values_are_left_out() -> None:
    drawn = plot()
    drawn.band(np.arange(2.0), np.array([0.0, np.nan]), np.ones(2), "outer")
    assert "band" not in drawn.svg()
    drawn.band(np.arange(2.0), np.zeros(2), np.ones(2), "outer")
    assert 'class="band outer"' in drawn.svg()


def test_columns_grow_from_zero_and_skip_what_is_missing() -> None:
    drawn = Plot(named_axis(["a", "b", "c"], "x"), number_axis(np.array([4.0]), "y", include=[0.0]), title="t")
    drawn.columns(np.arange(3.0), np.array([2.0, np.nan, 4.0]), "model")
    heights = [float(height) for height in re.findall(r'class="column model".*?height="([\d.]+)"', drawn.svg())]
    assert len(heights) == 2
    assert heights[1] == pytest.approx(2 * heights[0], abs=0.2)


def test_a_span_is_clipped_to_the_axis() -> None:
    drawn = plot()
    drawn.span(-100.0, 100.0, "trained")
    width = re.search(r'class="span trained".*?width="([\d.]+)"', drawn.svg())
    assert width is not None
    assert 0 < float(width[1]) < 640


@pytest.mark.parametrize("points", [10, 100, 800])
def test_decimation_keeps_the_spikes(points: int) -> None:
    y = np.sin(np.arange(100_000) / 500)
    y[31_234], y[77_777] = 50.0, -50.0
    x, kept = decimate(np.arange(100_000.0), y, points)
    assert len(kept) <= points
    assert (kept.max(), kept.min()) == (50.0, -50.0)
    assert (np.diff(x) > 0).all()


def test_decimation_leaves_short_lines_alone() -> None:
    x = np.arange(5.0)
    assert decimate(x, x, 5)[1] is x


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, "0.50"),
        (61_800.0, 61_900.0, "61,850"),
        (-2e-6, 3e-6, "2e-06"),
        (5.0, 5.0, "5.0"),
        (0.0, 0.0, "0.005"),
    ],
)
def test_number_ticks_are_round(low: float, high: float, expected: str) -> None:
    axis = number_axis(np.array([low, high]), "x")
    assert axis.low < low <= high < axis.high
    assert expected in [text for _, text in axis.ticks]


def test_an_axis_of_nothing_is_still_an_axis() -> None:
    axis = number_axis(np.array([np.nan]), "x")
    assert axis.low < axis.high


@pytest.mark.parametrize("seconds", [2e-4, 1, 60, 3_600, 86_400, 5 * 86_400, 400 * 86_400, 9_000 * 86_400])
def test_time_ticks_are_few_and_within_the_axis(seconds: float) -> None:
    low = 1_700_000_000 * 10**9
    axis = time_axis(low, low + seconds * 1e9)
    assert len(axis.ticks) <= 8
    assert all(axis.low <= at <= axis.high for at, _ in axis.ticks)


def test_time_ticks_name_the_day_where_it_changes() -> None:
    noon = 19_000 * DAY_NS + DAY_NS // 2
    texts = [text for _, text in time_axis(noon, noon + DAY_NS).ticks]
    assert sum("-" in text for text in texts) == 2


@pytest.mark.parametrize("width", [340, 640])
def test_no_text_below_the_axis_is_cut_at_the_edge(width: int) -> None:
    """A letter of the style sheet's 11 px is 6.2 wide on average; the last tick lies on the axis' very end."""
    axis = time_axis(0.0, 3 * DAY_NS, most=ticks_for(width))
    drawn = Plot(axis, number_axis(np.ones(1), "y"), title="t", width=width).svg()
    ticks = re.findall(r'<text x="([\d.]+)" y="257" text-anchor="middle">([^<]+)<', drawn)
    assert "01-04" in ticks[-1][1]
    assert all(float(x) - 3.1 * len(text) >= 0 and float(x) + 3.1 * len(text) <= width for x, text in ticks)


def test_a_legend_escapes_its_entries() -> None:
    assert "&lt;b&gt;" in legend([("model", "<b>")])


def test_equal_factors_are_equally_far_apart_whatever_the_spread() -> None:
    for values in ([1.0, 1.02], [0.3, 1.0, 40.0], [1e-6, 1.0, 1e5]):
        axis = factor_axis(logarithms(np.array(values)), "equity")
        assert 2 < len(axis.ticks) <= 14
        assert all(axis.low <= at <= axis.high for at, _ in axis.ticks)
        assert [float(text.replace(",", "")) for _, text in axis.ticks] == pytest.approx(
            [10**at for at, _ in axis.ticks]
        )
    assert np.isnan(logarithms(np.array([0.0, -1.0]))).all()


def test_a_phone_gets_the_plot_once_more_narrower_and_with_fewer_dates() -> None:
    day = 86_400e9

    def draw(width: int) -> Plot:
        axis = time_axis(0.0, 900 * day, most=ticks_for(width))
        return Plot(axis, number_axis(np.ones(1), "y"), title="t", width=width)

    broad, slim = re.findall(r'viewBox="0 0 (\d+)', drawn := fitted(draw, 1300))
    assert (int(broad), int(slim)) == (1300, 340)
    first, second = drawn.split('class="slim"')
    dates = r">\d{4}-\d\d-\d\d<"
    assert len(re.findall(dates, first)) >= 4
    assert 2 <= len(re.findall(dates, second)) <= 3
