"""With `kafka.encoding = arrow` the same ticks give the same records as in JSON, each in its symbol's partition."""

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.partitioner import DefaultPartitioner

from brokerkit import KafkaBroker, unique
from livekit import WAIT_S, alive, live_settings, until
from tickcast.batch.synth import Market, json_messages
from tickcast.clock import SystemClock
from tickcast.live.buses.kafka import KafkaBus
from tickcast.live.daemon import Daemon
from tickcast.settings import Settings
from tickcast.ui.documents.reference import TOPIC_MEANING

PARTITIONS = 3
SECONDS, SYMBOLS = 8, 9
TRACE = "00-0af7651916cd43dd8448eb211c80319c-%016x-01"
OF_THE_CLOCK = {"produced_ns", "age_ms"}


def settings_of(encoding: str, folder: Path, prefix: str, broker: KafkaBroker) -> Settings:
    folder.mkdir()
    return live_settings(
        folder, bus__kind="kafka", kafka__bootstrap_servers=broker.bootstrap, kafka__group=prefix + encoding,
        kafka__delivery="exactly_once", kafka__encoding=encoding, topics__prefix=f"{prefix}{encoding}.",
        topics__ticks=f'["{prefix}ticks"]', window__lookback=8, forecast__horizon=3, features__publish="true",
    )  # fmt: skip


async def produced(broker: KafkaBroker, topic: str) -> dict[tuple[int, int], str]:
    """Ticks, every one of which carries a trace of its own: partition and offset -> trace."""
    market, sent = Market(seed=3, symbols=SYMBOLS, tick_rate_hz=60), {}
    ticks = json_messages(market.ticks(market.start_ns + SECONDS * 10**9))
    async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap) as producer, asyncio.timeout(WAIT_S):
        for k, (key, message) in enumerate(ticks):
            trace = TRACE % (k + 1)
            headers = [("traceparent", trace.encode())]
            sent[trace] = await producer.send(topic, message, key=key.encode(), headers=headers)
        return {((where := await future).partition, where.offset): trace for trace, future in sent.items()}


async def records_of(broker: KafkaBroker, settings: Settings, name: str) -> list[Any]:
    found: list[Any] = []
    async with AIOKafkaConsumer(
        settings.topics.prefix + name, bootstrap_servers=broker.bootstrap, auto_offset_reset="earliest",
        isolation_level="read_committed",
    ) as consumer, asyncio.timeout(WAIT_S):  # fmt: skip
        ends = await consumer.end_offsets(consumer.assignment())
        while any([await consumer.position(partition) < end for partition, end in ends.items()]):
            for got in (await consumer.getmany(timeout_ms=500)).values():
                found += got
    return found


async def test_arrow_messages_hold_the_records_of_the_json_in_their_symbols_partitions(
    kafka: KafkaBroker, tmp_path: Path
) -> None:
    prefix = unique("arrow") + "."
    ticks = kafka.create_topic(prefix + "ticks", PARTITIONS)
    both = {name: settings_of(name, tmp_path / name, prefix, kafka) for name in ("json", "arrow")}
    for settings in both.values():
        for name in TOPIC_MEANING:
            kafka.create_topic(settings.topics.prefix + name, PARTITIONS)
    traces = await produced(kafka, ticks)
    async with AsyncExitStack() as stack:
        for settings in both.values():
            daemon = await stack.enter_async_context(alive(Daemon(settings, KafkaBus(settings), clock=SystemClock())))
            await until(lambda d=daemon: d.health().consumed >= len(traces), "all ticks to be consumed")
    for name in ("forecasts", "features"):
        plain = [json.loads(record.value) for record in await records_of(kafka, both["json"], name)]
        packed = await records_of(kafka, both["arrow"], name)
        rows = [rows_of(record, traces) for record in packed]
        assert len(packed) < len(plain)
        assert_equal([row for some in rows for row in some], plain)


def rows_of(record: Any, traces: dict[tuple[int, int], str]) -> list[dict[str, Any]]:
    """The rows of a message, which is keyed, placed and traced as the docs say."""
    rows: list[dict[str, Any]] = pa.ipc.open_stream(record.value).read_all().to_pylist()
    assert record.key.decode() == rows[0]["symbol"]
    for row in rows:
        assert record.partition == DefaultPartitioner()(row["symbol"].encode(), list(range(PARTITIONS)), [])
    source = rows[0]["source"]
    assert list(record.headers) == [("traceparent", traces[source["partition"], source["offset"]].encode())]
    return rows


def assert_equal(rows: list[dict[str, Any]], records: list[dict[str, Any]]) -> None:
    """All but what hangs on the clock; prices within a ten millionth of the one-bar move, figures to 7 digits."""

    def by_question(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return sorted(found, key=lambda row: (row["symbol"], row["as_of_ns"], row["tie"]))

    for row, record in zip(by_question(rows), by_question(records), strict=True):
        assert list(row) == list(record)
        near = 1e-7 * record.get("scale", 0) * record.get("anchor", 0)
        for key, value in record.items():
            if key in ("quantiles", "point", "anchor"):
                for ours, theirs in zip(flat(row[key]), flat(value), strict=True):
                    assert ours == pytest.approx(theirs, rel=0, abs=2 * near)
            elif key not in OF_THE_CLOCK:
                wanted = pytest.approx(value, rel=1e-6) if key in ("scale", "confidence", "values") else value
                assert row[key] == wanted, key


def flat(value: Any) -> list[float]:
    return [number for inner in value for number in flat(inner)] if isinstance(value, list) else [value]
