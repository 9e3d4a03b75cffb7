"""The whole loop over a real broker: quiet, drift, alert, fit, shadow, promotion, skill that is back; then a bad
candidate that is refused, and a bad model that a person forces, which rolls itself back. `-s` prints what was decided.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from brokerkit import KafkaBroker
from kafkakit import COMMANDS, OUTPUTS, Deployment, Message
from livekit import alive
from marketkit import SECOND, Market, best_skill
from tickcast.io.store.ledger_rows import DecisionRow
from tickcast.live.daemon import Daemon

BEFORE, AFTER = -0.6, 0.6  # how much of a move is in the next one
QUIET_BARS, BATCH = 1500, 100
# Of the evidence of a decision, what the report shows.
EVIDENCE = ("verdict", "blocks", "log_e", "log_needed", "gain", "skill", "code", "reason")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class Traded:
    """A deployment whose market goes on as it is told to, and the daemon that follows it."""

    def __init__(self, broker: KafkaBroker, folder: Path) -> None:
        self.market = Market()
        self.deployment = Deployment(
            broker, folder, partitions=1, outputs=(*OUTPUTS, *COMMANDS, "shadow"), bars__kind="tick",
            forecast__horizon=2, window__lookback=16, score__adapt_every_bars=16, score__publish_every_s=1,
            schedule__autonomy=3, schedule__kind="ridge", schedule__min_new_bars=1200, schedule__keep_bars=1600,
            schedule__shadow_bars=4000, schedule__rest_s=1, schedule__look_every_s=1, alerts__quiet_s=1,
            store__unit_ms=50,
        )  # fmt: skip
        self.daemon: Daemon

    @asynccontextmanager
    async def running(self, **more: object) -> AsyncIterator[None]:
        async with alive(self.deployment.daemon(**more)) as self.daemon:
            yield

    async def trade(self, bars: int, persistence: float) -> None:
        ticks = self.market.ticks(bars, persistence=persistence)
        await self.deployment.send(Message(0, None, tick) for tick in ticks)
        await self.deployment.caught_up()

    async def trade_until(self, kind: str, event: str, *, persistence: float, most: int) -> DecisionRow:
        """What was decided then, and not before."""
        known = len(await self.decisions(kind, event))
        for _ in range(most):
            await self.trade(BATCH, persistence)
            await asyncio.sleep(0.7)  # it looks each second
            if found := (await self.decisions(kind, event))[known:]:
                return found[0]
        raise AssertionError((self.daemon.session.commands.upkeep.told(), [*map(str, await self.decisions())]))

    async def decisions(self, kind: str = "", event: str = "") -> list[DecisionRow]:
        rows = (await self.daemon.session.store.ledger.decisions())[::-1]
        return [row for row in rows if kind in ("", row.kind) and event in ("", row.event)]

    async def ok(self, command: str, **given: Any) -> dict[str, Any]:
        reply = await self.daemon.command(command, **given)
        assert reply.ok, f"{reply.error_code}: {reply.error}"
        return reply.result

    def serving(self) -> str:
        return self.daemon.session.commands.serving_models.serving_now()["default"]

    async def skill(self) -> float:
        """Of who serves, one bar ahead, lately."""
        card = await self.daemon.session.commands.serving_models.registered(self.serving())
        assert card is not None
        (row,) = [
            row for row in await self.daemon.session.accuracy()
            if (row.model, row.version, row.group, row.horizon, row.window)
            == (card.name, card.version, "all", 1, "rolling")
        ]  # fmt: skip
        return row.skill

    async def published(self, topic: str) -> list[dict[str, Any]]:
        return [json.loads(record.value) for record in await self.deployment.read(topic)]


async def test_it_notices_mends_itself_and_lets_nothing_bad_serve(kafka: KafkaBroker, tmp_path: Path) -> None:
    traded = Traded(kafka, tmp_path)
    async with traded.running():
        await quiet(traded)
        first, changed_ns = traded.serving(), traded.market.newest_ns
        await drifts_and_is_mended(traded, first)
        good = traded.serving()
    async with traded.running(schedule__max_new_bars=BATCH, schedule__params="{penalties = [1e6]}"):
        refused = await traded.trade_until("fit", "done", persistence=AFTER, most=20)
        evidence = json.loads(refused.evidence_json)
        assert evidence["terms"]["refusal"], evidence
    async with traded.running():
        assert traded.serving() == good
        assert evidence["model"] not in [row.model for row in await traded.decisions("shadow")]
        await traded.ok("train", kind="ridge", name="bad", params={"penalties": [1e6]})
        await traded.ok("promote", model="bad", force=True)
        assert traded.serving() != good
        await traded.trade_until("rollback", "done", persistence=AFTER, most=60)
        assert traded.serving() == good
        print(*await report(traded), sep="\n")
    await was_published(traded, changed_ns)


async def quiet(traded: Traded) -> None:
    """A person makes the first model serve; nothing comes due, nothing is alarmed."""
    await traded.trade(QUIET_BARS, BEFORE)
    await traded.ok("train", kind="ridge", name="first")
    await traded.ok("promote", model="first", force=True)
    for _ in range(8):
        await traded.trade(BATCH, BEFORE)
    assert await traded.skill() > 0.5 * best_skill(BEFORE)
    assert not await traded.decisions()
    assert not [record for record in await traded.published("drift") if record["event"] == "raised"]


async def drifts_and_is_mended(traded: Traded, first: str) -> None:
    promoted = await traded.trade_until("promote", "done", persistence=AFTER, most=80)
    assert traded.serving() == promoted.model != first
    for _ in range(10):
        await traded.trade(BATCH, AFTER)
    assert await traded.skill() > 0.5 * best_skill(AFTER)
    fit, shadow = (await traded.decisions("fit", "done"))[-1], (await traded.decisions("shadow", "done"))[-1]
    assert fit.at_ns < shadow.at_ns < promoted.at_ns
    assert fit.why[0].startswith(("drift with worse skill", "last value serves")), fit.why


async def was_published(traded: Traded, changed_ns: int) -> None:
    """Whoever reads only the topics knows it too."""
    raised = [record for record in await traded.published("drift") if record["event"] == "raised"]
    assert raised
    assert all(record["since_ns"] > changed_ns for record in raised)
    alerts = {(record["name"], record["event"]) for record in await traded.published("alerts")}
    assert {("drift", "raised"), ("drift", "ended"), ("skill_low", "raised"), ("skill_low", "ended")} <= alerts
    beside = {(record["model"], record["version"]) for record in await traded.published("shadow")}
    assert beside
    jobs = await traded.published("jobs")
    assert jobs


async def report(traded: Traded) -> list[str]:
    """What was noticed and decided, in the order of time."""
    told = [
        (record["last_ns"], f"alert {record['name']} {record['event']}: {record['detail']}")
        for record in await traded.published("alerts") if record["event"] != "repeated"
    ]  # fmt: skip
    for row in await traded.decisions():
        found = json.loads(row.evidence_json)
        shown = {name: found[name] for name in EVIDENCE if name in found}
        told.append((row.at_ns, f"{row.kind} {row.event} {row.model[:8]} ({', '.join(row.why)}) {shown or ''}"))
    told.sort()
    return [f"{(at_ns - told[0][0]) / SECOND:6.1f} s  {line}" for at_ns, line in told]
