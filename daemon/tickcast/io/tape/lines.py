"""JSON-lines files as undecoded messages. It reads a line's fields only to merge or cut files, never to judge it."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import polars as pl
from numba import njit

from tickcast.columns import I64, U8
from tickcast.errors import BadData
from tickcast.io.tape.columns import Cut
from tickcast.io.tape.time import event_time
from tickcast.settings.stream import CodecSettings

BLOCK_BYTES = 8 << 20


class LineBlock(NamedTuple):
    """Whole lines: line i is `data[starts[i]:ends[i]]`, received at stamps[i] (-1 where it does not say)."""

    data: U8
    starts: I64
    ends: I64
    stamps: I64

    def take(self, rows: Any) -> "LineBlock":
        return LineBlock(self.data, self.starts[rows], self.ends[rows], self.stamps[rows])

    def line(self, row: int) -> bytes:
        return self.data[self.starts[row] : self.ends[row]].tobytes()


class Lines:
    """The lines of one file as it stands, or of several, merged."""

    def __init__(self, files: list[Path], codec: CodecSettings, cut: Cut) -> None:
        self._files, self._codec, self._cut = files, codec, cut
        for file in files:
            if not file.stat().st_size:
                raise BadData(f"{file} is empty")
        if cut and codec.preset != "default":
            raise BadData(
                f"JSON lines of the preset {codec.preset} cannot be cut by time or symbol before they are decoded",
                remedy="leave out --from, --to and --symbols",
            )

    def __iter__(self) -> Iterator[LineBlock]:
        if len(self._files) == 1:
            blocks = _blocks(self._files[0])
        else:
            blocks = iter([self._merged()])
        for block in blocks:
            yield self._wanted(block) if self._cut else block

    def _merged(self) -> LineBlock:
        """All lines by their received stamps, else by event time; within a file the order stays, late lines too."""
        parts = [_whole(file) for file in self._files]
        stamped = all((part.stamps >= 0).all() for part in parts)
        if not stamped and self._codec.preset != "default":
            return _joined(parts)  # files of a foreign feed without stamps follow each other by name
        keys = [part.stamps if stamped else self._times_and_symbols(part)[0] for part in parts]
        order = np.argsort(np.concatenate([np.maximum.accumulate(key) for key in keys]), kind="stable")
        return _joined(parts).take(order)

    def _wanted(self, block: LineBlock) -> LineBlock:
        times, symbols = self._times_and_symbols(block)
        known = {name: self._cut.wants(name) for name in set(symbols) if name is not None}
        wanted = np.array([name is None or known[name] for name in symbols], np.bool_)
        return block.take(wanted & self._cut.within(times))

    def _times_and_symbols(self, block: LineBlock) -> tuple[I64, list[str | None]]:
        """Read by `codec.fields`; NO_TIME and None where a line cannot be read: those stay, for the codec to reject."""
        fields = self._codec.fields
        shape = msgspec.defstruct(
            "Line", [("ts", Any, None), ("symbol", Any, None)], rename={"ts": fields.ts, "symbol": fields.symbol}
        )
        decode = msgspec.json.Decoder(shape).decode
        times: list[str | None] = []
        symbols: list[str | None] = []
        for row in range(len(block.starts)):
            try:
                line: Any = decode(block.line(row))
            except (msgspec.DecodeError, UnicodeDecodeError):
                line = shape()
            times.append(None if line.ts is None else str(line.ts))
            symbols.append(line.symbol if isinstance(line.symbol, str) else None)
        read = event_time(pl.Series("ts", times, pl.String), self._codec.time_unit)
        return read.to_numpy(), symbols


def _whole(file: Path) -> LineBlock:
    return _joined(list(_blocks(file)))


def _joined(parts: list[LineBlock]) -> LineBlock:
    shifts = np.cumsum([0] + [len(part.data) for part in parts])
    return LineBlock(
        np.concatenate([part.data for part in parts]),
        np.concatenate([part.starts + shift for part, shift in zip(parts, shifts)]),
        np.concatenate([part.ends + shift for part, shift in zip(parts, shifts)]),
        np.concatenate([part.stamps for part in parts]),
    )


def _blocks(file: Path) -> Iterator[LineBlock]:
    """Some megabytes of whole lines at a time; the last line needs no newline."""
    carry = b""
    with gzip.open(file) if file.suffix.lower() == ".gz" else file.open("rb") as stream:
        while True:
            try:
                read = stream.read(BLOCK_BYTES)
            except (EOFError, OSError, zlib.error) as error:
                raise BadData(f"{file} cannot be read: {error}", remedy="it may be truncated: copy it again") from None
            if not read:
                break
            carry += read
            cut = carry.rfind(b"\n") + 1
            if cut:
                yield _split(carry[:cut])
                carry = carry[cut:]
    if carry:
        yield _split(carry + b"\n")


def _split(text: bytes) -> LineBlock:
    data = np.frombuffer(bytearray(text), np.uint8)  # writable, as kernels are compiled for
    ends = np.flatnonzero(data == ord("\n")).astype(np.int64)
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1] + 1])
    stamps = np.full(len(ends), -1, np.int64)
    trim_lines(data, starts, ends, stamps)
    return LineBlock(data, starts, ends, stamps)


@njit(cache=True, nogil=True)
def trim_lines(data, starts, ends, stamps):  # type: ignore[no-untyped-def]
    """Take a leading `DIGITS ` off each line as its stamp, and a carriage return off its end."""
    for i in range(len(starts)):
        first, last = starts[i], ends[i]
        if last > first and data[last - 1] == 13:
            last -= 1
        at, stamp = first, np.int64(0)
        while at < last and at - first < 19 and 48 <= data[at] <= 57:
            stamp = stamp * 10 + np.int64(data[at] - 48)
            at += 1
        if first < at < last and data[at] == 32 and stamp >= 0:
            stamps[i], starts[i] = stamp, at + 1
        ends[i] = last
