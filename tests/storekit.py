"""What tests of the store share: units of made-up rows whose every value is known."""

import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tickcast.columns import BarBatch, Forecasts, Scores
from tickcast.io.store.store import Commit, Store
from tickcast.records import Accuracy, DeadLetter, Drift, DriftStream, IntervalFigures, ModelCard
from tickcast.settings import Settings, load
from tickcast.symbols import SymbolTable

T0 = 1_700_000_000_000_000_000
SECOND = 10**9
SOURCE = ("ticks", 0)
SYMBOLS = 4
HORIZON, LEVELS = 3, [0.1, 0.5, 0.9]


def store_settings(folder: Path, **overrides: object) -> Settings:
    """A store in `folder`; `section__key=value` overrides."""
    values = {
        "store.path": folder / "s.duckdb", "runtime.folder": folder / "run", "forecast.horizon": HORIZON,
        "forecast.quantiles": LEVELS, "store.memory_bytes": 256 << 20,
    }  # fmt: skip
    values |= {key.replace("__", "."): value for key, value in overrides.items()}
    return load(overrides={key: str(value) for key, value in values.items()}, environ={})[0]


def card(name: str = "naive", **fields: object) -> ModelCard:
    plain: dict[str, object] = {
        "name": name, "kind": name, "version": "1", "digest": f"digest of {name}", "framework": "numpy", "bars": {},
        "transform": "log_return", "lookback": 2, "horizon": HORIZON, "levels": LEVELS, "features": [],
    }  # fmt: skip
    return ModelCard(**plain | fields)  # type: ignore[arg-type]


def table(count: int = SYMBOLS) -> SymbolTable:
    symbols = SymbolTable(64)
    for code in range(count):
        symbols.code(f"SYM{code}")
    return symbols


def open_store(
    settings: Settings, *, symbols: SymbolTable | None = None, cards: list[ModelCard] | None = None
) -> Store:
    return Store.open(settings, symbols=symbols or table(), cards=[card()] if cards is None else cards, at_ns=T0)


def forecasts(first: int, count: int, *, salt: int = 0) -> Forecasts:
    """Forecast n comes from the record of offset n and has as_of T0 + n seconds; prices are around 60,000. Every
    fourth is of a model of classes.
    """
    n = np.arange(first, first + count)
    draw = np.random.default_rng([first, salt])
    as_of = T0 + n * SECOND
    anchor = 60_000 + n % 100 + 0.25
    spread = np.sort(draw.normal(0, 20, (count, HORIZON, len(LEVELS))), axis=2)
    probs = np.where(n[:, None] % 4 == 0, [0.5, 0.25, 0.25], np.nan).astype(np.float32)
    return Forecasts(
        (n % SYMBOLS).astype(np.int32), n // SYMBOLS, as_of, np.zeros(count, np.int32), np.zeros(count, np.int32), n,
        anchor, np.full(count, 1e-4), np.zeros(count, np.uint8), np.zeros(count, np.int32), np.zeros(count, np.uint8),
        np.full(count, salt + 7, np.uint64), n.astype(np.uint64), np.full(count, 2**63 + 5, np.uint64),
        as_of[:, None] + SECOND * np.arange(1, HORIZON + 1), anchor[:, None, None] + spread, np.ptp(spread, axis=2),
        np.full(count, 0.5, np.float32), probs, as_of,
    )  # fmt: skip


def scores(of: Forecasts, steps: int = 3) -> Scores:
    """The truth is two above the anchor; the first step of every third forecast is void."""
    n = len(of)
    actual = np.repeat(of.anchor[:, None] + 2.0, steps, axis=1)
    actual[::3, 0] = np.nan
    return Scores(
        of.symbol, of.as_of.copy(), of.model, of.partition, of.id_high, of.id_low, of.target_ns[:, -1], of.anchor,
        of.scale, actual, np.repeat(of.anchor[:, None] + 0.5, steps, axis=1), np.where(np.isnan(actual), np.nan, 1.5),
        np.where(np.isnan(actual), np.nan, 0.75), np.where(np.isnan(actual), np.nan, 1.0),
        np.ones((n, steps), np.uint8), np.zeros(n, np.uint8),
        np.ones(n, np.uint8), np.full(n, 255, np.uint8),
    )  # fmt: skip


