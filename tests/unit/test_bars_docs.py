"""The examples of docs/bars.md are what the engine does, and the page names every reason to refuse a tick."""

import re
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from kit import Folding, settings
from tickcast.engine.core.events import Outcome
from tickcast.engine.core.schedule import is_closed, parse_calendar, target_times
from tickcast.errors import Reason
from tickcast.io.memory_bus import raw_batch
from tickcast.loop.build import build

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "bars.md").read_text(encoding="utf-8")
TICKS, BARS, SPLITS = re.findall(r"```csv\n(.*?)```", PAGE, re.DOTALL)
(CALENDAR,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
SECOND, MINUTE = 10**9, 60 * 10**9
BASE = 1_700_000_000 * SECOND


def table(text: str) -> list[list[str]]:
    return [line.split(",") for line in text.splitlines()[1:]]


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_the_example_of_time_bars_closes_the_bars_that_the_page_shows(chunk: int) -> None:
    rows = table(TICKS)
    ticks = [(s, BASE + round(float(t) * 1000) * 10**6, float(p), float(z)) for s, t, p, z, _ in rows]
    folding = Folding(settings(bars__every_ms=1000, bars__lateness_ms=500)).feed(ticks, chunk=chunk)
    assert folding.count(Reason.LATE) == [row[-1] for row in rows].count("late") == 1
    assert folding.count(Reason.ACCEPTED) == len(rows) - 1
    bars = folding.bars
    shown = [
        (folding.symbols.name(int(s)), (a - BASE) / SECOND, *numbers)
        for s, a, *numbers in zip(
            bars.symbol, bars.as_of, bars.open, bars.high, bars.low, bars.close, bars.volume, bars.mask, strict=True
        )
    ]
    assert shown == [(row[0], *map(float, row[1:])) for row in table(BARS)]


def test_the_page_names_every_reason_that_is_not_the_codecs() -> None:
    judged = [r for r in Reason if r == 0 or Reason.LATE <= r < Reason.FATAL]
    assert not [r.name for r in judged if f"`{r.name.lower()}`" not in PAGE]


def test_the_example_calendar_is_open_and_closed_when_the_page_says() -> None:
    closed = parse_calendar(CALENDAR, name="example", every_ns=MINUTE)
    thursday_16, monday_931 = utc("2026-07-02T16:00:00-04:00"), utc("2026-07-06T09:31:00-04:00")
    assert target_times(closed, np.array([thursday_16]), steps=1, every_ns=MINUTE).tolist() == [[monday_931]]
    assert is_closed(closed, utc("2026-07-03T12:00:00-04:00"))
    assert not is_closed(closed, utc("2026-07-02T15:59:00-04:00"))


def test_a_span_over_midnight_in_two_parts_is_open_throughout() -> None:
    text = 'zone = "UTC"\n[hours]\nmon = ["18:00-24:00"]\ntue = ["00:00-17:00"]\n'
    closed = parse_calendar(text, name="night", every_ns=MINUTE)
    hours = [is_closed(closed, utc(f"2026-07-{day}T{hour}:00:00+00:00")) for day, hour in
             (("06", "17"), ("06", "18"), ("06", "23"), ("07", "00"), ("07", "16"), ("07", "17"))]  # fmt: skip
    assert hours == [True, False, False, False, False, True]


@pytest.mark.slow
def test_the_example_split_is_no_jump_in_the_bars_and_forecasts_are_in_the_units_of_the_day(tmp_path: Path) -> None:
    outcome = run_over_the_split(tmp_path)
    (bars,), (forecasts,) = outcome.bars, outcome.forecasts
    assert bars.close.tolist() == [100.0, 100.0, 101.0]
    assert bars.volume.tolist() == [4.0, 4.0, 4.0]
    assert forecasts.anchor.tolist() == [50.0, 50.5]
    assert forecasts.quantiles[:, :, 2].tolist() == [[50.0], [50.5]]


def run_over_the_split(folder: Path) -> Outcome:
    """Tick bars of 100, 50 and 50.5, the split between the first two."""
    (folder / "splits.csv").write_text(SPLITS)
    split = utc("2026-06-10T13:30:00+00:00")
    s = settings(bars__kind="tick", forecast__horizon=1, bars__adjustments=f'"{folder / "splits.csv"}"')
    messages = [
        b'{"symbol":"ACME","ts":%d,"price":%r,"size":%d}' % (split + at * SECOND, price, size)
        for at, price, size in ((-1, 100.0, 4), (0, 50.0, 8), (1, 50.5, 8))
    ]
    return build(s).engine.turn([raw_batch("tickcast.ticks", 0, messages, first_offset=0, stamp_ns=-1)], 0)


def utc(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * SECOND
