"""Data files as a source of ticks, and a writer of them. It yields what the files hold in order, and decides nothing.

Parquet and CSV rows become packed records; JSON lines pass as they are. Times are checked by the codec and quality.
"""

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from tickcast.columns import NO_TIME, PACKED, RawBatch
from tickcast.errors import BadData
from tickcast.io.tape import columns as tape_columns
from tickcast.io.tape.columns import Cut, Table
from tickcast.io.tape.lines import Lines
from tickcast.io.tape.time import UNIT_NS
from tickcast.settings import Settings

TOPIC = "tape"
TABLES = (".parquet", ".csv", ".csv.gz")
LINES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
PACK_ROWS = 1 << 16


class Tape:
    """One file, or all data files of a folder merged by time, as batches of at most `chunk` messages."""

    def __init__(
        self,
        path: Path,
        settings: Settings,
        *,
        chunk: int = 50_000,
        from_ns: int | None = None,
        to_ns: int | None = None,
        symbols: list[str] | None = None,
    ) -> None:
        self.path, self.chunk, self._settings = path, chunk, settings
        cut = Cut(from_ns, to_ns, tuple(symbols or ()))
        files = _files(path)
        self._source: Table | Lines
        if _suffix(files[0]) in LINES:
            self._source = Lines(files, settings.codec, cut)
        else:
            self._source = tape_columns.read(files, settings, cut)

    @property
    def codec(self) -> Literal["json", "packed"]:
        return "packed" if isinstance(self._source, Table) else "json"

    @property
    def settings(self) -> Settings:
        """The settings that its batches are decoded with: those given, with the codec of the tape."""
        codec = self._settings.codec.model_copy(update={"kind": self.codec})
        return self._settings.model_copy(update={"codec": codec})

    @property
    def kind(self) -> Literal["ticks", "bars"]:
        return self._source.kind if isinstance(self._source, Table) else "ticks"

    @property
    def rows(self) -> int | None:
        """Messages in all, where that is known before they are read."""
        return len(self._source) if isinstance(self._source, Table) else None

    @property
    def interval_ns(self) -> int:
        """Spacing of a bar file, the smallest of several, or of ticks that come at even steps; 0 for other ticks."""
        return self._source.interval_ns if isinstance(self._source, Table) else 0

    @property
    def mixed(self) -> str:
        """What may be two venues under one name; empty where no file overlaps another."""
        return self._source.mixed if isinstance(self._source, Table) else ""

    @property
    def first_time(self) -> str:
        """As the file writes it, where that is a number; for a message about times that were refused."""
        if not isinstance(self._source, Table) or self._source.ts[0] == NO_TIME:
            return ""
        return str(int(self._source.ts[0]) // UNIT_NS[self._settings.codec.time_unit])

    def __iter__(self) -> Iterator[RawBatch]:
        for whole in self._wholes():
            for first in range(0, len(whole), self.chunk):
                yield whole.part(first, first + self.chunk)

    def _wholes(self) -> Iterator[RawBatch]:
        """Large batches, of which chunks are views."""
        if isinstance(self._source, Table):
            step = self.chunk * max(1, PACK_ROWS // self.chunk)
            for first in range(0, len(self._source), step):
                yield _packed_batch(self._source, first, first + step)
            return
        offset = 0
        for block in self._source:
            offsets = np.arange(offset, offset + len(block.starts), dtype=np.int64)
            yield RawBatch(
                topic=TOPIC, partition=0, data=block.data, starts=block.starts, ends=block.ends, offsets=offsets,
                stamps_ns=block.stamps,
            )  # fmt: skip
            offset += len(block.starts)


def _packed_batch(table: Table, first: int, last: int) -> RawBatch:
    """Rows first..last as messages of one record each."""
    records = table.packed(first, last)
    starts = np.arange(len(records), dtype=np.int64) * PACKED.itemsize
    stamps = np.full(len(records), -1, np.int64) if table.received is None else table.received[first:last]
    offsets = np.arange(first, first + len(records), dtype=np.int64)
    return RawBatch(
        topic=TOPIC, partition=0, data=records.view(np.uint8), starts=starts, ends=starts + PACKED.itemsize,
        offsets=offsets, stamps_ns=stamps,
    )  # fmt: skip


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise BadData(f"there is no file or folder {path}")
    known = ", ".join(TABLES + LINES)
    files = sorted(file for file in path.rglob("[!._]*") if _suffix(file)) if path.is_dir() else [path]
    if not files:
        raise BadData(f"{path} holds no data file", remedy=f"known endings: {known}")
    if not _suffix(files[0]):
        raise BadData(f"{path} is of no known kind", remedy=f"known endings: {known}")
    if len({_suffix(file) in LINES for file in files}) > 1:
        raise BadData(f"{path} holds both tables and JSON lines", remedy="replay them one at a time")
    return files


def _suffix(file: Path) -> str:
    """The known ending of a file's name, or nothing."""
    return next((ending for ending in LINES + TABLES if file.name.lower().endswith(ending)), "")


def write_ticks(path: Path, ticks: pl.DataFrame) -> None:
    """Write columns symbol, ts, price and size as Parquet, CSV or JSON lines, by the ending of the name."""
    ending = _suffix(path)
    if not ending:
        raise BadData(f"{path} is a file of no known kind", remedy=f"known endings: {', '.join(TABLES + LINES)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    if ending == ".parquet":
        try:
            ticks.write_parquet(path)
        except pl.exceptions.ComputeError as error:  # what a full disk is to polars
            raise BadData(f"{path} cannot be written: {error}", remedy="make room, or name another place") from None
        return
    text = (ticks.write_ndjson() if ending in LINES else ticks.write_csv()).encode()
    path.write_bytes(gzip.compress(text, mtime=0) if ending.endswith(".gz") else text)  # equal ticks, equal files
