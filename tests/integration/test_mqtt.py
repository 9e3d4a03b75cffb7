"""The MQTT edges against a real mosquitto: what arrives, what a cut leaves behind, who is refused and why."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiomqtt
import msgspec
import numpy as np
import pytest

from mosquittokit import PASSWORD, USER, Mosquitto
from needs import need
from netkit import HOST, free_port
from tickcast import __version__
from tickcast.clock import SystemClock
from tickcast.columns import Encoded
from tickcast.errors import BadBroker, BadSettings, BrokerAway
from tickcast.io.mqtt.client import MqttMirror
from tickcast.io.mqtt.source import MqttSource
from tickcast.settings.buses import MqttSettings
from tickcast.symbols import SymbolTable

WAIT_S = 30.0
STATUS = "tickcast/status"
PUBLISHER = """
import asyncio, sys
from tickcast.settings.buses import MqttSettings
from tickcast.clock import SystemClock
from tickcast.io.mqtt.client import MqttMirror

async def main():
    mirror = MqttMirror(MqttSettings(url=sys.argv[1], mirror=["health"]), SystemClock())
    await mirror.run()

asyncio.run(main())
"""


def encoded(messages: Sequence[bytes], codes: Sequence[int]) -> Encoded:
    ends = np.cumsum([len(message) for message in messages])
    lengths = np.array([len(message) for message in messages])
    return Encoded(np.frombuffer(b"".join(messages), np.uint8), ends - lengths, ends, np.array(codes, np.int32))


def table(*names: str) -> SymbolTable:
    symbols = SymbolTable(16)
    for name in names:
        symbols.code(name)
    return symbols


def mirror_settings(url: str, **settings: Any) -> MqttSettings:
    return MqttSettings(**({"url": url, "mirror": ["forecasts", "health"], "qos": 1} | settings))


@asynccontextmanager
async def at_work(edge: MqttMirror | MqttSource) -> AsyncIterator["asyncio.Task[None]"]:
    """Its job runs inside the block, and the first attempt to connect is over."""
    task = asyncio.create_task(edge.run())
    tried = asyncio.create_task(edge.link.tried.wait())
    async with asyncio.timeout(WAIT_S):
        await asyncio.wait({task, tried}, return_when=asyncio.FIRST_COMPLETED)
    tried.cancel()
    try:
        if task.done():
            await task
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def listening(port: int, *filters: str) -> AsyncIterator[aiomqtt.Client]:
    async with aiomqtt.Client(HOST, port) as client:
        for name in filters:
            await client.subscribe(name, qos=1)
        yield client


async def received(client: aiomqtt.Client, count: int = 1) -> list[tuple[str, Any]]:
    async with asyncio.timeout(WAIT_S):
        return [(m.topic.value, m.payload) for m in [await anext(client.messages) for _ in range(count)]]


async def state(client: aiomqtt.Client) -> str:
    ((_, payload),) = await received(client)
    status = msgspec.json.decode(payload)
    assert status["version"] == __version__
    return str(status["state"])


async def until(is_so: Any) -> None:
    async with asyncio.timeout(WAIT_S):
        while not is_so():
            await asyncio.sleep(0.02)


async def test_what_is_offered_arrives_under_its_symbol_and_only_chosen_topics_do(mosquitto: Mosquitto) -> None:
    symbols = table("BTC-USD", "A/B+#", "../status", "é")
    async with listening(mosquitto.port, "#") as client, at_work(mirror := MqttMirror(mirror_settings(mosquitto.url),
                                                                                      SystemClock())):  # fmt: skip
        mirror.offer("features", encoded([b"no"], [0]), symbols)
        mirror.offer("forecasts", encoded([b"0", b"1", b"2", b"3", b"4"], [0, 1, 2, 3, 0]), symbols)
        mirror.offer_records("health", [b"fine"])
        arrived = await received(client, 7)
    assert arrived[0][0] == STATUS
    assert sorted(arrived[1:]) == [
        ("tickcast/forecasts/%C3%A9", b"3"), ("tickcast/forecasts/..%2Fstatus", b"2"),
        ("tickcast/forecasts/A%2FB%2B%23", b"1"), ("tickcast/forecasts/BTC-USD", b"0"),
        ("tickcast/forecasts/BTC-USD", b"4"), ("tickcast/health", b"fine"),
    ]  # fmt: skip
    assert mirror.dropped == 0


async def test_the_retained_status_tells_a_latecomer_online_and_after_a_clean_end_offline(mosquitto: Mosquitto) -> None:
    async with at_work(MqttMirror(mirror_settings(mosquitto.url), SystemClock())):
        async with listening(mosquitto.port, STATUS) as client:
            assert await state(client) == "online"
    async with listening(mosquitto.port, STATUS) as client:
        assert await state(client) == "offline"


async def test_what_waits_at_the_end_is_still_sent(mosquitto: Mosquitto) -> None:
    mirror = MqttMirror(mirror_settings(mosquitto.url), SystemClock())
    async with listening(mosquitto.port, "tickcast/health") as client:
        async with at_work(mirror):
            mirror.offer_records("health", [b"%d" % n for n in range(200)])
        assert {payload for _, payload in await received(client, 200)} == {b"%d" % n for n in range(200)}
    assert mirror.waiting == 0


@pytest.mark.slow
async def test_a_publisher_that_is_killed_is_declared_offline_by_the_broker(mosquitto: Mosquitto) -> None:
    with subprocess.Popen([sys.executable, "-c", PUBLISHER, mosquitto.url]) as child:
        try:
            async with listening(mosquitto.port, STATUS) as client:
                assert await state(client) == "online"
                child.kill()
                assert await state(client) == "offline"
        finally:
            child.kill()


async def test_after_the_broker_was_killed_the_mirror_reconnects_and_sends_what_waited(mosquitto: Mosquitto) -> None:
    mirror = MqttMirror(mirror_settings(mosquitto.url), SystemClock())
    async with at_work(mirror):
        for attempt in range(2):
            mosquitto.kill()
            await until(lambda: not mirror.link.is_up)
            mirror.offer_records("health", [b"%d" % attempt])
            assert mirror.waiting == 1
            mosquitto.restart()
            async with listening(mosquitto.port, "tickcast/health") as client:
                mirror.offer_records("health", [b"after"])
                while (await received(client))[0][1] != b"after":
                    pass
            await until(lambda: mirror.waiting == 0)
        assert mirror.link.connects == 3


async def test_a_full_queue_drops_the_oldest_counts_them_and_never_waits(mosquitto: Mosquitto) -> None:
    mirror = MqttMirror(mirror_settings(mosquitto.url, queue_messages=10), SystemClock())
    mosquitto.kill()
    async with at_work(mirror):
        mirror.offer_records("health", [b"%d" % n for n in range(4)])
        mirror.offer("forecasts", encoded([b"%d" % n for n in range(4, 25)], [0] * 21), table("A"))
        assert (mirror.waiting, mirror.dropped) == (10, 15)
        client = await _first_of(mosquitto, mirror)
    assert client == [b"%d" % n for n in range(15, 25)]


async def _first_of(mosquitto: Mosquitto, mirror: MqttMirror) -> list[Any]:
    """What a session that the broker keeps from its start on is sent; a listener may come too late for it."""
    mosquitto.restart()
    payloads: list[Any] = []
    async with listening(mosquitto.port, "tickcast/forecasts/#") as client:
        while not payloads or payloads[-1] != b"24":
            payloads += [payload for _, payload in await received(client)]
    assert mirror.dropped == 15
    return payloads


@pytest.fixture
def word(tmp_path: Path) -> Path:
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n")
    return file


def locked(broker: Mosquitto, word: Path, **settings: Any) -> MqttSettings:
    own = {"ca_file": broker.certificates.ca, "username": USER, "password_file": word}
    return mirror_settings(broker.url, **(own | settings))


async def test_tls_and_the_right_password_let_us_in(secure_mosquitto: Mosquitto, word: Path) -> None:
    async with at_work(mirror := MqttMirror(locked(secure_mosquitto, word), SystemClock())):
        assert mirror.link.is_up


async def test_a_wrong_password_at_start_is_refused_with_its_setting(secure_mosquitto: Mosquitto, word: Path) -> None:
    word.write_text("wrong")
    with pytest.raises(BadBroker, match=r"mqtt\.password_file"):
        async with at_work(MqttMirror(locked(secure_mosquitto, word), SystemClock())):
            pass
    assert BadBroker.exit_code == 78


async def test_a_broker_of_an_authority_that_we_do_not_know_is_refused(secure_mosquitto: Mosquitto, word: Path) -> None:
    for ca_file in (secure_mosquitto.certificates.stranger, None):
        with pytest.raises(BadBroker, match=r"CERTIFICATE_VERIFY_FAILED.*mqtt\.ca_file"):
            async with at_work(MqttMirror(locked(secure_mosquitto, word, ca_file=ca_file), SystemClock())):
                pass


@pytest.mark.slow
async def test_a_broker_that_wants_a_certificate_refuses_us_without_and_takes_us_with_one(
    secure_mosquitto: Mosquitto, word: Path
) -> None:
    reconfigure(secure_mosquitto, "require_certificate true")
    with pytest.raises(BadBroker, match=r"mqtt\.cert_file"):
        async with at_work(MqttMirror(locked(secure_mosquitto, word), SystemClock())):
            pass
    own = secure_mosquitto.certificates
    files = {"cert_file": own.certificate("client"), "key_file": own.key("client")}
    async with at_work(mirror := MqttMirror(locked(secure_mosquitto, word, **files), SystemClock())):
        assert mirror.link.is_up


async def test_a_password_that_becomes_wrong_while_running_is_tried_again_until_it_is_right(
    secure_mosquitto: Mosquitto, word: Path
) -> None:
    async with at_work(mirror := MqttMirror(locked(secure_mosquitto, word), SystemClock())) as task:
        word.write_text("wrong")
        secure_mosquitto.restart()
        await until(lambda: "not authorised" in secure_mosquitto.log())
        assert not task.done()
        word.write_text(PASSWORD)
        await until(lambda: mirror.link.connects == 2)


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"url": "http://127.0.0.1"}, "mqtt.url"),
        ({"url": "mqtt://"}, "mqtt.url"),
        ({"url": "mqtt://127.0.0.1:99999"}, "mqtt.url"),
        ({"url": "mqtt://me:secret@127.0.0.1"}, "mqtt.password_file"),
        ({"password_file": Path("nowhere")}, "mqtt.password_file"),
        ({"ca_file": Path("nowhere")}, "mqtts://"),
        ({"url": "mqtts://127.0.0.1", "ca_file": Path("nowhere")}, "mqtt.ca_file"),
        ({"url": "mqtts://127.0.0.1", "cert_file": Path("nowhere")}, "mqtt.cert_file"),
        ({"prefix": "tick/#"}, "mqtt.prefix"),
        ({"prefix": "$SYS"}, "mqtt.prefix"),
        ({"prefix": ""}, "mqtt.prefix"),
    ],
)
async def test_settings_that_cannot_work_are_refused_before_anything_is_tried(
    settings: dict[str, Any], names: str
) -> None:
    with pytest.raises(BadSettings, match=names.replace(".", r"\.")) as refused:
        MqttMirror(MqttSettings(**({"url": "mqtt://127.0.0.1"} | settings)), SystemClock())
    assert "secret" not in str(refused.value)


async def test_a_mirror_starts_without_a_broker_and_waits_for_it(mosquitto: Mosquitto) -> None:
    mosquitto.kill()
    async with at_work(mirror := MqttMirror(mirror_settings(mosquitto.url), SystemClock())):
        assert not mirror.link.is_up
        mosquitto.restart()
        await until(lambda: mirror.link.is_up)


def source(url: str, *, max_away_s: float = WAIT_S, positions: Any = None, **settings: Any) -> MqttSource:
    own = MqttSettings(**({"url": url, "ticks": ["feed/#", "other/+/ticks"], "qos": 1} | settings))
    return MqttSource(own, SystemClock(), max_away_s=max_away_s, positions=positions or {})


async def fetched(ticks: MqttSource, count: int) -> list[tuple[str, int, bytes]]:
    rows: list[tuple[str, int, bytes]] = []
    async with asyncio.timeout(WAIT_S):
        while len(rows) < count:
            for batch in await ticks.next_batches(0.2):
                assert batch.partition == 0
                assert (batch.stamps_ns > 1_700_000_000 * 10**9).all()
                assert batch.data.flags.writeable
                rows += [(batch.topic, int(batch.offsets[i]), batch.message(i)) for i in range(len(batch))]
    return rows


async def test_a_source_gives_the_messages_of_each_filter_as_a_topic_with_offsets_of_its_own(
    mosquitto: Mosquitto,
) -> None:
    async with at_work(ticks := source(mosquitto.url, positions={("feed/#", 0): 100})):
        assert await ticks.next_batches(0.0) == []
        async with listening(mosquitto.port) as client:
            for n, name in enumerate(["feed/a", "feed/b/c", "other/x/ticks", "unasked/x", "feed/a"]):
                await client.publish(name, b"%d" % n, qos=1)
        rows = await fetched(ticks, 4)
    assert sorted(rows) == [
        ("feed/#", 100, b"0"), ("feed/#", 101, b"1"), ("feed/#", 102, b"4"), ("other/+/ticks", 0, b"2"),
    ]  # fmt: skip
    assert (ticks.unread, ticks.dropped) == (0, 0)


async def test_a_source_that_nobody_reads_drops_the_oldest_and_leaves_a_gap_of_offsets(mosquitto: Mosquitto) -> None:
    async with at_work(ticks := source(mosquitto.url, queue_messages=5)):
        async with listening(mosquitto.port) as client:
            for n in range(12):
                await client.publish("feed/a", b"%d" % n, qos=1)
        await until(lambda: ticks.dropped == 7)
        assert await fetched(ticks, 5) == [("feed/#", n, b"%d" % n) for n in range(7, 12)]


async def test_a_source_goes_on_after_the_broker_was_killed(mosquitto: Mosquitto) -> None:
    async with at_work(ticks := source(mosquitto.url)):
        mosquitto.restart()
        await until(lambda: ticks.link.connects == 2)
        async with listening(mosquitto.port) as client:
            await client.publish("feed/a", b"again", qos=1)
        assert await fetched(ticks, 1) == [("feed/#", 0, b"again")]


async def test_with_a_client_id_the_broker_keeps_what_comes_while_the_source_is_away(mosquitto: Mosquitto) -> None:
    async with at_work(source(mosquitto.url, client_id="edge-1")):
        pass
    async with listening(mosquitto.port) as client:
        await client.publish("feed/a", b"meanwhile", qos=1)
    async with at_work(ticks := source(mosquitto.url, client_id="edge-1")):
        assert await fetched(ticks, 1) == [("feed/#", 0, b"meanwhile")]


async def test_a_source_without_a_broker_gives_up_after_the_longest_wait() -> None:
    with pytest.raises(BrokerAway, match=r"runtime\.max_wait_s"):
        async with at_work(source(f"mqtt://{HOST}:{free_port()}", max_away_s=0.5)) as task, asyncio.timeout(WAIT_S):
            await task


async def test_a_source_without_the_right_to_subscribe_is_refused(mosquitto: Mosquitto, tmp_path: Path) -> None:
    rights = tmp_path / "rights.json"
    rights.write_text('{"defaultACLAccess": {"subscribe": false}}')
    plugin = next(Path("/usr/lib").glob("*/mosquitto_dynamic_security.so"), None)
    need(plugin is not None, "the plugin dynamic-security, which Debian's mosquitto package has")
    reconfigure(mosquitto, f"plugin {plugin}\nplugin_opt_config_file {rights}")
    with pytest.raises(BadBroker, match=r"feed/#.*mqtt\.ticks"):
        async with at_work(source(mosquitto.url)):
            pass


async def test_filters_that_are_none_are_refused() -> None:
    with pytest.raises(BadSettings, match=r"mqtt\.ticks"):
        source("mqtt://127.0.0.1", ticks=["a/#/b"])


def reconfigure(broker: Mosquitto, line: str) -> None:
    with broker._config.open("a") as config:
        config.write(line + "\n")
    broker.restart()
