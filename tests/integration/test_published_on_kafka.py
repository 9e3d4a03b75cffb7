"""What stands in Kafka's topics: keys, values and headers as the schemas say; with `kafka.encoding = arrow` the records
of the JSON, each in its symbol's partition.
"""

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import DefaultPartitioner
from test_published_schemas import BAD, EVERY_RUNG, EXAMPLES
from test_published_schemas import ticks as messages_of

from brokerkit import KafkaBroker
from kafkakit import Deployment
from livekit import WAIT_S, alive, until
from schemakit import problems, valid
from tickcast.batch.synth import Market, json_messages
from tickcast.ui.documents.reference import TOPIC_MEANING

PARTITIONS = 3
SECONDS, SYMBOLS = 8, 9
TRACE = "00-0af7651916cd43dd8448eb211c80319c-%016x-01"
OF_THE_CLOCK = {"produced_ns", "age_ms"}


async def produced(deployment: Deployment) -> dict[tuple[int, int], str]:
    """Ticks, every one of which carries a trace of its own: partition and offset -> trace."""
    market, sent = Market(seed=3, symbols=SYMBOLS, tick_rate_hz=60), {}
    ticks = json_messages(market.ticks(market.start_ns + SECONDS * 10**9))
    async with AIOKafkaProducer(bootstrap_servers=deployment.broker.bootstrap) as producer, asyncio.timeout(WAIT_S):
        for k, (key, message) in enumerate(ticks):
            trace = TRACE % (k + 1)
            headers = [("traceparent", trace.encode())]
            sent[trace] = await producer.send(deployment.ticks, message, key=key.encode(), headers=headers)
        return {((where := await future).partition, where.offset): trace for trace, future in sent.items()}


async def test_arrow_messages_hold_the_records_of_the_json_in_their_symbols_partitions(
    kafka: KafkaBroker, tmp_path: Path
) -> None:
    both: dict[str, Deployment] = {}
    for encoding in ("json", "arrow"):
        both[encoding] = Deployment(
            kafka, tmp_path / encoding, partitions=PARTITIONS, ticks=both["json"].ticks if both else "",
            outputs=TOPIC_MEANING, kafka__delivery="exactly_once", kafka__encoding=encoding, window__lookback=8,
            forecast__horizon=3, features__publish=True,
        )  # fmt: skip
    traces = await produced(both["json"])
    async with AsyncExitStack() as stack:
        for deployment in both.values():
            daemon = await stack.enter_async_context(alive(deployment.daemon()))
            await until(lambda d=daemon: d.health().consumed >= len(traces), "all ticks to be consumed")
    for name in ("forecasts", "features"):
        plain = [json.loads(record.value) for record in await both["json"].read(name)]
        packed = await both["arrow"].read(name)
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
                wanted = pytest.approx(value, rel=1e-6) if key in ("scale", "sigma", "confidence", "values") else value
                assert row[key] == wanted, key


def flat(value: Any) -> list[float]:
    return [number for inner in value for number in flat(inner)] if isinstance(value, list) else [value]


async def test_keys_values_and_headers_are_as_the_schemas_and_the_page_say(kafka: KafkaBroker, tmp_path: Path) -> None:
    deployment = Deployment(kafka, tmp_path, partitions=2, outputs=TOPIC_MEANING, **EVERY_RUNG)
    sent = messages_of(15) + [("SYN0", bad) for bad in BAD]
    async with alive(deployment.daemon()) as daemon:
        async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
            for key, message in sent:
                await producer.send(deployment.ticks, message, key=key.encode())
        await until(lambda: daemon.health().consumed >= len(sent), "all ticks to be consumed")
    for name in ("forecasts", "features", "accuracy", "health"):
        found = await deployment.read(name)
        decoded = valid(name, [record.value for record in found])
        assert decoded, name
        for record, content in zip(found, decoded, strict=True):
            assert record.key == (content["symbol"].encode() if "symbol" in content else None)
    letters = await deployment.read("dlq")
    assert sorted(record.value for record in letters) == sorted(BAD)
    for record in letters:
        headers = {key: value.decode() for key, value in record.headers}
        assert not problems("dlq", headers)
        assert headers.keys() == EXAMPLES["dlq"].keys()
        assert (headers["topic"], record.key) == (deployment.ticks, b"SYN0")
