"""The two tools that meet a broker: a live synthetic market, and a replay of what a topic held between two times."""

import asyncio
import json
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import DefaultPartitioner

from brokerkit import KafkaBroker, unique
from kafkakit import read
from kafkanode import ask
from livekit import until
from modelkit import model_settings
from netkit import free_port
from tickcast.batch.replay import ReplayOrder, in_folder, replay
from tickcast.batch.synth import Market, json_messages
from tickcast.batch.topic_history import TopicHistory
from tickcast.clock import SetClock, SystemClock
from tickcast.columns import RawBatch
from tickcast.errors import EXIT_DIED, EXIT_OK, EXIT_REFUSED, BadData, BrokerAway, Reason
from tickcast.io.kafka import client
from tickcast.io.kafka.blob import Damaged
from tickcast.io.kafka.range_reader import SPARE_MS, RangeReader
from tickcast.io.tape.columns import Cut
from tickcast.settings import Settings
from tickcast.ui import produce, topics
from tickcast.ui.cli import main
from tickcast.ui.produce import Feed

SECOND, HOUR_MS = 10**9, 3_600_000
LIMIT_S = 90
USAGE = 2


def settings_for(kafka: KafkaBroker, folder: Path, topic: str, kind: str = "time", **overrides: object) -> Settings:
    """Of a deployment in `folder` that reads the topic."""
    where = {"kafka__bootstrap_servers": kafka.bootstrap, "topics__ticks": f'["{topic}"]', "features__set": "[]",
             "features__future": "[]"}  # fmt: skip
    return model_settings(kind, folder, **where, **overrides)


def new_topic(kafka: KafkaBroker, partitions: int = 1) -> str:
    """Kept for ever: some of these messages bear stamps that lie far back."""
    return kafka.create_topic(unique("ticks"), partitions, retention_ms=-1)


@asynccontextmanager
async def producer(kafka: KafkaBroker, **given: Any) -> AsyncIterator[AIOKafkaProducer]:
    made = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, acks="all", **given)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


async def send(
    kafka: KafkaBroker, topic: str, messages: list[tuple[str, bytes]], stamps_ms: list[int], *, partitions: int = 1
) -> None:
    """In batches of some hundred, each symbol to a partition of its own choice, each message with its stamp."""
    names = sorted({name for name, _ in messages})
    async with producer(kafka, max_batch_size=20_000) as made:
        sent = [
            await made.send(topic, text, key=name.encode(), partition=names.index(name) % partitions, timestamp_ms=at)
            for (name, text), at in zip(messages, stamps_ms, strict=True)
        ]
        await asyncio.gather(*sent)


def ends_of(kafka: KafkaBroker, topic: str, partitions: int) -> int:
    return sum(ask(kafka.bootstrap, lambda admin: admin.ends(topic, partitions)).values())


async def has_ticks(kafka: KafkaBroker, topic: str, count: int) -> bool:
    return await asyncio.to_thread(ends_of, kafka, topic, 2) >= count


def ticks(seconds: float = 60, *, rate_hz: float = 100.0, start_ns: int = 1_700_000_000 * SECOND) -> pl.DataFrame:
    market = Market(seed=3, symbols=6, tick_rate_hz=rate_hz, start_ns=start_ns)
    return market.ticks(market.start_ns + round(seconds * SECOND))


