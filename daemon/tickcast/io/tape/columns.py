"""Parquet and CSV files as one table of ticks in time order. It drops no row: what a cell lacks becomes NaN."""

import gzip
import zlib
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from tickcast.columns import F64, I64, NO_TIME, PACKED
from tickcast.errors import BadData
from tickcast.io.tape.time import event_time
from tickcast.settings import Settings
from tickcast.settings.stream import CodecSettings, Fields

BAR_PRICES, VOLUME = ("open", "high", "low", "close"), "volume"
TICKS_PER_BAR = 4
INDEX = "index"
EVEN_SHARE = 0.6  # of the steps between ticks that are equal, where they come at even steps
LOOKED_AT = 100_000  # ticks that tell whether they come at even steps
SHARED_SPAN = 0.5  # of the shorter of two files: beyond it one does not follow the other
NAME_BYTES = PACKED["symbol"].itemsize
UNREADABLE = (pl.exceptions.PolarsError, OSError, EOFError, zlib.error, UnicodeDecodeError)


@dataclass(frozen=True, slots=True)
class Cut:
    """What of a tape is wanted: event times in [from_ns, to_ns) and symbols by name or pattern (`BTC*`)."""

    from_ns: int | None = None
    to_ns: int | None = None
    symbols: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.from_ns is not None or self.to_ns is not None or bool(self.symbols)

    def wants(self, symbol: str) -> bool:
        return not self.symbols or any(fnmatchcase(symbol, pattern) for pattern in self.symbols)

    def within(self, ts: I64) -> npt.NDArray[np.bool_]:
        """Rows without a time stay: they are for the codec to reject and count."""
        low = -(1 << 62) if self.from_ns is None else self.from_ns
        high = 1 << 62 if self.to_ns is None else self.to_ns
        kept: npt.NDArray[np.bool_] = (ts == NO_TIME) | ((ts >= low) & (ts < high))
        return kept


@dataclass(frozen=True, slots=True)
class Table:
    """Ticks in the order in which they are replayed."""

    kind: Literal["ticks", "bars"]
    ts: I64
    symbol: npt.NDArray[np.int64]  # index into names
    names: npt.NDArray[np.bytes_]
    price: F64
    size: F64
    bid: F64 | None = None
    ask: F64 | None = None
    sequence: I64 | None = None
    received: I64 | None = None
    interval_ns: int = 0  # spacing of a bar file, or of ticks that come at even steps
    mixed: str = ""  # a symbol that several files hold over the same time, in words

    def __len__(self) -> int:
        return len(self.ts)

    def packed(self, first: int, last: int) -> npt.NDArray[Any]:
        """Rows first..last as packed records."""
        part = slice(first, last)
        records = np.empty(len(self.ts[part]), PACKED)
        records["ts"], records["symbol"] = self.ts[part], self.names[self.symbol[part]]
        records["price"], records["size"] = self.price[part], self.size[part]
        records["bid"] = np.nan if self.bid is None else self.bid[part]
        records["ask"] = np.nan if self.ask is None else self.ask[part]
        records["sequence"] = -1 if self.sequence is None else self.sequence[part]
        return records


def read(files: list[Path], settings: Settings, cut: Cut) -> Table:
    """All files as one table, sorted by time: by `received_ns` where every file has it, else by event time."""
    frames = [_cut(_normal(_open(file), file, settings), cut) for file in files]
    kinds = {"bars" if "open" in frame.columns else "ticks" for frame in frames}
    if len(kinds) > 1:
        raise BadData(f"{files[0].parent} holds both tick files and bar files", remedy="replay them one at a time")
    frame = pl.concat(frames, how="diagonal")
    _refuse_nothing_left(frame, files, cut)
    table = _bars(frame) if kinds == {"bars"} else _ticks(frame)
    return replace(table, mixed=_mixed(files, frames))


