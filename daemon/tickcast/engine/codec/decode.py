"""Undecoded batches -> tick columns and rejects, by the codec of their topic. It does no I/O and judges no price.

Every message ends as one tick or more, or as exactly one reject; of a message with many ticks each bad one is a reject.
What a codec raises over a message, whatever it is, is a reject of that message alone: `_each_alone` is the one place.
"""

from dataclasses import replace
from typing import Protocol, TypeVar

import numpy as np

from tickcast.columns import RawBatch, Rejects, TickBatch
from tickcast.engine.codec.json import JsonDecoder
from tickcast.engine.codec.packed import PackedDecoder
from tickcast.engine.codec.presets import for_topic, shape_of
from tickcast.engine.codec.ticks import collect, rows
from tickcast.errors import Reason
from tickcast.settings.stream import CodecSettings
from tickcast.symbols import SymbolTable

Decoded = TypeVar("Decoded", TickBatch, Rejects)


class TopicDecoder(Protocol):
    def decode(self, raw: RawBatch) -> tuple[TickBatch, Rejects]: ...


class Decoder:
    def __init__(self, settings: CodecSettings, symbols: SymbolTable) -> None:
        self._settings = settings
        self._symbols = symbols
        self._by_topic: dict[str, TopicDecoder] = {}
        for topic in ("", *settings.topics):
            shape_of(for_topic(settings, topic))  # refuses at the start what no message could be read by

    def forget_names(self) -> None:
        """Codes have gone to other symbols: each topic's decoder, which keeps names that it met, is built anew."""
        self._by_topic.clear()

    def decode(self, raw: RawBatch) -> tuple[TickBatch, Rejects]:
        """Ticks in message order, then in their order within the message; `row` is the message."""
        decoder = self._by_topic.get(raw.topic)
        if decoder is None:
            decoder = self._by_topic[raw.topic] = topic_decoder(for_topic(self._settings, raw.topic), self._symbols)
        ticks, rejects = _each_alone(decoder, _writable(raw))
        if len(rejects):
            rejects.reason[raw.starts[rejects.row] < 0] = Reason.TOMBSTONE
        return ticks, rejects


def topic_decoder(codec: CodecSettings, symbols: SymbolTable) -> TopicDecoder:
    prefix, most = codec.symbol_prefix, codec.max_message_bytes
    if codec.kind == "packed":
        return PackedDecoder(symbols, symbol_prefix=prefix, max_message_bytes=most)
    if codec.kind == "arrow":
        from tickcast.engine.codec.arrow import ArrowDecoder  # pyarrow costs a quarter of a second of every start

        return ArrowDecoder(codec, symbols)
    return JsonDecoder(shape_of(codec), symbols, symbol_prefix=prefix, max_message_bytes=most)


def _each_alone(decoder: TopicDecoder, raw: RawBatch) -> tuple[TickBatch, Rejects]:
    """As the decoder does it; where it raises, halves are tried until the message that it cannot take is alone."""
    try:
        return decoder.decode(raw)
    except Exception:
        if len(raw) < 2:
            refused = rows(len(raw))
            refused.reason[:] = Reason.MALFORMED
            return collect(refused, np.zeros(len(raw), np.int32))
    middle = len(raw) // 2
    ticks, rejects = _each_alone(decoder, raw.part(0, middle))
    more_ticks, more_rejects = _each_alone(decoder, raw.part(middle, len(raw)))
    return TickBatch.concat([ticks, _later(more_ticks, middle)]), Rejects.concat(
        [rejects, _later(more_rejects, middle)]
    )


def _later(part: Decoded, messages: int) -> Decoded:
    """The same rows, of messages that stand so many further behind."""
    return replace(part, row=part.row + np.int32(messages))


def _writable(raw: RawBatch) -> RawBatch:
    """Kernels are compiled for writable memory; bytes from elsewhere are copied rather than compiled for again."""
    if raw.data.flags.writeable:
        return raw
    return replace(raw, data=raw.data.copy())
