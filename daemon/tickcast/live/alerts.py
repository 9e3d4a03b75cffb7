"""The alerts of one session: it looks every `score.publish_every_s`, keeps the book, and tells all who are to know.

Nothing waits for it: whoever is told has a bounded queue of his own.
"""

import asyncio
import shutil
from collections import deque
from collections.abc import Collection, Coroutine, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from tickcast.alerts import ALERTS
from tickcast.columns import Source
from tickcast.engine.core.schedule import is_closed
from tickcast.io.alert_hooks import hooks
from tickcast.io.store.database import archive_folder
from tickcast.live.process import memory_limit_bytes
from tickcast.loop.alert_book import AlertBook
from tickcast.loop.alert_rules import RULES, AlertLook, silent_limit_s
from tickcast.records import Alert, Drift

if TYPE_CHECKING:
    from tickcast.live.session import Session

RETRY_S, MOST_NAMED = 1.0, 5
MOST_UNSENT = 1024  # records that wait for the bus; beyond it the oldest give way
NOBODY = "all partitions"  # while none has brought anything
NOTHING = (-1, 0)
YEAR_S = 366 * 86_400.0
JSON = msgspec.json.Encoder()


class Alerts:
    """What a rule finds begins and ends in `_watch`."""

    def __init__(self, session: "Session", was_open: Iterable[Alert]) -> None:
        settings, kafka, now_ns = session.settings.alerts, session.settings.kafka, session.clock.now_ns()
        self._session = session
        self._hooks = hooks(settings, session.settings.runtime.folder)
        self._unsent: deque[Alert] = deque(maxlen=MOST_UNSENT)
        self._has_unsent = asyncio.Event()
        self._book = AlertBook(
            repeat_every_s=settings.repeat_every_s, quiet_s=settings.quiet_s, was_open=was_open, at_ns=now_ns,
            raised_by=f"{kafka.group}/{kafka.slot}",
        )  # fmt: skip
        self._looking: Looking | None = None
        for alert in self._book.open():
            if alert.name not in ALERTS:  # of a version that had more
                self._tell(self._book.end_alert(alert.name, alert.subject, now_ns))

    def open(self) -> list[Alert]:
        return self._book.open()

    def severities(self) -> dict[str, str]:
        """Of the open ones, by name."""
        return {alert.name: alert.severity for alert in self._book.open()}

    def hook_counts(self) -> dict[str, dict[str, int]]:
        """What became of what webhook and command were to be told."""
        return {hook.name: dict(hook.counts) for hook in self._hooks}

    def running(self) -> list[Coroutine[Any, Any, None]]:
        """To run beside the pump."""
        return [self._watch(), self._send(), *(hook.run() for hook in self._hooks)]

    def on_live(self) -> None:
        """From now on it looks: what a restart repeats says nothing new."""
        self._looking = Looking(self._session, self._book.open())

    async def _watch(self) -> None:
        """Only while it is live: a start and a drain wait by names of their own."""
        settings = self._session.settings
        while True:
            await asyncio.sleep(settings.score.publish_every_s)
            if self._looking is None or self._session.state != "live":
                continue
            look, at_ns = await self._looking.look(), self._session.clock.now_ns()
            for name, rule in RULES.items():
                self._tell(self._book.see(name, rule(look, settings), at_ns))
            self._tell(self._book.due(at_ns))

    def _tell(self, records: list[Alert]) -> None:
        """The log and the store at once; the bus and the hooks when they can."""
        if not records:
            return
        self._session.commits.add_alerts(records)
        for alert in records:
            what = {"name": alert.name, "subject": alert.subject, "detail": alert.detail}
            if alert.event == "ended":
                structlog.get_logger().info("alert_ended", **what)
            elif alert.event == "raised":
                structlog.get_logger().warning("alert_raised", severity=alert.severity, remedy=alert.remedy, **what)
            for hook in self._hooks:
                hook.offer(JSON.encode(alert))
        self._unsent += records
        self._has_unsent.set()

    async def _send(self) -> None:
        """What the run before left open is shown again: a broker may have forgotten it."""
        for alert in self._book.open():
            self._retain(alert)
        while True:
            await self._has_unsent.wait()
            self._has_unsent.clear()
            records = [*self._unsent]
            self._unsent.clear()
            for alert in records:
                self._retain(alert)
            while not await self._session.publish("alerts", records):
                await asyncio.sleep(RETRY_S)

    def _retain(self, alert: Alert) -> None:
        self._session.bus.retain(alert.name, alert.subject, b"" if alert.event == "ended" else JSON.encode(alert))