def _mixed(files: list[Path], frames: list[pl.DataFrame]) -> str:
    """Files that follow each other may share an edge; two venues of one name share most of their time."""
    spans: dict[str, list[tuple[int, int, str]]] = {}
    for file, frame in zip(files, frames, strict=True):
        timed = frame.filter(pl.col("ts") != NO_TIME).group_by("symbol")
        for symbol, low, high in timed.agg(low=pl.col("ts").min(), high=pl.col("ts").max()).sort("symbol").iter_rows():
            for other_low, other_high, other in spans.get(symbol, ()):
                shared = min(high, other_high) - max(low, other_low)
                if shared > SHARED_SPAN * min(high - low, other_high - other_low):
                    return f"{symbol} is in {other} and in {file.name} over the same time, and they are read as one"
            spans.setdefault(symbol, []).append((low, high, file.name))
    return ""


def _refuse_nothing_left(frame: pl.DataFrame, files: list[Path], cut: Cut) -> None:
    if frame.height:
        return
    where = files[0] if len(files) == 1 else files[0].parent
    if cut:
        raise BadData(f"{where} has no row with that time and symbol", remedy="widen --from, --to or --symbols")
    raise BadData(f"{where} holds no rows")


# ---------------------------------------------------------------- opening


def _open(file: Path) -> pl.DataFrame:
    if not file.stat().st_size:
        raise BadData(f"{file} is empty")
    try:
        return pl.read_parquet(file) if file.suffix.lower() == ".parquet" else _read_csv(file)
    except UNREADABLE as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadData(f"{file} cannot be read: {first_line}", remedy="it may be truncated: copy it again") from None


def _read_csv(file: Path) -> pl.DataFrame:
    """Every cell as text: no guess made from the first rows can spoil a later one or a symbol such as 007."""
    raw = gzip.decompress(file.read_bytes()) if file.suffix.lower() == ".gz" else file.read_bytes()
    heading = raw[: raw.find(b"\n") + 1]
    separator = next((mark for mark in (",", ";", "\t") if mark.encode() in heading), ",")
    frame = pl.read_csv(raw, infer_schema=False, encoding="utf8-lossy", separator=separator)
    return _named(frame.with_columns(pl.all().str.strip_chars()))


def _named(frame: pl.DataFrame) -> pl.DataFrame:
    """A nameless first column is the index that pandas writes: row numbers say nothing, all else goes by `index`."""
    if frame.columns[0] or INDEX in frame.columns:
        return frame
    numbers = frame.to_series(0).cast(pl.Int64, strict=False)
    if numbers.equals(pl.int_range(frame.height, eager=True)):
        return frame.drop("")
    return frame.rename({"": INDEX})


# ---------------------------------------------------------------- one shape


def _normal(frame: pl.DataFrame, file: Path, settings: Settings) -> pl.DataFrame:
    """The file's own columns under our names: ts (ns), symbol, then price and size, bid and ask, or a bar's five."""
    codec, columns = settings.codec, set(frame.columns)
    _need(columns, file, ts=codec.fields.ts)
    fields = _bar_fields(codec.fields, columns, file)
    ts = _event_time(frame[codec.fields.ts], codec.time_unit, file)
    received = [_whole(frame["received_ns"]).alias("received_ns")] if "received_ns" in columns else []
    if codec.layout == "wide":
        return _unpivot(frame.drop(codec.fields.ts, "received_ns", strict=False), ts, received, file)
    shared = [ts, _symbol(frame, file, codec), *received]
    if {getattr(fields, name) for name in BAR_PRICES} <= columns and not {fields.price, fields.bid} & columns:
        return pl.DataFrame(shared + _bar_columns(frame, ts, shared[1], fields, settings))
    return pl.DataFrame(shared + _tick_columns(frame, file, codec))


def _bar_fields(fields: Fields, columns: set[str], file: Path) -> Fields:
    """With the columns of bars as the file spells them: Yahoo and others write Open, High, Low, Close."""
    spelt = {name: [c for c in columns if c.lower() == getattr(fields, name).lower()] for name in (*BAR_PRICES, VOLUME)}
    own = {name: found[0] for name, found in spelt.items() if len(found) == 1 and getattr(fields, name) not in columns}
    fields = fields.model_copy(update=own)
    prices = {getattr(fields, name) for name in BAR_PRICES}
    if prices <= columns and fields.price in prices:
        raise BadData(
            f"{file} holds bars, and codec.fields.price = '{fields.price}' would tell of each before its end",
            remedy="leave codec.fields.price out: bars are read as such",
        )
    return fields


