"""Data files -> the bars that they close, in memory, as training reads them. It judges nothing."""

import tempfile
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from tickcast.app.history import closed_bars
from tickcast.columns import I64
from tickcast.job_folder import BARS
from tickcast.settings import Settings
from tickcast_desk.frames import bar_table
from tickcast_trainer.history import History, read_history


class Closed(NamedTuple):
    """Bars by symbol, in the order of closing, and what became of the ticks, by Reason."""

    table: pa.Table
    counts: I64


def read_closed(settings: Settings, data: Path, *, symbols: list[str] | None = None) -> Closed:
    """Every bar that a file or folder closes."""
    tables: list[pa.Table] = []
    for serving, outcome in closed_bars(settings, data, symbols=symbols):
        tables += [bar_table(bars, serving) for bars in outcome.bars]
        counts = serving.engine.folder.counts()
    table = pa.concat_tables(tables).sort_by([("symbol", "ascending"), ("ordinal", "ascending")])
    return Closed(table, counts)


def history_of(table: pa.Table, *, on_gap: str) -> History:
    """The bars in the shape that features read, by the way that training takes."""
    with tempfile.TemporaryDirectory() as folder:
        pq.write_table(table, Path(folder) / BARS)
        return read_history(Path(folder), on_gap=on_gap)
