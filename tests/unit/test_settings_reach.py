"""Settings that are only handed on arrive where they are used: each is changed, and the difference is seen."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from codec_messages import decode, rows
from structlog.testing import capture_logs

from argumentskit import SECOND, T0, messages, model_in, settings_of
from livekit import running
from tapekit import csv, records, settings
from tickcast.columns import Encoded
from tickcast.errors import BadSettings, StoreStalled
from tickcast.io.kafka import client
from tickcast.io.kafka.consumer import Consumer
from tickcast.io.kafka.delivery import Delivery
from tickcast.io.kafka.framing import framer
from tickcast.io.kafka.publish import ReadyBatch
from tickcast.settings.buses import KafkaSecurity, KafkaSettings
from tickcast.settings.stream import CodecSettings, Fields
from tickcast.symbols import SymbolTable


def batch(bus: KafkaSettings) -> Any:
    symbols = SymbolTable(4)
    code = np.array([symbols.code("A")], np.int32)
    values = Encoded(np.zeros(500, np.uint8), np.zeros(1, np.int64), np.full(1, 500, np.int64), code)
    (framed,) = framer(bus, 1).frame(values, symbols, 1)
    return framed


def test_kafka_compression_packs_what_is_published() -> None:
    assert isinstance(batch(KafkaSettings()), ReadyBatch)
    assert batch(KafkaSettings(compression="lz4")).size() < 500 < batch(KafkaSettings(compression="none")).size()


async def test_kafka_fetch_max_bytes_bounds_the_client() -> None:
    reader = Consumer(KafkaSettings(fetch_max_bytes=70_000))
    assert reader.client._fetch_max_bytes == 70_000
    await reader.stop()


async def test_kafka_in_flight_bytes_fills_the_outbox() -> None:
    small, large = (Delivery(KafkaSettings(in_flight_bytes=most), max_away_s=1.0) for most in (100, 10_000))
    for delivery in (small, large):
        delivery._outbox.in_flight_bytes = 500
    assert (small._outbox._is_full(), large._outbox._is_full()) == (True, False)
    for delivery in (small, large):
        await asyncio.gather(delivery._fence.stop(), delivery._plain.stop())


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
def test_kafka_security_mechanism_proves_who_we_are(tmp_path: Path, mechanism: Any) -> None:
    (tmp_path / "password").write_text("secret")
    given = {"protocol": "SASL_PLAINTEXT", "username": "u", "password_file": tmp_path / "password"}
    assert client.security(KafkaSecurity(**given, mechanism=mechanism))["sasl_mechanism"] == mechanism


def test_kafka_security_cert_file_is_read(tmp_path: Path) -> None:
    assert client.security(KafkaSecurity(protocol="SSL"))["ssl_context"]
    with pytest.raises(BadSettings, match=r"cert_file"):
        client.security(KafkaSecurity(protocol="SSL", cert_file=tmp_path / "nowhere"))


def test_codec_fields_name_both_sides_of_a_quote() -> None:
    message = b'{"symbol":"A","ts":1700000000000000000,"price":2.0,"b":1.0,"a":3.0,"bid":5.0,"ask":7.0}'
    mapped, _, symbols = decode([message], CodecSettings(fields=Fields(bid="b", ask="a")))
    plain, _, _ = decode([message], CodecSettings(), symbols=symbols)
    assert [rows(ticks, symbols)[0][4:] for ticks in (mapped, plain)] == [(1.0, 3.0), (5.0, 7.0)]


def test_codec_fields_name_the_columns_of_bars(tmp_path: Path) -> None:
    path = csv(tmp_path, "symbol,ts,o,h,l,c,v,x\nA,1700000000000000000,3,5,1,4,8,2\n")
    names = {"open": "o", "high": "h", "low": "l", "close": "c", "volume": "v"}
    fields = {f"codec__fields__{key}": name for key, name in names.items()}
    plain = records(path, settings(**fields))
    for key in names:
        other = records(path, settings(**fields | {f"codec__fields__{key}": "x"}))
        assert other.tobytes() != plain.tobytes(), key


async def test_registry_loaded_bytes_lets_models_go(tmp_path: Path) -> None:
    loaded = {}
    for most in (1, 1 << 20):
        folder = tmp_path / str(most)
        folder.mkdir()
        async with running(settings_of(folder, registry__loaded_models=8, registry__loaded_bytes=most)) as live:
            await live.send(messages(T0, 1))
            models = live.daemon.session.commands.serving_models.models
            for name in ("one", "two"):
                card = await models.register(model_in(folder / name, name, description=name), origin="import")
                await live.daemon.session.commands.cache.get(card.digest)
            loaded[most] = len(live.daemon.session.commands.cache.held())
    assert loaded == {1: 0, 1 << 20: 2}  # one that is too large is used and let go


async def test_bars_history_fills_the_windows_of_an_empty_store(tmp_path: Path) -> None:
    lines = "".join(f"A,{T0 + k * SECOND},{100 + k % 5},1\n" for k in range(40))
    history = csv(tmp_path, "symbol,ts,price,size\n" + lines)
    with capture_logs() as logs:
        async with running(settings_of(tmp_path, bars__history=history)) as live:
            assert live.daemon.session.serving.symbols.names() == ["A"]
    assert [line["bars"] > 0 for line in logs if line["event"] in ("history_loaded", "windows_filled")] == [True, True]


async def test_runtime_drain_s_ends_a_drain_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never() -> None:
        await asyncio.Event().wait()

    with pytest.raises(StoreStalled, match=r"runtime\.drain_s"):
        async with running(settings_of(tmp_path, runtime__drain_s=1)) as live:
            monkeypatch.setattr(live.daemon.session, "_report", never)