def _need(columns: set[str], file: Path, **wanted: str) -> None:
    for key, name in wanted.items():
        if name not in columns:
            there = ", ".join(sorted(columns)[:20])
            raise BadData(f"{file} has no column '{name}'", remedy=f"set codec.fields.{key}; it has: {there}")


def _symbol(frame: pl.DataFrame, file: Path, codec: CodecSettings) -> pl.Series:
    """The symbol column; a file without one holds one symbol, named as the file."""
    name = codec.fields.symbol
    if name in frame.columns:
        return frame[name].cast(pl.String).fill_null("").alias("symbol")
    if name != type(codec.fields)().symbol:
        _need(set(frame.columns), file, symbol=name)
    return pl.Series("symbol", [file.name.split(".")[0]]).new_from_index(0, frame.height)


def _tick_columns(frame: pl.DataFrame, file: Path, codec: CodecSettings) -> list[pl.Series]:
    fields, columns = codec.fields, set(frame.columns)
    quoted = {fields.bid, fields.ask} <= columns
    if not quoted:
        _need(columns, file, price=fields.price)
    found = [_number(frame[getattr(fields, name)], name) for name in ("bid", "ask") if quoted]
    if fields.price in columns:
        found.append(_number(frame[fields.price], "price"))
    else:
        found.append(((found[0] + found[1]) / 2).alias("price"))
    if fields.size in columns:
        found.append(_number(frame[fields.size], "size"))
    if fields.sequence:
        _need(columns, file, sequence=fields.sequence)
        found.append(_whole(frame[fields.sequence]).alias("sequence"))
    return found


def _bar_columns(
    frame: pl.DataFrame, ts: pl.Series, symbol: pl.Series, fields: Fields, settings: Settings
) -> list[pl.Series]:
    found = [_number(frame[getattr(fields, name)], name) for name in BAR_PRICES]
    if fields.volume in frame.columns:  # a bar whose volume is unknown keeps its prices: 0, as in a file without one
        found.append(_number(frame[fields.volume], "volume").fill_nan(0.0))
    interval = _interval_ns(ts, symbol) or settings.bars.every_ms * 10**6
    return [*found, pl.Series("interval", [interval]).new_from_index(0, frame.height)]


def _interval_ns(ts: pl.Series, symbol: pl.Series, *, at_least: float = 0.0) -> int:
    """The most common step within a symbol, the smallest of equals; 0 where there is none, or it is a smaller share."""
    frame = pl.DataFrame([ts, symbol]).filter(pl.col("ts") != NO_TIME).sort("symbol", "ts", maintain_order=True)
    steps = frame.select(pl.col("ts").diff().over("symbol"))["ts"].drop_nulls()
    steps = steps.filter(steps > 0)
    if not len(steps):
        return 0
    values, counts = np.unique(steps.to_numpy(), return_counts=True)
    most = int(np.argmax(counts))
    return int(values[most]) if counts[most] >= at_least * len(steps) else 0


def _unpivot(frame: pl.DataFrame, ts: pl.Series, received: list[pl.Series], file: Path) -> pl.DataFrame:
    """A wide file row by row: one tick per numeric column, named after it."""
    series = {name: _number(frame[name], name) for name in frame.columns if _is_numeric(frame[name])}
    if not series:
        raise BadData(f"{file} has no numeric column beside its time", remedy="codec.layout = wide needs one")
    n, height = len(series), frame.height
    long = {
        "ts": ts.to_numpy().repeat(n),
        "price": np.column_stack([column.to_numpy() for column in series.values()]).ravel(),
    }
    if received:
        long["received_ns"] = received[0].to_numpy().repeat(n)
    return pl.DataFrame(long).with_columns(symbol=pl.Series(list(series) * height))


def _is_numeric(column: pl.Series) -> bool:
    if column.dtype == pl.String:
        return column.cast(pl.Float64, strict=False).drop_nulls().len() > 0
    return column.dtype.is_numeric()


def _number(column: pl.Series, name: str) -> pl.Series:
    return column.cast(pl.Float64, strict=False).fill_null(float("nan")).alias(name)


