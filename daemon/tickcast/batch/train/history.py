"""Closed bars of a job folder as flat columns, in the shape that kernels and features read. It changes no value."""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tickcast.columns import F64, I32, I64, U8, Bars
from tickcast.engine.core.windows import UNWRAPPED
from tickcast.errors import BadData
from tickcast.io.jobs.folder import BARS
from tickcast.loop.signature import Closes

PRICES = ("open", "high", "low", "close")
DTYPES: dict[str, npt.DTypeLike] = {
    "as_of_ns": np.int64, "tie": np.int64, **dict.fromkeys((*PRICES, "volume"), np.float64),
    "mask": np.uint8, "gap": np.uint8,
}  # fmt: skip
COLUMNS = ("symbol", *DTYPES)


@dataclass(frozen=True, slots=True)
class BarHistory:
    """Bars by symbol, one after the other. A row is a bar's place in the flat columns."""

    names: list[str]  # of the symbols, by code
    bars: Bars
    gap: U8
    symbol: I32  # of each row
    first: I64  # per row: ordinal of the symbol's oldest bar since it was last cold
    ends: I64  # per symbol: the row after its last
    digest: str  # SHA-256 of what the bars say, however the file is written

    def __len__(self) -> int:
        return len(self.symbol)

    @property
    def ordinal(self) -> I64:
        """Per row: its place among its symbol's bars."""
        return np.arange(len(self), dtype=np.int64) - self.bars.start[self.symbol]

    def closes(self) -> Closes:
        """What a signature is made of."""
        bars = self.bars
        return Closes(self.symbol, bars.as_of, bars.close, bars.mask == 1, self.gap == 0)

    def with_prices(self, shift: F64, factor: F64) -> "BarHistory":
        """Every price p of symbol s as (p - shift[s]) / factor[s]."""
        moved = {name: (getattr(self.bars, name) - shift[self.symbol]) / factor[self.symbol] for name in PRICES}
        return replace(self, bars=self.bars._replace(**moved))


def read_history(folder: Path, *, on_gap: str) -> BarHistory:
    """`bars.parquet`: sorted by symbol, then in the order in which the bars closed."""
    path = folder / BARS
    try:
        table = pq.read_table(path, columns=list(COLUMNS), memory_map=True)
    except (OSError, pa.ArrowException) as error:
        raise BadData(f"cannot read {path}: {error}") from None
    if not table.num_rows:
        raise BadData(f"{path} holds no bars")
    names, symbol = _symbols(table.column("symbol"), path)
    start = np.searchsorted(symbol, np.arange(len(names))).astype(np.int64)
    columns = {name: _column(table, name, dtype) for name, dtype in DTYPES.items()}
    prices = {name: columns[name] for name in (*PRICES, "volume", "mask")}
    bars = Bars(**prices, as_of=columns["as_of_ns"], start=start, wrap=UNWRAPPED)
    first = _first(symbol, start, columns["gap"], on_gap)
    ends, digest = np.append(start[1:], len(symbol)), _digest(names, symbol, columns)
    return BarHistory(names, bars, columns["gap"], symbol, first=first, ends=ends, digest=digest)


def _digest(names: list[str], symbol: I32, columns: dict[str, npt.NDArray[Any]]) -> str:
    """Over names and little-endian columns in a fixed order: the same bars give it from any writer of Parquet."""
    found = hashlib.sha256(json.dumps(names).encode())
    for column in (symbol, *columns.values()):
        found.update(column.astype(column.dtype.newbyteorder("<"), copy=False).data)
    return found.hexdigest()


def _column(table: pa.Table, name: str, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    return np.ascontiguousarray(table.column(name).to_numpy(), dtype=dtype)


def _symbols(column: pa.ChunkedArray, path: Path) -> tuple[list[str], I32]:
    encoded = column.cast(pa.string()).combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    symbol = np.asarray(encoded.indices.to_numpy(zero_copy_only=False), np.int32)
    if (np.diff(symbol) < 0).any():
        raise BadData(f"{path} is not sorted by symbol")
    return encoded.dictionary.to_pylist(), symbol


def _first(symbol: I32, start: I64, gap: U8, on_gap: str) -> I64:
    """As the live windows have it: a gap makes the symbol cold, unless trading days are joined."""
    rows = np.arange(len(symbol), dtype=np.int64)
    begins = rows == start[symbol]
    if on_gap != "join":
        begins |= gap == 1
    return np.maximum.accumulate(np.where(begins, rows, 0)) - start[symbol]
