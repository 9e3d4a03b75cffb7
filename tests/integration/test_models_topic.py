"""The topic `models` on a real broker: what one daemon promotes, another with an empty store serves, and no rubbish."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from brokerkit import KafkaBroker, unique
from kafkakit import OUTPUTS, Deployment, Message
from livekit import alive, until
from registrykit import HORIZON, LEVELS, LOOKBACK, model_folder, registry_in, write_card
from storekit import SECOND, T0
from tickcast.engine.core.questions import bar_identity
from tickcast.engine.inference.model_folder import GRAPH, read_card
from tickcast.errors import BadBroker, BrokerAway
from tickcast.io.kafka.compacted import CompactedTopic
from tickcast.io.models.topic_records import Record, Routed, messages, route_message
from tickcast.live import models_topic as fleet
from tickcast.live.buses.kafka import KafkaBus
from tickcast.live.daemon import Daemon
from tickcast.live.models_topic import ModelsTopic
from tickcast.settings import Settings

PARTITIONS = 2
SYMBOLS = ("S0", "S1")  # each in the partition of its number


class Place(Deployment):
    """Topics on the broker, that deployments share."""

    def __init__(self, broker: KafkaBroker, folder: Path) -> None:
        super().__init__(
            broker, folder, partitions=PARTITIONS, outputs=(*OUTPUTS, "jobs", "replies"), kafka__models="follow",
            window__lookback=LOOKBACK, forecast__horizon=HORIZON, forecast__quantiles=LEVELS, features__set=[],
            features__future=[], symbols__limit=16, snapshot__every_s=1, store__unit_ms=50,
        )  # fmt: skip
        broker.create_topic(self.prefix + "models", PARTITIONS, cleanup_policy="compact")

    def of(self, name: str, **overrides: object) -> Settings:
        """A deployment of its own group, that leaves everything in a folder of its own."""
        folder = self.folder / name / "{slot}"
        own = {
            "kafka__group": unique(name), "snapshot__folder": folder / "snapshots", "runtime__folder": folder / "run",
            "store__path": folder / "store.duckdb",
        }  # fmt: skip
        return self.loaded(**own | overrides)

    def model(self, name: str, **given: Any) -> Path:
        bars = bar_identity(self.of("any"))
        return model_folder(self.folder / "made" / unique(name), name, **{"bars": bars, **given})

    @property
    def topic(self) -> CompactedTopic:
        return CompactedTopic(self.of("any").kafka, self.prefix + "models")

    async def held(self) -> dict[str, bytes]:
        found: dict[str, bytes] = {}

        def take(key: str, value: bytes | None) -> None:
            found.pop(key, None)
            if value is not None:
                found[key] = value

        await self.topic.read(take)
        return found

    async def write(self, *records: Record) -> None:
        async with self.topic.writing() as send:
            for key, value in records:
                await send(key, value)

    async def trade(self, seconds: int) -> None:
        await self.send(
            Message(number, None, json.dumps({
                "symbol": symbol, "ts": T0 + n * SECOND // 4, "price": 100 + n % 7 + number, "size": 1,
            }).encode())
            for n in range(4 * seconds) for number, symbol in enumerate(SYMBOLS)
        )  # fmt: skip

    async def has_route(self, folder: Path) -> None:
        """The topic gives the default route to that model."""

        async def is_so() -> bool:
            value = (await self.held()).get("@default", b"{}")
            return json.loads(value).get("digest") == read_card(folder).digest

        await until(is_so, "the route to be published")


@pytest.fixture
def place(kafka: KafkaBroker, tmp_path: Path) -> Place:
    return Place(kafka, tmp_path)


@asynccontextmanager
async def daemon_of(settings: Settings) -> AsyncIterator[Daemon]:
    async with alive(Daemon(settings, KafkaBus(settings))) as daemon:
        yield daemon


async def ok(daemon: Daemon, command: str, **args: Any) -> dict[str, Any]:
    reply = await daemon.command(command, **args)
    assert reply.ok, f"{reply.error_code}: {reply.error}"
    return reply.result


async def routes(daemon: Daemon) -> dict[str, str]:
    found: dict[str, str] = (await ok(daemon, "status", section="routes"))["routes"]
    return found


async def test_a_daemon_with_an_empty_store_serves_what_another_promoted_and_then_keeps_to_its_own(
    place: Place,
) -> None:
    one, two = place.model("one"), place.model("two", shift=0.5)
    digests = [read_card(folder).digest for folder in (one, two)]
    lead = place.of("lead", kafka__models="lead")
    follow = place.of("follow", kafka__slot=1, kafka__slots=2)
    async with daemon_of(lead) as daemon:
        naive = await routes(daemon)
        for folder in (one, two):
            await daemon.session.commands.serving_models.models.register(folder, origin="fit")
        await ok(daemon, "promote", model="one", force=True)
        await ok(daemon, "promote", model="two", route="symbol:S1", force=True)
        await ok(daemon, "promote", model="two", force=True)
        await ok(daemon, "promote", model="one", route="40%:default", force=True)
        await place.has_route(two)
        await until(lambda: has_key(place, "@40%:default"), "the share to be published")
        await place.trade(12)
        learnt = {"default": digests[1], "symbol:S1": digests[1], "40%:default": digests[0]}
        async with daemon_of(follow) as other:
            assert await routes(other) == learnt
            await until(lambda: other.health().bars >= 5, "bars of its partition")
            (forecast,) = (await ok(other, "forecast", symbols=["S1"]))["forecasts"]
            assert (forecast["model"], forecast["rung"]) == ("two", "model")
            versions = await other.session.commands.serving_models.models.versions()
            assert {(row.digest, row.origin) for row in versions} == {(digest, "fleet") for digest in digests}
        keys = {key.partition("/")[0] for key in await place.held()}
        assert keys == {"@default", "@symbol:S1", "@40%:default", "one", "two"}
        await ok(daemon, "rollback")  # the share has the model of the rest now, and ends
        assert await routes(daemon) == {"default": digests[0], "symbol:S1": digests[1]}
        await place.has_route(one)
        await ok(daemon, "rollback", route="symbol:S1")
        await ok(daemon, "rollback")
        await until(lambda: empty(place), "the retired models to be taken back")
    async with daemon_of(follow) as other:
        assert await routes(other) == learnt
    async with daemon_of(place.of("late")) as other:
        assert await routes(other) == naive


async def has_key(place: Place, key: str) -> bool:
    return key in await place.held()


async def empty(place: Place) -> bool:
    return not await place.held()


def bitten(records: list[Record]) -> list[Record]:
    """The first of them with another byte."""
    (key, value), *rest = records
    assert value
    return [(key, bytes([value[0] ^ 1]) + value[1:]), *rest]


async def test_what_is_no_model_is_refused_counted_and_healed_by_the_lead(place: Place) -> None:
    good, flipped, short, foreign = (place.model(name, shift=n) for n, name in enumerate("abcd"))
    pickled = place.model("p")
    (pickled / GRAPH).write_bytes(b"\x80\x02]q\x00.")
    write_card(pickled, "p", bars=bar_identity(place.of("any")))
    unfit = place.model("u", bars={"kind": "tick"})
    given = {"default": good, "symbol:A": flipped, "symbol:B": short, "symbol:P": pickled, "symbol:U": unfit,
             "group:nobody": good}  # fmt: skip
    records: list[Record] = [record for folder in (good, pickled, unfit) for record in messages(folder)]
    records += bitten([*messages(flipped)]) + [*messages(short)][1:]
    records += [route_message(Routed(route=at, digest=read_card(f).digest, at_ns=1)) for at, f in given.items()]
    other_schema = route_message(Routed(route="symbol:F", digest=read_card(foreign).digest, at_ns=1, schema=9))
    records += [("settings", b"of somebody else"), other_schema, (f"a/{'0' * 64}", b"no card")]
    await place.write(*records)
    settings = place.of("lead", kafka__models="lead")
    with capture_logs() as logs:
        async with daemon_of(settings) as daemon:
            assert await routes(daemon) == {"default": read_card(good).digest}
            assert daemon.session.commands.serving_models.refused == Counter(
                bad_model=4, bad_model_record=3, bad_request=1
            )
            findings = (await ok(daemon, "diagnose"))["findings"]
            refused = [found for found in findings if found["code"] == "model_refused"]
            assert {found["subject"]: found["detail"] for found in refused}["bad_model"] == "4 since the start"
    assert len([line for line in logs if line["event"] == "model_refused"]) == 8
    assert not (settings.store.path.parent / "artefacts" / ".fleet").exists()
    await place.write(*bitten([*messages(good)]))
    async with daemon_of(settings):  # a lead with a history of its own: the topic is made what that says
        await until(lambda: holds_only(place, good), "the topic to be healed")
    async with daemon_of(place.of("late")) as daemon:
        assert await routes(daemon) == {"default": read_card(good).digest}
        assert daemon.session.commands.serving_models.refused == Counter(bad_model_record=1)


async def holds_only(place: Place, folder: Path) -> bool:
    held = await place.held()
    wanted = dict(messages(folder))
    return set(held) == {*wanted, "@default", "settings"} and all(held[key] == wanted[key] for key in wanted)


async def test_without_the_topic_the_start_is_refused_by_its_name(place: Place) -> None:
    settings = place.of("lost", topics__prefix=f"{unique('no')}.")
    place.broker.create_topics(*(settings.topics.prefix + name for name in OUTPUTS))
    with pytest.raises(BadBroker, match=r"models' of topics\.prefix does not exist"):
        async with daemon_of(settings):
            pass


class Away:
    """A topic that is away, the first time it is written to and the first time it is read."""

    def __init__(self) -> None:
        self.records: dict[str, bytes | None] = {}
        self.failures = ["reading", "writing"]

    def _fail(self, doing: str) -> None:
        if doing in self.failures:
            self.failures.remove(doing)
            raise BrokerAway(doing)

    async def read(self, take: Callable[[str, bytes | None], None]) -> None:
        self._fail("reading")
        for key, value in self.records.items():
            take(key, value)

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[Callable[[str, bytes | None], Awaitable[None]]]:
        async def send(key: str, value: bytes | None) -> None:
            self.records[key] = value
            self._fail("writing")

        yield send


async def test_what_the_broker_does_not_take_now_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "RETRY_S", 0.01)
    topic = Away()
    async with registry_in(tmp_path) as registry:
        digest = await registry.add()
        await registry.promote(digest)
        serving_models: Any = SimpleNamespace(models=registry.models)
        keeper = ModelsTopic(topic, serving_models, tmp_path / "coming")
        await keeper.learn()  # it has a history: nothing is read, and it is to be published
        task = asyncio.create_task(keeper.keep())
        await until(lambda: "@default" in topic.records, "the route")
        assert topic.failures == []
        expected = dict(messages(await registry.models.folder(digest)))
        assert {key: topic.records[key] for key in expected} == expected
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