def _whole(column: pl.Series) -> pl.Series:
    if column.dtype.is_temporal():
        column = column.cast(pl.Datetime("ns")).to_physical()
    return column.cast(pl.Int64, strict=False)


def _cut(frame: pl.DataFrame, cut: Cut) -> pl.DataFrame:
    if cut.symbols:
        wanted = [name for name in frame["symbol"].unique() if cut.wants(name)]
        frame = frame.filter(pl.col("symbol").is_in(wanted))
    return frame.filter(pl.Series(cut.within(frame["ts"].to_numpy()))) if cut else frame


def _event_time(column: pl.Series, unit: str, file: Path) -> pl.Series:
    """Event times in ns; NO_TIME where a cell holds none that fits."""
    found = event_time(column, unit)
    if column.drop_nulls().len() and (found == NO_TIME).all():
        example = column.drop_nulls()[0]
        raise BadData(f"{file}: '{example}' in column '{column.name}' is no time that can be read",
                      remedy="set codec.fields.ts or codec.time_unit")  # fmt: skip
    return found


# ---------------------------------------------------------------- the order of replay


def _ticks(frame: pl.DataFrame) -> Table:
    """By arrival where every row has its time of arrival: only then are late ticks late again; else by event time."""
    arrived = "received_ns" in frame.columns and not frame["received_ns"].null_count()
    key = "received_ns" if arrived else "ts"
    if not frame[key].is_sorted():
        frame = frame.sort(key, maintain_order=True)
    columns = {name: frame[name] for name in frame.columns if name != "symbol"}
    for name, missing in (("sequence", -1), ("received_ns", -1), ("bid", np.nan), ("ask", np.nan), ("size", 0.0)):
        if name in columns:
            columns[name] = columns[name].fill_null(missing)
    arrays = {name: column.to_numpy() for name, column in columns.items()}
    symbol, names = _encode(frame["symbol"])
    return Table(
        "ticks", arrays["ts"], symbol, names, arrays["price"], arrays.get("size", np.zeros(frame.height)),
        bid=arrays.get("bid"), ask=arrays.get("ask"), sequence=arrays.get("sequence"),
        received=arrays.get("received_ns"),
        interval_ns=_interval_ns(frame["ts"].head(LOOKED_AT), frame["symbol"].head(LOOKED_AT), at_least=EVEN_SHARE),
    )  # fmt: skip


def _bars(frame: pl.DataFrame) -> Table:
    """Each bar as the four ticks that rebuild it: its open, both extremes, and at its last nanosecond the close."""
    open_, high, low, close = (frame[name].to_numpy() for name in BAR_PRICES)
    rises = close >= open_
    price = np.column_stack([open_, np.where(rises, low, high), np.where(rises, high, low), close]).ravel()
    size = np.zeros((frame.height, TICKS_PER_BAR))
    if "volume" in frame.columns:
        size[:, -1] = frame["volume"].fill_null(0.0).to_numpy()
    start, interval = frame["ts"].to_numpy()[:, None], frame["interval"].to_numpy()[:, None]
    within = np.concatenate([0 * interval, interval // 3, 2 * interval // 3, interval - 1], axis=1)
    ts = np.where(start == NO_TIME, NO_TIME, start + within).ravel()
    order = np.argsort(ts, kind="stable")
    symbol, names = _encode(frame["symbol"])
    return Table(
        "bars", ts[order], symbol.repeat(TICKS_PER_BAR)[order], names, price[order], size.ravel()[order],
        interval_ns=int(interval.min()),
    )  # fmt: skip


def _encode(symbols: pl.Series) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bytes_]]:
    """Codes and names; a name that a packed record cannot hold is refused rather than cut short."""
    unique = symbols.unique(maintain_order=True)
    names = [name.encode() for name in unique]
    for name in names:
        if len(name) > NAME_BYTES:
            raise BadData(f"the symbol '{name.decode()}' is longer than {NAME_BYTES} bytes")
    codes = symbols.cast(pl.Enum(unique)).to_physical().cast(pl.Int64).to_numpy()
    return codes, np.array(names, dtype=PACKED["symbol"])
