"""Settings of what comes in: codec, quality, symbols, bars."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from tickcast.settings.section import YEAR_MS, Positive, Section, Span


class Fields(Section):
    symbol: str = "symbol"
    """JSON field or column that holds the symbol."""
    ts: str = "ts"
    """Field of the event time; numbers are in `codec.time_unit`, strings are RFC 3339."""
    price: str = "price"
    """Field of the trade price."""
    size: str = "size"
    """Field of the traded size; a feed without one counts 0."""
    bid: str = "bid"
    """Field of the best bid; with `ask` it makes a quote whose price is the mid."""
    ask: str = "ask"
    """Field of the best ask."""
    sequence: str = ""
    """Field of a per-symbol sequence number; mapped, it is what duplicates are recognised by."""
    open: str = "open"
    """Column of a bar file: open."""
    high: str = "high"
    """Column of a bar file: high."""
    low: str = "low"
    """Column of a bar file: low."""
    close: str = "close"
    """Column of a bar file: close."""
    volume: str = "volume"
    """Column of a bar file: volume."""


class CodecTopic(Section):
    kind: Literal["json", "arrow", "packed"] | None = None
    """Codec of this topic."""
    preset: Literal["default", "binance-trade", "binance-bookticker", "coinbase-match", "kraken-trade"] | None = None
    """Preset of this topic."""
    time_unit: Literal["s", "ms", "us", "ns"] | None = None
    """Time unit of this topic."""
    symbol_prefix: str | None = None
    """Symbol prefix of this topic."""
    max_message_bytes: Positive | None = None
    """Longest message of this topic."""
    fields: Fields | None = None
    """Field names of this topic."""


class CodecSettings(Section):
    kind: Literal["json", "arrow", "packed"] = "json"
    """How a message holds ticks: one JSON object, an Arrow IPC stream, or packed fixed-width records."""
    preset: Literal["default", "binance-trade", "binance-bookticker", "coinbase-match", "kraken-trade"] = "default"
    """Shape of the JSON of a known feed; `default` takes the names of `codec.fields`."""
    time_unit: Literal["s", "ms", "us", "ns"] = "ns"
    """Unit of numeric event times."""
    symbol_prefix: str = ""
    """Put before every symbol, so that two venues do not share a name."""
    layout: Literal["long", "wide"] = "long"
    """Shape of a data file: `long` has a symbol column, `wide` has one column per series."""
    max_message_bytes: Positive = 1 << 20
    """Longer messages are refused unread."""
    fields: Fields = Fields()
    topics: dict[str, CodecTopic] = {}
    """`[codec.topics."NAME"]` overrides any codec key for one topic, but `layout`, which is of files."""


class QualitySettings(Section):
    future_ms: Span = 60_000
    """A tick further ahead of its record's broker timestamp is refused; 0 = off."""
    ahead_ms: Span = 60_000
    """A tick further ahead of the daemon's own clock is refused; 0 = off. A replay asks no clock."""
    ancient_ms: Span = 0
    """A tick further behind its record's broker timestamp is refused; 0 = off."""
    max_jump_ms: Span = 0
    """A tick further beyond the watermark waits for another to confirm it; 0 = the larger of 1 h and 100 bars."""
    crossed: Literal["accept", "reject"] = "accept"
    """What happens to a quote whose bid is above its ask; it is counted either way."""
    outlier_sigmas: Annotated[float, Field(ge=0)] = 0.0
    """A tick further from its symbol's last price than this many one-tick moves is refused; 0 = off."""


class SymbolSettings(Section):
    limit: Positive = 20_000
    """Symbols that are known at once; when all places are taken, a new symbol gets that of the longest silent one."""
    silent_ms: Span = 3_600_000
    """Silence, in event time, after which a symbol may lose its place to a new one; 0 = never. One that has not closed
    a second bar may lose it after a minute."""
    new_per_minute: Annotated[int, Field(ge=0)] = 1000
    """Places that pass to new symbols within a minute of event time, at most; 0 = none. Places that nobody had yet
    do not count."""
    groups: dict[str, list[str]] = {}
    """Group name -> symbol patterns (`BTC*`); scores and widening are kept per group. The rest is `all`."""


class BarSettings(Section):
    kind: Literal["time", "tick", "volume"] = "time"
    """What closes a bar."""
    every_ms: Annotated[int, Field(gt=0, le=YEAR_MS)] = 1000
    """Length of a time bar."""
    every_ticks: Positive = 1
    """Ticks in a tick bar; 1 makes each tick a step."""
    every_size: Annotated[float, Field(gt=0)] = 1.0
    """Traded size that closes a volume bar."""
    lateness_ms: Annotated[int, Field(ge=0, le=YEAR_MS)] = 0
    """How long a time bar waits for stragglers; for tick and volume bars, how old a tick may be."""
    idle_ms: Span = 0
    """A partition silent for this long gets a heartbeat that closes its time bars; 0 = off."""
    on_gap: Literal["carry", "join", "cold"] = "carry"
    """What missing time bars become: carried closes, nothing (the next bar is flagged), or a fresh start."""
    calendar: str = "24x7"
    """`24x7`, or a TOML file of trading hours and holidays: closed time makes no bars."""
    adjustments: Path | None = None
    """CSV or Parquet with symbol, ts and factor: splits, applied in live and training alike."""
    history: Path | None = None
    """Ticks or bars that fill windows and store before the first live tick."""
