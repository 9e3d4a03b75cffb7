"""What lies between bid and ask when a bar opens, for a backtest's fills. It decodes a tape once more for that.

A feed of trades, or of bars, has none: its spread is 0 here, and belongs into the slippage.
"""

from pathlib import Path

import numpy as np

from tickcast.columns import F64, I64
from tickcast.engine.codec.decode import Decoder
from tickcast.io.tape.tape import Tape
from tickcast.settings import Settings
from tickcast.symbols import SymbolTable

Quotes = dict[str, tuple[I64, F64]]  # by symbol: event times, ascending, and half the spread as a share of the mid


def read_quotes(settings: Settings, data: Path) -> Quotes:
    tape = Tape(data, settings)
    if tape.kind == "bars":
        return {}
    symbols = SymbolTable(settings.symbols.limit)
    decoder = Decoder(tape.settings.codec, symbols)
    found: list[tuple[I64, I64, F64]] = []
    for raw in tape:
        ticks, _ = decoder.decode(raw)
        rows = np.flatnonzero((ticks.bid > 0) & (ticks.ask >= ticks.bid))
        if len(rows):
            bid, ask = ticks.bid[rows], ticks.ask[rows]
            found.append((ticks.symbol[rows].astype(np.int64), ticks.ts[rows], (ask - bid) / (ask + bid)))
    if not found:
        return {}
    symbol, ts, half = (np.concatenate(columns) for columns in zip(*found, strict=True))
    order = np.lexsort((ts, symbol))
    symbol, ts, half = symbol[order], ts[order], half[order]
    edges = np.searchsorted(symbol, np.arange(len(symbols) + 1))
    return {
        name: (ts[a:b], half[a:b]) for name, a, b in zip(symbols.names(), edges[:-1], edges[1:], strict=True) if a < b
    }


def spread_at(quotes: Quotes, symbol: str, begin: I64, *, after: bool) -> F64:
    """Half the spread of the first quote that is not before `begin`, or that is after it."""
    if symbol not in quotes:
        return np.zeros(len(begin))
    ts, half = quotes[symbol]
    at = np.searchsorted(ts, begin, side="right" if after else "left")
    spread: F64 = half[np.minimum(at, len(ts) - 1)]
    return spread
