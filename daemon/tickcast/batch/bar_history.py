"""Data files -> the bars that they close, in memory or in a job's folder, as training reads them. It judges nothing."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from tickcast.batch.frames import bar_table
from tickcast.batch.train.history import BarHistory, read_history
from tickcast.columns import I64
from tickcast.errors import BadData
from tickcast.io.jobs.folder import BARS, SOURCE, FileSource
from tickcast.loop.closed_bars import closed_bars
from tickcast.remedies import say_refused
from tickcast.settings import Settings

Span = tuple[int | None, int | None]  # from, and to which; an end that is None is open


class ClosedHistory(NamedTuple):
    """Bars by symbol, in the order of closing, and what became of the ticks, by Reason."""

    table: pa.Table
    counts: I64


def read_closed(
    settings: Settings,
    data: Path,
    *,
    symbols: list[str] | None = None,
    any_spacing: bool = False,
    warn: Callable[[str], object] = lambda why: None,
) -> ClosedHistory:
    """Every bar that a file or folder closes; see history.closed_bars."""
    tables: list[pa.Table] = []
    for serving, outcome in closed_bars(settings, data, symbols=symbols, any_spacing=any_spacing, warn=warn):
        tables += [bar_table(bars, serving) for bars in outcome.bars]
        counts = serving.engine.builder.counts()
    table = pa.concat_tables(tables).sort_by([(name, "ascending") for name in ("symbol", "as_of_ns", "tie")])
    return ClosedHistory(table, counts)


def within(table: pa.Table, span_ns: Span, data: Path) -> pa.Table:
    """Those that end at or after the first moment of the span and before the second."""
    start, end = span_ns
    as_of = table["as_of_ns"]
    if start is not None:
        table = table.filter(pa.compute.greater_equal(as_of, start))
    if end is not None:
        table = table.filter(pa.compute.less(table["as_of_ns"], end))
    if not len(table):
        raise BadData(f"{data} closes no bar within that span", remedy="widen `from` and `to`")
    return table


def write_bars(
    settings: Settings, data: Path, path: Path, *, symbols: list[str] | None, span_ns: Span = (None, None),
    warn: Callable[[str], object] = say_refused,
) -> None:  # fmt: skip
    """Every bar of the span that the data close, sorted by symbol and then in the order of closing."""
    closed = read_closed(settings, data, symbols=symbols, warn=warn)
    pq.write_table(within(closed.table, span_ns, data), path)


def gather(folder: Path) -> None:
    """In the child process: the bars of the file that a job was given."""
    source = msgspec.json.decode((folder / SOURCE).read_bytes(), type=FileSource)
    settings, span = Settings(**source.settings), (source.from_ns, source.to_ns)
    write_bars(settings, Path(source.path), folder / BARS, symbols=source.symbols or None, span_ns=span)


def history_of(table: pa.Table, *, on_gap: str) -> BarHistory:
    """The bars in the shape that features read, by the way that training takes."""
    with tempfile.TemporaryDirectory() as folder:
        pq.write_table(table, Path(folder) / BARS)
        return read_history(Path(folder), on_gap=on_gap)