def stamps_of(frame: pl.DataFrame) -> list[int]:
    return [ts // 10**6 for ts in frame["ts"]]


async def run(settings: Settings, data: Path | str, out: Path, **order: Any) -> dict[str, Any]:
    async with asyncio.timeout(LIMIT_S):
        return await replay(in_folder(settings, out), ReplayOrder(data, out, **order))


def forecasts(out: Path) -> pl.DataFrame:
    return pl.read_parquet(out / "forecasts.parquet").sort("id")


# ---------------------------------------------------------------- synth --to kafka


async def test_the_market_arrives_tick_by_tick_keyed_by_symbol_with_the_times_of_now(
    kafka: KafkaBroker, tmp_path: Path
) -> None:
    topic, start_ns = new_topic(kafka, 3), SystemClock().now_ns()
    feed = Feed(symbols=6, seed=3, rate_hz=400.0, seconds=3)
    settings = settings_for(kafka, tmp_path, topic)
    sent = await produce.produce(settings, feed, clock=SetClock(start_ns), stop=asyncio.Event())
    found = await read(kafka, topic, 3)
    wanted = json_messages(ticks(3, rate_hz=400.0, start_ns=start_ns))
    assert sent == len(found) == len(wanted) > 300
    assert sorted((r.key.decode(), r.value) for r in found) == sorted(wanted)
    assert {r.partition for r in found} == {DefaultPartitioner()(r.key, [0, 1, 2], [0, 1, 2]) for r in found}
    for number in range(3):
        times = [json.loads(r.value)["ts"] for r in found if r.partition == number]
        assert times == sorted(times)
    behind_ns = [r.timestamp * 10**6 - json.loads(r.value)["ts"] for r in found]
    assert min(behind_ns) > -(10**6)  # the broker's stamps are whole milliseconds


async def test_at_full_speed_the_times_are_still_those_of_now_and_it_ends_when_told(
    kafka: KafkaBroker, tmp_path: Path
) -> None:
    topic, clock, stop = new_topic(kafka, 2), SystemClock(), asyncio.Event()
    before = clock.now_ns()
    feed = Feed(symbols=6, seed=3, rate_hz=0.0)
    async with asyncio.timeout(LIMIT_S):
        sending = asyncio.create_task(
            produce.produce(settings_for(kafka, tmp_path, topic), feed, clock=clock, stop=stop)
        )
        while not sending.done() and ends_of(kafka, topic, 2) <= 10_000:
            await asyncio.sleep(0.1)
        stop.set()
        sent = await sending
    after = clock.now_ns()
    assert sent == ends_of(kafka, topic, 2) > 10_000
    found = await read(kafka, topic, 2)
    times = np.array([json.loads(r.value)["ts"] for r in found if r.partition == 0])
    assert (np.diff(times) >= 0).all()
    assert before <= times[0] <= times[-1] <= after


async def test_no_tick_is_lost_or_doubled_while_the_broker_is_killed_and_comes_back(
    own_kafka: KafkaBroker, tmp_path: Path
) -> None:
    topic, stop = new_topic(own_kafka, 2), asyncio.Event()
    settings, feed = settings_for(own_kafka, tmp_path, topic), Feed(symbols=6, seed=3, rate_hz=500.0)
    sending = asyncio.create_task(produce.produce(settings, feed, clock=SystemClock(), stop=stop))
    await until(lambda: has_ticks(own_kafka, topic, 200), "ticks")
    own_kafka.kill()
    await asyncio.sleep(1)
    await asyncio.to_thread(own_kafka.restart)
    await until(lambda: has_ticks(own_kafka, topic, 1000), "more of them, those of the time without a broker too")
    stop.set()
    async with asyncio.timeout(LIMIT_S):
        sent = await sending
    found = await read(own_kafka, topic, 2)
    assert sent == len(found) == len({r.value for r in found}) >= 1000


async def test_the_command_says_how_it_goes_and_ctrl_c_ends_it_with_all_delivered(kafka: KafkaBroker) -> None:
    topic = new_topic(kafka, 2)
    where = ["--set", f"kafka.bootstrap_servers={kafka.bootstrap}", "--set", f'topics.ticks=["{topic}"]']
    command = [sys.executable, "-m", "tickcast", "synth", "--to", "kafka", "--symbols", "3", *where]
    child = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert child.stdout is not None
    try:
        async with asyncio.timeout(LIMIT_S):
            first = (await child.stdout.readline()).decode()
            child.send_signal(signal.SIGINT)
            rest = (await child.stdout.read()).decode().splitlines()
            assert await child.wait() == EXIT_OK
    finally:
        if child.returncode is None:
            child.kill()
    assert re.fullmatch(r"[\d,]+ ticks sent, [\d,]+/s\n", first)
    assert rest[-1] == f"{ends_of(kafka, topic, 2):,} ticks in {topic}"


def test_synth_refuses_what_cannot_be(
    kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(topics, "MAX_WAIT_S", 0.5)
    missing, nobody = unique("missing"), f"127.0.0.1:{free_port()}"
    here = ["--set", f"kafka.bootstrap_servers={kafka.bootstrap}"]
    assert main(["synth", "--to", "kafka", *here, "--set", f'topics.ticks=["{missing}"]']) == EXIT_REFUSED
    assert f"'{missing}' of topics.ticks does not exist" in capsys.readouterr().err
    assert main(["synth", "--to", "kafka", "--set", f"kafka.bootstrap_servers={nobody}"]) == EXIT_DIED
    said = capsys.readouterr().err
    assert said.count(nobody) >= 2  # while it waited, and at last
    assert "broker_away" in said
    assert main(["synth", "--out", "never.csv", "--rate", "max"]) == EXIT_REFUSED
    for neither_or_both in ([], ["--to", "kafka", "--out", "never.csv"]):
        with pytest.raises(SystemExit, match=str(USAGE)):
            main(["synth", *neither_or_both])
    assert not Path("never.csv").exists()


# ---------------------------------------------------------------- replay --from-kafka


@pytest.mark.parametrize("kind", ["time", "tick"])
async def test_a_topic_of_one_partition_gives_the_digest_of_a_file_with_the_same_ticks(
    kafka: KafkaBroker, tmp_path: Path, kind: str
) -> None:
    topic, frame, tape = new_topic(kafka), ticks(), tmp_path / "ticks.jsonl"
    messages = json_messages(frame)
    await send(kafka, topic, messages, stamps_of(frame))
    tape.write_bytes(b"\n".join(text for _, text in messages))
    settings = settings_for(kafka, tmp_path, topic, kind, runtime__deterministic="true")
    of_topic = await run(settings, topic, tmp_path / "topic", chunk=777)
    of_file = await run(settings, tape, tmp_path / "file")
    assert of_topic["digest"] == of_file["digest"]
    assert of_topic["consumed"] == of_topic["accepted"] == frame.height
    assert forecasts(tmp_path / "topic").height > 100
    assert not await client.committed(settings.kafka, [(topic, 0)])


async def test_several_partitions_come_in_one_order_however_they_are_fetched(
    kafka: KafkaBroker, tmp_path: Path
) -> None:
    topic, frame = new_topic(kafka, 3), ticks()
    await send(kafka, topic, json_messages(frame), stamps_of(frame), partitions=3)
    bytes_, found = "kafka__fetch_partition_bytes", []
    for overrides in ({}, {bytes_: 20_000}, {bytes_: 5_000}):
        settings = settings_for(kafka, tmp_path, topic, **overrides)
        found.append(await run(settings, topic, tmp_path / f"out{len(found)}", chunk=1000))
    assert len({summary["digest"] for summary in found}) == 1
    assert [summary["accepted"] for summary in found] == [frame.height] * 3
    other = await run(settings_for(kafka, tmp_path, topic), topic, tmp_path / "out4", chunk=37)
    assert other["accepted"] == frame.height
    one, two = forecasts(tmp_path / "out0"), forecasts(tmp_path / "out4")
    assert one["id"].equals(two["id"])  # the order between partitions changes no forecast
    np.testing.assert_allclose(two["quantiles"].explode().explode(), one["quantiles"].explode().explode(), rtol=1e-6)


async def test_a_partition_gets_no_further_ahead_of_the_others_than_a_slice(kafka: KafkaBroker, tmp_path: Path) -> None:
    topic, frame = new_topic(kafka, 3), ticks()
    await send(kafka, topic, json_messages(frame), stamps_of(frame), partitions=3)
    ahead_ns, newest = [], {}
    async with RangeReader.open(settings_for(kafka, tmp_path, topic).kafka, topic, partitions=3, from_ns=None,
                                to_ns=None) as reader:  # fmt: skip
        async for turn in reader.turns(500):
            assert sum(len(item) for item in turn if isinstance(item, RawBatch)) <= 500
            for raw in turn:
                assert isinstance(raw, RawBatch)
                newest[raw.partition] = int(raw.stamps_ns[-1])
                ahead_ns.append(newest[raw.partition] - min(newest.values()))
        assert reader.passed == reader.offsets == frame.height
    assert set(newest) == {0, 1, 2}
    assert max(ahead_ns) < 2.5 * SECOND  # a slice, and the silence between two ticks


async def test_start_and_end_cut_by_event_time_and_only_what_is_near_is_read(
    kafka: KafkaBroker, tmp_path: Path
) -> None:
    """Five hours of ticks, one in two seconds; asked for is the third."""
    topic, start_ns = new_topic(kafka, 2), 1_700_000_000 * SECOND
    frame = ticks(5 * 3600, rate_hz=0.5, start_ns=start_ns)
    start, end = start_ns + 2 * 3600 * SECOND + 1, start_ns + 3 * 3600 * SECOND + 1
    # Each tick arrives half a minute late, and what is no tick counts by its stamp: one of the two is wanted.
    arrived = list(zip([at + 30_000 for at in stamps_of(frame)], json_messages(frame), strict=True))
    arrived += [(at // 10**6 + 5, ("SYN0", b"{")) for at in (start, end)]
    arrived.sort()
    await send(kafka, topic, [message for _, message in arrived], [at for at, _ in arrived], partitions=2)
    settings = settings_for(kafka, tmp_path, topic, bars__every_ms=60_000)
    wanted = frame.filter((pl.col("ts") >= start) & (pl.col("ts") < end))
    found = await run(settings, topic, tmp_path / "out", from_ns=start, to_ns=end)
    assert (found["accepted"], found["reasons"]) == (wanted.height, {"malformed": 1})
    only = await run(settings, topic, tmp_path / "only", from_ns=start, to_ns=end, symbols=["SYN0", "SYN[34]"])
    assert only["accepted"] == wanted.filter(pl.col("symbol").is_in(["SYN0", "SYN3", "SYN4"])).height > 100
    assert only["symbols"] == 3
    async with RangeReader.open(settings.kafka, topic, partitions=2, from_ns=start, to_ns=end) as reader:
        read = [raw async for turn in reader.turns(10_000) for raw in turn if isinstance(raw, RawBatch)]
    seen = np.concatenate([raw.stamps_ns for raw in read]) // 10**6
    assert start // 10**6 - SPARE_MS <= seen.min() < start // 10**6 - SPARE_MS + 60_000
    assert end // 10**6 + SPARE_MS - 60_000 < seen.max() < end // 10**6 + SPARE_MS


async def test_history_that_was_filled_in_later_is_found_by_its_event_times(kafka: KafkaBroker, tmp_path: Path) -> None:
    topic, frame, now_ms = new_topic(kafka), ticks(), SystemClock().now_ns() // 10**6
    await send(kafka, topic, json_messages(frame), [now_ms] * frame.height)
    start = int(frame["ts"][0]) + 20 * SECOND
    settings = settings_for(kafka, tmp_path, topic)
    found = await run(settings, topic, tmp_path / "out", from_ns=start, to_ns=start + 10 * SECOND)
    assert found["accepted"] == frame.filter(pl.col("ts").is_between(start, start + 10 * SECOND, closed="left")).height


async def test_it_ends_at_what_was_committed_when_it_began(kafka: KafkaBroker, tmp_path: Path) -> None:
    """Behind the last tick stand an aborted transaction, the marks of both, and one that is open."""
    topic, frame = new_topic(kafka), ticks(20)
    messages = [text for _, text in json_messages(frame)]
    settings = settings_for(kafka, tmp_path, topic)
    async with producer(kafka, transactional_id=unique("writer")) as made:
        async with made.transaction():
            await asyncio.gather(*[await made.send(topic, text) for text in messages])
        await made.begin_transaction()
        await made.send_and_wait(topic, b"aborted")
        await made.abort_transaction()
        await made.begin_transaction()
        await made.send_and_wait(topic, b"open")
        found = await run(settings, topic, tmp_path / "out")
        await made.abort_transaction()
    assert found["consumed"] == found["accepted"] == frame.height


async def test_it_goes_on_where_it_was_when_the_broker_comes_back(own_kafka: KafkaBroker, tmp_path: Path) -> None:
    topic, frame = new_topic(own_kafka, 2), ticks()
    await send(own_kafka, topic, json_messages(frame), stamps_of(frame), partitions=2)
    settings = settings_for(own_kafka, tmp_path, topic, kafka__fetch_partition_bytes=5_000)
    seen: list[tuple[int, int]] = []
    async with RangeReader.open(settings.kafka, topic, partitions=2, from_ns=None, to_ns=None) as reader:
        async with asyncio.timeout(LIMIT_S):
            async for turn in reader.turns(1000):
                if not seen:
                    await asyncio.to_thread(own_kafka.restart)
                seen += [(raw.partition, int(at)) for raw in turn if isinstance(raw, RawBatch) for at in raw.offsets]
    assert len(seen) == frame.height
    for number in range(2):
        offsets = [at for partition, at in seen if partition == number]
        assert offsets == list(range(len(offsets)))


async def test_a_topic_without_a_tick_of_that_time_is_refused(kafka: KafkaBroker, tmp_path: Path) -> None:
    topic, frame = new_topic(kafka, 2), ticks(5)
    settings = settings_for(kafka, tmp_path, topic)
    with pytest.raises(BadData, match="widen --start"):
        await run(settings, topic, tmp_path / "empty")
    await send(kafka, topic, json_messages(frame), stamps_of(frame))
    with pytest.raises(BadData, match="widen --start"):
        await run(settings, topic, tmp_path / "before", to_ns=int(frame["ts"][0]) - HOUR_MS)


async def test_a_batch_that_cannot_be_read_is_counted_as_corrupt(kafka: KafkaBroker, tmp_path: Path) -> None:
    topic = new_topic(kafka)
    settings = settings_for(kafka, tmp_path, topic)
    async with TopicHistory.open(settings, topic, Cut(), chunk=1_000) as history:
        (letters,) = history.events([Damaged(topic, 0, 5, 9, "the checksum does not match the bytes", b"spoilt")])
    assert letters.rejects.reason.tolist() == [Reason.CORRUPT]  # type: ignore[union-attr]
    assert letters.raw.message(0) == b"spoilt"  # type: ignore[union-attr]


def test_the_commands_from_market_to_report(
    kafka: KafkaBroker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    topic, missing = new_topic(kafka, 4), unique("missing")
    where = ["--set", f"kafka.bootstrap_servers={kafka.bootstrap}", "--set", f'topics.ticks=["{topic}"]']
    made = ["--symbols", "5", "--seconds", "3", "--seed", "9", "--rate", "300"]
    assert main(["synth", "--to", "kafka", *made, *where]) == EXIT_OK
    sent = int(re.findall(rf"([\d,]+) ticks in {topic}", capsys.readouterr().out)[0].replace(",", ""))
    out, short = tmp_path / "out", ["--set", "bars.every_ms=200", "--set", f"runtime.folder={tmp_path}"]
    times = ["--start", "2020-01-01T00:00:00Z", "--end", "2100-01-01T00:00:00Z"]
    assert main(["replay", "--from-kafka", topic, *times, "--out", str(out), *short, *where]) == EXIT_OK
    report = json.loads((out / "report.json").read_text())
    assert (report["title"], report["consumed"], report["accepted"]) == (f"Replay of {topic}", sent, sent)
    assert report["symbols"] == 5
    assert report["forecasts"] == pl.read_parquet(out / "forecasts.parquet").height > 10
    assert main(["replay", "--from-kafka", missing, *where]) == EXIT_REFUSED
    assert f"'{missing}' of --from-kafka does not exist" in capsys.readouterr().err
    for neither_or_both in ([], ["--from-kafka", topic, "--data", str(out)]):
        with pytest.raises(SystemExit, match=str(USAGE)):
            main(["replay", *neither_or_both])


async def test_a_broker_that_stays_away_ends_it_with_a_message(own_kafka: KafkaBroker, tmp_path: Path) -> None:
    topic, frame = new_topic(own_kafka, 2), ticks()
    await send(own_kafka, topic, json_messages(frame), stamps_of(frame), partitions=2)
    settings = settings_for(
        own_kafka, tmp_path, topic, kafka__fetch_partition_bytes=5_000, kafka__watchdog_s=1, kafka__call_timeout_s=1
    )
    with pytest.raises(BrokerAway):  # noqa: PT012
        async with asyncio.timeout(LIMIT_S):
            async with RangeReader.open(settings.kafka, topic, partitions=2, from_ns=None, to_ns=None) as reader:
                async for _ in reader.turns(500):
                    own_kafka.kill()
