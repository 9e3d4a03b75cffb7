"""What decoding a tick costs on one core: JSON, against msgspec structs put into columns; Arrow; packed records.

    python benchmarks/run.py decode

One JSON tick per message over 1,000 symbols, in batches of 10,000 messages. The peer gets its messages as ready bytes
objects, which a real consumer would have to make first. Both sides' columns are checked equal before they are timed.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from packing import pack, raw_of_packed
from stats import Figure, cpu_ns_per, paired_ratio
from tickcast.columns import F64, I64, RawBatch, TickBatch
from tickcast.engine.codec.decode import Decoder
from tickcast.settings.stream import CodecSettings
from tickcast.symbols import SymbolTable

TICKS, BATCH, SYMBOLS = 200_000, 10_000, 1000
T0 = 1_700_000_000 * 10**9


class Market(NamedTuple):
    names: list[str]
    ts: I64
    price: F64
    size: F64


def market() -> Market:
    rng = np.random.default_rng(0)
    names = [f"SYM{k:04d}USDT" for k in rng.integers(0, SYMBOLS, TICKS)]
    price = np.round(27123.45 + np.cumsum(rng.normal(0, 0.05, TICKS)), 2)
    return Market(names, T0 + np.arange(TICKS) * 10**6, price, rng.integers(1, 1000, TICKS) / 1000)


def json_messages(ticks: Market) -> list[bytes]:
    rows = zip(ticks.names, ticks.ts.tolist(), ticks.price.tolist(), ticks.size.tolist())
    return [
        b'{"symbol":"%b","ts":%d,"price":%b,"size":%b}' % (name.encode(), ts, repr(price).encode(), repr(size).encode())
        for name, ts, price, size in rows
    ]


def batch(messages: list[bytes]) -> RawBatch:
    length = np.array([len(message) for message in messages], np.int64)
    ends = np.cumsum(length)
    data = np.frombuffer(bytearray(b"".join(messages)), np.uint8)
    return RawBatch("ticks", 0, data, ends - length, ends, np.arange(len(messages)), np.full(len(messages), -1))


def batches(messages: list[bytes]) -> list[RawBatch]:
    return [batch(messages[first : first + BATCH]) for first in range(0, len(messages), BATCH)]


def arrow_batches(ticks: Market, *, dictionary: bool) -> list[RawBatch]:
    table = pa.table({"symbol": ticks.names, "ts": ticks.ts, "price": ticks.price, "size": ticks.size})
    if dictionary:
        table = table.set_column(0, "symbol", table["symbol"].dictionary_encode())
    made = []
    for first in range(0, TICKS, BATCH):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table.slice(first, BATCH))
        made.append(batch([sink.getvalue().to_pybytes()]))
    return made


def packed_batches(ticks: Market) -> list[RawBatch]:
    records = pack([name.encode() for name in ticks.names], ticks.ts, price=ticks.price, size=ticks.size)
    return [raw_of_packed("ticks", 0, records[first : first + BATCH], first) for first in range(0, TICKS, BATCH)]


class Tick(msgspec.Struct):
    symbol: str
    ts: int
    price: float
    size: float = 0.0


class Peer:
    """What one would write with msgspec: a struct per message, then columns."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self._decode = msgspec.json.Decoder(Tick).decode

    def decode(self, messages: list[bytes]) -> tuple[np.ndarray, ...]:
        decode, codes, count = self._decode, self._codes, len(messages)
        ticks = [decode(message) for message in messages]
        return (
            np.fromiter((codes.setdefault(tick.symbol, len(codes)) for tick in ticks), np.int32, count),
            np.fromiter((tick.ts for tick in ticks), np.int64, count),
            np.fromiter((tick.price for tick in ticks), np.float64, count),
            np.fromiter((tick.size for tick in ticks), np.float64, count),
        )


def decoder(kind: str) -> Decoder:
    return Decoder(CodecSettings.model_validate({"kind": kind, "max_message_bytes": 1 << 30}), SymbolTable(20_000))


def same(ticks: TickBatch, columns: tuple[np.ndarray, ...]) -> bool:
    ours = ticks.symbol, ticks.ts, ticks.price, ticks.size
    return all(np.array_equal(mine, theirs) for mine, theirs in zip(ours, columns, strict=True))


def check_equal(all_batches: list[RawBatch], kind: str, messages: list[bytes]) -> None:
    ours, peer = decoder(kind), Peer()
    for k, raw in enumerate(all_batches):
        ticks, rejects = ours.decode(raw)
        if len(rejects) or not same(ticks, peer.decode(messages[k * BATCH : (k + 1) * BATCH])):
            raise SystemExit(f"{kind} decoded to other columns than msgspec")


def each(decode: Callable[[Any], object], made: list[Any]) -> None:
    """One batch after the other, each result dropped before the next, as in a daemon."""
    for one in made:
        decode(one)


def main() -> list[Figure]:
    ticks = market()
    messages = json_messages(ticks)
    parts = [messages[first : first + BATCH] for first in range(0, TICKS, BATCH)]
    kinds = {
        "JSON, one tick a message": ("json", batches(messages), 250.0),
        "Arrow, 10,000 ticks a message, symbols as a dictionary": (
            "arrow",
            arrow_batches(ticks, dictionary=True),
            None,
        ),
        "Arrow, 10,000 ticks a message, symbols as text": ("arrow", arrow_batches(ticks, dictionary=False), None),
        "packed, one record a message": ("packed", packed_batches(ticks), None),
    }
    figures = []
    for name, (kind, made, bar) in kinds.items():
        check_equal(made, kind, messages)
        ours = decoder(kind)
        cost = cpu_ns_per(TICKS, partial(each, ours.decode, made))
        figures.append(Figure(name, cost, "ns/tick", bar))
    ours, peer, made = decoder("json"), Peer(), kinds["JSON, one tick a message"][1]
    ratio = paired_ratio(partial(each, peer.decode, parts), partial(each, ours.decode, made))
    note = "peer: msgspec structs, then numpy columns"
    return [
        *figures,
        Figure("JSON: msgspec over tickcast", ratio.median, "x", 4, "higher", ratio.low, ratio.high, note),
    ]


if __name__ == "__main__":
    for figure in main():
        print(figure)
