"""What `make fuzz` drives: for each a corpus, what is done with a mutated input, and what must hold whatever it is.

A target feeds `n` inputs, tells each to `note` before it is taken, and raises where a promise is broken.
"""

import json
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import cramjam
import numpy as np
import pyarrow as pa

import controlkit
import wirekit
from fuzz_mutations import WHOLE, Dice, mutated
from packing import pack
from tickcast.columns import RawBatch
from tickcast.engine.codec.decode import Decoder
from tickcast.errors import CommandFault, CommandRefused, Reason
from tickcast.live.commands.arguments import ACCEPTED, parse
from tickcast.settings.stream import CodecSettings
from tickcast.symbols import SymbolTable

Note = Callable[[bytes], None]
Target = Callable[[np.random.Generator, int, Note], None]
RUN = 400  # ticks of one market
TOGETHER = 8  # messages of a batch: what one does must not reach the others
SYMBOLS = 2000  # of a table, before it is thrown away
T0 = 1_700_000_000 * 10**9
FAULTS = {fault.value for fault in CommandFault}

JSON = [
    b'{"symbol": "BTCUSDT", "ts": 1700000000000000000, "price": 36500.1, "size": 0.25}',
    b'{"symbol":"EURUSD","ts":"2023-11-14T22:13:20.5Z","bid":"1.0871","ask":"1.0873","sequence":7,"x":{"y":[1,{}]}}',
    b'{"price":1e-3,"more":[[],"\\u00e9"],"symbol":"\\u0041\xc3\xa9","ts":1.7e18}',
]
BINANCE = [
    b'{"e":"trade","E":1723161453860,"s":"BTCUSDT","t":1,"p":"61733.14","q":"0.76118","T":1723161453859,"m":true}',
    b'{"stream":"b@trade","data":{"e":"trade","s":"BTCUSDT","p":"61733.14","q":"0.76118","T":1723161453859}}',
    b'{"u":50093239212,"s":"BTCUSDT","b":"61837.63","B":"3.78826","a":"61837.64","A":"1.54698"}',
]
COINBASE = [
    b'{"type":"match","trade_id":10,"sequence":50,"time":"2014-11-07T08:19:27.028459Z","product_id":"BTC-USD",'
    b'"size":"5.23512","price":"400.23","side":"sell"}',
]
TRADE = b'{"symbol":"BTC/USD","side":"buy","price":26000.1,"qty":0.5,"timestamp":"2023-09-25T07:49:37.708706Z"}'
KRAKEN = [b'{"channel":"trade","type":"update","data":[%s]}' % b",".join([TRADE] * n) for n in (1, 2, 5)]


def packed_corpus() -> list[bytes]:
    return [
        bytes(pack([b"S%d" % k for k in range(n)], np.arange(n) + T0, price=1.5, size=1.0, bid=1.0, ask=2.0).tobytes())
        for n in (1, 2, 9)
    ]


def arrow_corpus() -> list[bytes]:
    plain: dict[str, Any] = {"symbol": ["A", "B", None], "ts": [T0, T0 + 1, T0 + 2], "price": [1.5, None, 2.5]}
    texts = plain | {"ts": ["2023-11-14T22:13:20Z", "7", None], "price": ["1.5", "x", "2"], "sequence": [1, None, 3]}
    coded = plain | {"symbol": pa.array(["A", "B", "A"]).dictionary_encode()}
    other = plain | {
        "more": [[1], [], None],
        "time": pa.array([1, 2, 3], pa.timestamp("us")),
        "ok": [True, None, False],
    }
    viewed = plain | {"symbol": pa.array(["A", "a longer name than twelve", None], pa.string_view()), "bid": [1, 2, 3]}
    tables = [pa.table(columns) for columns in (plain, texts, coded, other, viewed)]
    return [
        _stream([table] * times, compression)
        for table in tables
        for times in (1, 2)
        for compression in (None, "lz4", "zstd")
    ]


def _stream(tables: Sequence[pa.Table], compression: str | None) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, tables[0].schema, options=options) as stream:
        for table in tables:
            stream.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def decoding(corpus: Sequence[bytes], **codec: Any) -> Target:
    settings = CodecSettings(**codec)

    def target(rng: np.random.Generator, n: int, note: Note) -> None:
        dice, symbols = Dice(rng), SymbolTable(SYMBOLS)
        decoder = Decoder(settings, symbols)
        for _ in range(0, n, TOGETHER):
            messages = [mutated(dice, corpus) for _ in range(TOGETHER)]
            note(b"\n--\n".join(messages))
            if len(symbols) > SYMBOLS // 2:
                symbols = SymbolTable(SYMBOLS)
                decoder = Decoder(settings, symbols)
            raw = _raw(messages, dice)
            with np.errstate(all="ignore"):
                _judge(raw, *decoder.decode(raw), symbols)

    return target


def _raw(messages: Sequence[bytes], dice: Dice) -> RawBatch:
    lengths = np.array([len(message) for message in messages], np.int64)
    ends = np.cumsum(lengths)
    stamps = np.array([dice.pick((-1, T0, *WHOLE)) for _ in messages], np.int64)
    data = np.frombuffer(bytearray(b"".join(messages)), np.uint8)
    return RawBatch("t", 0, data, ends - lengths, ends, np.arange(len(messages)), stamps)


