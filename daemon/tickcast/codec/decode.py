"""Undecoded batches -> tick columns and rejects, by the codec of their topic. It does no I/O and judges no price.

Every message ends as one tick or more, or as exactly one reject; of a message with many ticks each bad one is a reject.
"""

from dataclasses import replace
from typing import Protocol

from tickcast.codec.json import JsonDecoder
from tickcast.codec.packed import PackedDecoder
from tickcast.codec.presets import for_topic, shape_of
from tickcast.columns import RawBatch, Rejects, TickBatch
from tickcast.settings import Codec
from tickcast.symbols import SymbolTable


class TopicDecoder(Protocol):
    def decode(self, raw: RawBatch) -> tuple[TickBatch, Rejects]: ...


class Decoder:
    def __init__(self, settings: Codec, symbols: SymbolTable) -> None:
        self._settings = settings
        self._symbols = symbols
        self._by_topic: dict[str, TopicDecoder] = {}
        for topic in ("", *settings.topics):
            shape_of(for_topic(settings, topic))  # refuses at the start what no message could be read by

    def decode(self, raw: RawBatch) -> tuple[TickBatch, Rejects]:
        """Ticks in message order, then in their order within the message; `row` is the message."""
        decoder = self._by_topic.get(raw.topic)
        if decoder is None:
            decoder = self._by_topic[raw.topic] = topic_decoder(for_topic(self._settings, raw.topic), self._symbols)
        return decoder.decode(_writable(raw))


def topic_decoder(codec: Codec, symbols: SymbolTable) -> TopicDecoder:
    prefix, most = codec.symbol_prefix, codec.max_message_bytes
    if codec.kind == "packed":
        return PackedDecoder(symbols, symbol_prefix=prefix, max_message_bytes=most)
    if codec.kind == "arrow":
        from tickcast.codec.arrow import ArrowDecoder  # pyarrow costs a quarter of a second of every start

        return ArrowDecoder(codec, symbols)
    return JsonDecoder(shape_of(codec), symbols, symbol_prefix=prefix, max_message_bytes=most)


def _writable(raw: RawBatch) -> RawBatch:
    """Kernels are compiled for writable memory; bytes from elsewhere are copied rather than compiled for again."""
    if raw.data.flags.writeable:
        return raw
    return replace(raw, data=raw.data.copy())