def bars(first: int, count: int, *, symbols: int = SYMBOLS) -> BarBatch:
    """Bar n belongs to symbol n % symbols, and closes with the record of offset n at T0 + n seconds."""
    n = np.arange(first, first + count)
    price = 100.0 + n / 8
    none = np.zeros(count, np.int64)
    return BarBatch(
        (n % symbols).astype(np.int32), n // symbols, T0 + n * SECOND, none.astype(np.int32), price, price + 1,
        price - 1, price + 0.5, np.full(count, 3.0), np.full(count, 9), np.ones(count, np.uint8),
        np.zeros(count, np.uint8), none.astype(np.int32), n, none,
    )  # fmt: skip


def letter(offset: int) -> DeadLetter:
    return DeadLetter(
        topic="ticks", partition=0, offset=offset, value=b'{"price": \xff', original_bytes=11, reason="malformed",
        stage="codec",
    )  # fmt: skip


def accuracy(as_of_ns: int = T0) -> Accuracy:
    plain = dict.fromkeys(Accuracy.__struct_fields__, 0.5)
    words = {
        "model": "naive",
        "version": "1",
        "group": "all",
        "window": "rolling",
        "coverage": {"0.05": 0.06, "0.95": 0.94},
        "intervals": {"0.9": IntervalFigures(**dict.fromkeys(IntervalFigures.__struct_fields__, 0.5))},
    }
    counts = {"n": 10, "void": 1, "outside": 0, "pending": 2, "blocks": 12, "insufficient": False}
    whole = counts | {"horizon": 1, "as_of_ns": as_of_ns, "schema": 1, "r2": float("nan")}
    return Accuracy(**plain | words | whole)  # type: ignore[arg-type]


def drift(as_of_ns: int = T0, *, event: Literal["", "raised"] = "") -> Drift:
    stream = DriftStream(
        model="naive@1", group="all", channel="target", named=event == "raised", statistic=12_000.0, share=0.3,
        limit=0.12, block_bars=20.0, autocorrelation=0.05, psi=0.2, ks=0.1, wasserstein=None,
    )  # fmt: skip
    return Drift(
        family="range", topic=SOURCE[0], partition=SOURCE[1], state="alarm" if event else "quiet", event=event,
        statistic=12_000.0, threshold=10_000.0, bars=0.0, since_ns=as_of_ns, alarms=1, watched=1, streams=[stream],
        as_of_ns=as_of_ns,
    )  # fmt: skip


def unit(first: int, count: int, *, salt: int = 0) -> Commit:
    """Everything that the records `first` to `first + count` bring, and the offset after them."""
    asked = forecasts(first, count, salt=salt)
    last = first + count
    return Commit(
        forecasts=[asked], scores=[scores(asked)], bars=[bars(first, count)], accuracy=[accuracy(T0 + first)],
        drift=[drift(T0 + first)],
        dead_letters=[letter(first)], offsets={SOURCE: last}, watermarks={SOURCE: T0 + last * SECOND},
        sources=[SOURCE],
    )  # fmt: skip


async def value(store: Store, sql: str) -> object:
    """The one value that a query gives."""
    _, ((one,),) = await store.query(sql)
    return one


def bars_between(store: Store, from_ns: int, to_ns: int, symbols: list[str] | None = None) -> pa.Table:
    """What a job would be given of that span."""
    with tempfile.TemporaryDirectory() as folder:
        store.save_bars(Path(folder) / "span.parquet", from_ns, to_ns, symbols)
        return pq.read_table(Path(folder) / "span.parquet")