def _judge(raw: RawBatch, ticks: Any, rejects: Any, symbols: SymbolTable) -> None:
    both = np.concatenate([ticks.row, rejects.row])
    assert np.array_equal(np.unique(both), np.arange(len(raw))), "a message came to nothing, or from nowhere"
    assert (np.diff(ticks.row) >= 0).all()
    assert (np.diff(rejects.row) >= 0).all()
    assert len(set(zip(both.tolist(), np.concatenate([ticks.number, rejects.number]).tolist()))) == len(both)
    assert not len(ticks) or (ticks.symbol.min() >= 0 and ticks.symbol.max() < len(symbols))
    assert all(Reason(reason).name for reason in set(rejects.reason.tolist()) if 0 < reason < Reason.LATE)
    assert (rejects.reason > 0).all()


PACK: dict[int, Callable[[bytes], Any]] = {
    wirekit.NONE: bytes, wirekit.GZIP: cramjam.gzip.compress, wirekit.SNAPPY: cramjam.snappy.compress_raw,
    wirekit.LZ4: cramjam.lz4.compress, wirekit.ZSTD: cramjam.zstd.compress,
}  # fmt: skip


def record_batches(rng: np.random.Generator, n: int, note: Note) -> None:
    """Damage to batches as they travel, with a checksum that fits or not; and to records before they are compressed."""
    dice = Dice(rng)
    messages = [wirekit.Message(b"value" * k, b"key", [("traceparent", wirekit.TRACE)]) for k in range(20)]
    corpus = [wirekit.batch(messages, codec=codec) for codec in wirekit.CODECS] + [
        wirekit.batch([]),
        wirekit.batch(messages[:1]),
    ]
    bodies = [made[wirekit.BODY :] for made in (wirekit.batch(messages), wirekit.batch(messages[:2]))]
    for _ in range(n):
        if dice.share() < 0.4:
            codec, body = dice.pick(wirekit.CODECS), mutated(dice, bodies)
            count = dice.pick((20, 2, dice.pick(WHOLE) & 0x7FFFFFFF))
            made = wirekit.framed(
                bytes(PACK[codec](body)), count=count, codec=codec, last=dice.pick((19, count & 0xFFFF))
            )
        else:
            made = mutated(dice, corpus)
            if len(made) >= wirekit.BODY and dice.share() < 0.6:
                made = wirekit.bent(made)
        data = made + dice.pick(corpus)
        note(data)
        wirekit.judge(data, dice.pick((0, 0, 5, 1 << 62)), [(-1, 0)] if dice.share() < 0.2 else [])


def envelopes(rng: np.random.Generator, n: int, note: Note) -> None:
    """Strangers' bytes, and what a friend may sign."""
    dice = Dice(rng)
    good = [
        controlkit.sealed("forecast", {"symbols": ["A", "é"], "model": "m"}),
        controlkit.sealed("train", {"kind": "linear", "params": {"a": [1, 2.5, None]}, "seed": 7}, role="shared"),
    ]
    bodies = [json.loads(raw)["body"].encode() for raw in good]
    for k in range(n):
        raw = mutated(dice, good)
        if k % 2:
            body = mutated(dice, bodies).decode("utf-8", "replace")
            raw = controlkit.signed_anew(dice.pick(good), body=body)
        note(raw)
        _refused_or_done(lambda raw=raw: controlkit.opened(raw))  # type: ignore[misc]


def command_arguments(rng: np.random.Generator, n: int, note: Note) -> None:
    dice = Dice(rng)
    fields = {command: kind.__struct_encode_fields__ for command, (kind, _) in ACCEPTED.items()}
    values: list[Any] = ["", "x" * 400, "../a", [], {}, [[]] * 70, {"a": {"b": [1]}}, None, True, 1.5, *WHOLE, 1 << 70]
    for _ in range(n):
        command = dice.pick(list(ACCEPTED))
        names = [name for name in (*fields[command], "more") if dice.share() < 0.3]
        args = {name: dice.pick(values) for name in names}
        note(repr((command, args)).encode())
        _refused_or_done(lambda command=command, args=args: parse(command, args))  # type: ignore[misc]


def _refused_or_done(does: Callable[[], object]) -> None:
    try:
        does()
    except CommandRefused as refused:
        if refused.code not in FAULTS:
            raise


def ticks(rng: np.random.Generator, n: int, note: Note) -> None:
    from fuzz_fold import fuzz_fold

    for fed in range(0, n, RUN):
        note(b"from tick %d on, made of the seed alone" % fed)
        fuzz_fold(rng, RUN)


def one_after_the_other(rng: np.random.Generator, n: int, note: Note) -> None:
    """All of them in one process, for a short run."""
    for target, share in TARGETS.values():
        if share:
            target(rng, round(n * share), note)


TARGETS: dict[str, tuple[Target, float]] = {  # with their shares of all inputs
    "json": (decoding(JSON, fields={"sequence": "sequence"}), 0.15),
    "binance-trade": (decoding(BINANCE, preset="binance-trade"), 0.05),
    "binance-bookticker": (decoding(BINANCE, preset="binance-bookticker"), 0.05),
    "coinbase-match": (decoding(COINBASE, preset="coinbase-match"), 0.05),
    "kraken-trade": (decoding(KRAKEN, preset="kraken-trade"), 0.05),
    "packed": (decoding(packed_corpus(), kind="packed"), 0.1),
    "arrow": (decoding(arrow_corpus(), kind="arrow", fields={"sequence": "sequence"}), 0.2),
    "batches": (record_batches, 0.15),
    "envelope": (envelopes, 0.05),
    "arguments": (command_arguments, 0.05),
}  # fmt: skip
if find_spec("fuzz_fold"):
    TARGETS["fold"] = ticks, 0.1
TARGETS["all"] = one_after_the_other, 0
