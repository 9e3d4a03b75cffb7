"""Shapes of known feeds: which JSON field holds what. It names fields and reads nothing.

What repeats earlier trades at a (re)subscription (`last_match` of Coinbase, `snapshot` of Kraken) is another event: a
trade must not count twice. `codec.fields.sequence` is heeded by every preset, since only the user knows whether a
feed's number identifies duplicates.
"""

from dataclasses import dataclass, replace

from tickcast.engine.codec.ticks import EVENT, EVENT_NEEDED, EVENT_OPTIONAL, NO_EVENT, SEQUENCE
from tickcast.errors import BadSettings
from tickcast.settings.stream import CodecSettings, CodecTopic


@dataclass(frozen=True, slots=True)
class FeedShape:
    """How the JSON of a feed holds ticks. `names` are by field of `ticks.py`; empty = the feed has none."""

    names: tuple[str, ...]
    time_unit: str
    event: str = ""  # value of the event field that makes a tick
    event_rule: int = NO_EVENT
    stamped: bool = False  # a missing event time is the record's broker stamp
    listed: tuple[str, ...] = ()  # (channel, type): ticks stand in the list `data` of such messages


BINANCE_TRADE = FeedShape(("s", "T", "p", "q", "", "", "", "e", "data"), "ms", "trade", EVENT_NEEDED)
BINANCE_BOOKTICKER = FeedShape(
    ("s", "T", "", "", "b", "a", "", "e", "data"), "ms", "bookTicker", EVENT_OPTIONAL, stamped=True
)
COINBASE_MATCH = FeedShape(("product_id", "time", "price", "size", "", "", "", "type", ""), "s", "match", EVENT_NEEDED)
KRAKEN_TRADE = FeedShape(("symbol", "timestamp", "price", "qty", "", "", "", "", ""), "s", listed=("trade", "update"))
PRESETS = {
    "binance-trade": BINANCE_TRADE,
    "binance-bookticker": BINANCE_BOOKTICKER,
    "coinbase-match": COINBASE_MATCH,
    "kraken-trade": KRAKEN_TRADE,
}


def shape_of(codec: CodecSettings) -> FeedShape:
    """The shape that the settings ask for; two fields under one name are refused."""
    fields = codec.fields
    if codec.preset == "default":
        names = (fields.symbol, fields.ts, fields.price, fields.size, fields.bid, fields.ask, fields.sequence, "", "")
        shape = FeedShape(names, codec.time_unit, stamped=not fields.ts)
    else:
        preset = PRESETS[codec.preset]
        shape = replace(preset, names=(*preset.names[:SEQUENCE], fields.sequence, *preset.names[EVENT:]))
    mapped = [name for name in shape.names if name]
    if len(set(mapped)) < len(mapped):
        raise BadSettings("two of codec.fields have the same name", remedy=f"they are {', '.join(mapped)}")
    return shape


def for_topic(codec: CodecSettings, topic: str) -> CodecSettings:
    """The codec settings of one topic: its own keys, then the general ones."""
    own = codec.topics.get(topic, CodecTopic())
    given = {name: value for name in CodecTopic.model_fields if (value := getattr(own, name)) is not None}
    return codec.model_copy(update=given)
