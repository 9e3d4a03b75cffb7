"""Framed batches equal those of aiokafka's own builder, byte for byte, whatever the messages are."""

import numpy as np
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import example, given
from hypothesis import strategies as st

from tickcast.columns import Encoded
from tickcast.io.kafka.framing import Framer
from tickcast.io.kafka.publish import HEADER_BYTES, TRACE_BYTES
from tickcast.symbols import NAME_BYTES, SymbolTable

NAMES = st.text(min_size=1, max_size=20).filter(lambda name: 0 < len(name.encode("utf-8", "ignore")) <= NAME_BYTES)
BORDERS = st.sampled_from([0, 1, 40, 57, 63, 64, 120, 8_100, 8_170, 8_191, 8_192])  # around those of varints
ROWS = st.lists(
    st.tuples(st.integers(0, 5), BORDERS | st.integers(0, 400), st.booleans()), max_size=150
)  # symbol, bytes of the value, whether it is traced
STAMP_MS = st.integers(0, 1 << 60)
SIX = ["a", "b", "c", "d", "x" * 4, "y" * 31]
TWO_OF_308_BYTES = [(5, 63, True), (4, 64, False)]  # they fill one batch to its last byte


def theirs(rows, values, trace_of, names, *, partitions, limit, stamp_ms):
    """The batches per partition and the rows left out, by aiokafka's builder and partitioner."""
    finished, open_builders, left_out = {}, {}, []
    for row, (symbol, _, traced) in enumerate(rows):
        key = names[symbol].encode()
        partition = DefaultPartitioner()(key, list(range(partitions)), [])
        headers = [("traceparent", trace_of(row))] if traced else []
        builder, count = open_builders.get(partition, (None, 0))
        if builder is None or builder.append(count, stamp_ms, key, values[row], headers) is None:
            fresh, count = new_builder(limit), 0
            if HEADER_BYTES + fresh.size_in_bytes(0, stamp_ms, key, values[row], headers) > limit:
                left_out.append(row)
                continue
            assert fresh.append(0, stamp_ms, key, values[row], headers) is not None
            finished.setdefault(partition, []).append(fresh)
            builder = fresh
        open_builders[partition] = builder, count + 1
    return {partition: [bytes(b.build()) for b in builders] for partition, builders in finished.items()}, left_out


def new_builder(limit):
    return DefaultRecordBatchBuilder(
        magic=2, compression_type=0, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=0,
        batch_size=limit + 1,  # the compiled builder never uses the last byte that it is given; its Python twin would
    )  # fmt: skip


def columns(rows, names):
    rng = np.random.default_rng(len(rows))
    data = rng.integers(0, 256, sum(size for _, size, _ in rows) + TRACE_BYTES * len(rows) + 1).astype(np.uint8)
    ends = np.cumsum([size for _, size, _ in rows], dtype=np.int64)
    starts = ends - np.array([size for _, size, _ in rows], np.int64)
    symbols = SymbolTable(8)
    codes = [symbols.code(name) for name in names]
    symbol = np.array([codes[k] for k, _, _ in rows], np.int32)
    traces = np.array([7 * row if traced else -1 for row, (_, _, traced) in enumerate(rows)], np.int64)
    return Encoded(data, starts, ends, symbol), symbols, traces


@given(
    rows=ROWS, names=st.lists(NAMES, min_size=6, max_size=6), partitions=st.integers(1, 7),
    limit=st.integers(140, 20_000), stamp_ms=STAMP_MS,
)  # fmt: skip
@example(rows=TWO_OF_308_BYTES, names=SIX, partitions=1, limit=307, stamp_ms=0)
@example(rows=TWO_OF_308_BYTES, names=SIX, partitions=1, limit=308, stamp_ms=0)
@example(rows=TWO_OF_308_BYTES, names=SIX, partitions=1, limit=309, stamp_ms=0)
def test_uncompressed_batches_equal_those_of_the_clients_own_builder(rows, names, partitions, limit, stamp_ms):
    encoded, symbols, traces = columns(rows, names)
    values = [encoded.data[first:last].tobytes() for first, last in zip(encoded.starts, encoded.ends)]
    expected, left_out = theirs(
        rows, values, lambda row: encoded.data[7 * row : 7 * row + TRACE_BYTES].tobytes(), names,
        partitions=partitions, limit=limit, stamp_ms=stamp_ms,
    )  # fmt: skip
    framer = Framer(partitions, max_batch_bytes=limit, compression="none")
    found = {}
    for batch in framer.frame(encoded, symbols, stamp_ms, (encoded.data, traces)):
        found.setdefault(batch.partition, []).append(bytes(batch._build()))
    assert found == expected
    assert max((len(batch) for batches in found.values() for batch in batches), default=0) <= limit
    assert len(framer.take_skipped()) == len(left_out)


@given(rows=ROWS, names=st.lists(NAMES, min_size=6, max_size=6), partitions=st.integers(1, 3))
def test_compressed_batches_hold_the_records_of_uncompressed_ones(rows, names, partitions):
    encoded, symbols, traces = columns(rows, names)
    encoded.data[:] %= 3  # so that something is compressed
    read = []
    for compression in ("lz4", "none"):
        framer = Framer(partitions, max_batch_bytes=20_000, compression=compression)
        batches = framer.frame(encoded, symbols, 1, (encoded.data, traces))
        assert not framer.take_skipped()
        read.append([(batch.partition, *contents(batch)) for batch in batches])
    assert read[0] == read[1]


def contents(batch):
    built = MemoryRecords(bytes(batch._build())).next_batch()
    assert built.validate_crc()
    return [(record.offset, record.timestamp, record.key, record.value, record.headers) for record in built]