class Looking:
    """What changes between two looks is remembered here."""

    def __init__(self, session: "Session", was_open: Iterable[Alert]) -> None:
        self._session = session
        self._before, self._began_ns = session.health(), session.clock.monotonic_ns()
        self._rebuilt = session.bus.rebuilt()
        self._heard = self._silent_still({alert.subject for alert in was_open if alert.name == "source_silent"})
        store, runtime = session.settings.store, session.settings.runtime
        self._places = {"store": store.path.parent, "archive": archive_folder(session.settings), "jobs": runtime.folder}

    async def look(self) -> AlertLook:
        session = self._session
        health, before, rebuilt = session.health(), self._before, session.bus.rebuilt()
        ladder, serving_models = session.serving.ladder, session.commands.serving_models
        digests = {*serving_models.serving_now().values()}
        cards = [card for card in ladder.cards if card.digest in digests] if ladder else []
        look = AlertLook(
            health=health, before=before, live_s=(session.clock.monotonic_ns() - self._began_ns) / 1e9,
            accuracy=session.last_accuracy, model=ladder.first.name if ladder else "",
            serving=frozenset((card.name, card.version) for card in cards), unserved=serving_models.unserved,
            drift=await session.thread.call(self._drift),
            proposed=session.commands.upkeep.proposed(), stepped_down=session.commands.upkeep.stepped_down(),
            jobs=session.commands.jobs.rows(), silent_s=self._silent_s(), away_s=session.bus.away_s(),
            rebuilds=rebuilt - self._rebuilt, disk_free=await asyncio.to_thread(_free_shares, self._places),
            memory_bytes=memory_limit_bytes(),
        )  # fmt: skip
        self._before, self._rebuilt = health, rebuilt
        return look

    def _drift(self) -> dict[str, str]:
        found = self._session.serving.engine.drift.alarms()
        return {f"{one.family} {one.topic}/{one.partition}": _named(one) for one in found}

    def _silent_s(self) -> dict[str, float]:
        """While nothing is fetched, or the market is closed, nobody is silent."""
        session, now = self._session, self._session.clock.monotonic_ns()
        stands = self._stands()
        reading = {_name(source) for source, records in session.bus.lag().items() if records}
        away = session.pump.paused or session.pump.waits or self._is_closed()
        for source, position in stands.items():
            if away or source in reading or self._heard.get(source, NOTHING)[0] != position:
                self._heard[source] = (position, now)
        self._heard = {source: self._heard[source] for source in stands}
        return {source: (now - since) / 1e9 for source, (_, since) in self._heard.items()}

    def _silent_still(self, silent: Collection[str]) -> dict[str, tuple[int, int]]:
        """Partition -> its position, and since when it stands there. Those that were silent when the run before ended
        are, where nothing came since; for others it begins now."""
        now, most_s = self._session.clock.monotonic_ns(), min(silent_limit_s(self._session.settings), YEAR_S)
        before = {
            _name(source): at for source, at in self._session.store.positions().items() if _name(source) in silent
        }
        return {
            source: (at, now - int(most_s * 1e9) if before.get(source) == at else now)
            for source, at in self._stands().items()
        }

    def _stands(self) -> dict[str, int]:
        """How far each partition was read."""
        return {_name(source): at for source, at in [*self._session.serving.engine.positions.items()]} or {NOBODY: 0}

    def _is_closed(self) -> bool:
        closed_time = self._session.serving.engine.builder.closed_time
        return len(closed_time.start) > 0 and bool(is_closed(closed_time, self._session.clock.now_ns()))


def _named(record: Drift) -> str:
    """The streams that the alarm names, the first of them."""
    named = [f"{stream.model} {stream.group} {stream.channel}".strip() for stream in record.streams if stream.named]
    return f"{len(named)} streams: {', '.join(named[:MOST_NAMED])}"


def _name(source: Source) -> str:
    return f"{source[0]}/{source[1]}"


def _free_shares(places: Mapping[str, Path]) -> dict[str, float]:
    """A place that is not there yet, or does not tell, has none."""
    shares = {}
    for name, place in places.items():
        with suppress(OSError):
            usage = shutil.disk_usage(place)
            shares[name] = usage.free / usage.total if usage.total else 1.0
    return shares
