"""A daemon on the memory bus says what a person must know, on each way, and goes on with it after a restart."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from livekit import Live, live_settings, records, running, until
from schemakit import problems
from tickcast.errors import StoreStalled
from tickcast.records import Alert
from tickcast.settings import Settings

SMALL = {
    "window__lookback": 4, "forecast__horizon": 2, "score__publish_every_s": 0.05, "alerts__quiet_s": 0,
}  # fmt: skip
START_NS, SECOND = 1_700_000_000 * 10**9, 10**9
BAD = [b"{"] * 20


def ticks(first: int, count: int) -> list[bytes]:
    return [
        msgspec.json.encode({"symbol": "A", "ts": START_NS + n * SECOND, "price": 100 + n % 7})
        for n in range(first, first + count)
    ]


def alert_settings(folder: Path, **more: object) -> Settings:
    return live_settings(folder, **SMALL | more)


def is_open(live: Live, name: str) -> Callable[[], bool]:
    return lambda: name in live.daemon.health().alerts


def is_over(live: Live, name: str) -> Callable[[], bool]:
    return lambda: name not in live.daemon.health().alerts


def end_at_once(live: Live) -> None:
    """From now on; what was raised in one look would else be over in the next, before a test has seen it."""
    live.daemon.session.alerts._book._quiet_ns = 0


async def rows(live: Live) -> list[tuple[Any, ...]]:
    return (await live.daemon.session.store.query("SELECT name, subject, event FROM alerts ORDER BY at_ns")).rows


def has_rows(live: Live, wanted: list[tuple[str, ...]]) -> Callable[[], Awaitable[bool]]:
    async def are_there() -> bool:
        return await rows(live) == wanted

    return are_there


async def test_an_alert_is_told_on_every_way_when_it_begins_and_when_it_ends(tmp_path: Path) -> None:
    with capture_logs() as logs:
        async with running(alert_settings(tmp_path, alerts__quiet_s=3600)) as live:
            told = live.bus.subscribe("tickcast.alerts")
            await live.send(ticks(0, 30) + BAD)
            await until(is_open(live, "ticks_refused"), "the alert")
            assert live.daemon.health().alerts == {"ticks_refused": "warning"}
            findings = (await live.daemon.command("diagnose")).result["findings"]
            section = (await live.daemon.command("status", section="alerts")).result["alerts"]
            await live.send(ticks(30, 30))
            end_at_once(live)
            await until(is_over(live, "ticks_refused"), "its end")
            story = [("ticks_refused", "malformed", "raised"), ("ticks_refused", "malformed", "ended")]
            await until(has_rows(live, story), "both rows")
            published = await records(told)
            after = (await live.daemon.command("status")).result["alerts"]
    assert [(record["name"], record["subject"], record["event"]) for record in published] == story
    assert not [found for record in published for found in problems("alerts", record)]
    raised, ended = (msgspec.convert(record, Alert) for record in published)
    assert raised.first_ns == ended.first_ns < ended.ended_ns == ended.at_ns  # type: ignore[operator]
    assert "codec.kind" in raised.detail
    assert section["hooks"] == {}
    assert ("ticks_refused", "malformed") in [(found["code"], found["subject"]) for found in findings]
    assert [(alert["name"], alert["event"]) for alert in section["open"]] == [("ticks_refused", "raised")]
    assert after["open"] == []
    said = [line for line in logs if line["event"].startswith("alert_")]
    assert [(line["event"], line["log_level"]) for line in said] == [
        ("alert_raised", "warning"),
        ("alert_ended", "info"),
    ]


@pytest.mark.slow
async def test_what_lasts_is_repeated(tmp_path: Path) -> None:
    settings = alert_settings(tmp_path, alerts__disk_free_share=1, alerts__repeat_every_s=1)
    async with running(settings) as live:
        await until(lambda: _events(live, "store", 3), "a repetition")
        events = [event for name, subject, event in await rows(live) if subject == "store"]
    assert events[:3] == ["raised", "repeated", "repeated"]
    assert "ended" not in events


async def _events(live: Live, subject: str, count: int) -> bool:
    return len([row for row in await rows(live) if row[1] == subject]) >= count


@pytest.mark.slow
async def test_a_restart_goes_on_with_what_is_open_and_ends_what_is_over(tmp_path: Path) -> None:
    low = {"alerts__disk_free_share": 1, "alerts__quiet_s": 3600}
    async with running(alert_settings(tmp_path, **low)) as live:
        await live.send(ticks(0, 30) + BAD)
        await until(is_open(live, "ticks_refused"), "the alert")
        await until(is_open(live, "disk_low"), "the other")
        first_ns = {alert.name: alert.first_ns for alert in live.daemon.session.alerts.open()}
    async with running(alert_settings(tmp_path, **low)) as live:
        assert live.daemon.health().alerts == {"ticks_refused": "warning", "disk_low": "warning"}
        turns = live.daemon.session.pump.passes
        await until(lambda: live.daemon.session.pump.passes > turns + 3, "some looks")
        assert {alert.name: alert.first_ns for alert in live.daemon.session.alerts.open()} == first_ns
    async with running(alert_settings(tmp_path, **low | {"alerts__quiet_s": 0})) as live:
        await until(is_over(live, "ticks_refused"), "the end of what is over")
        assert is_open(live, "disk_low")()
    async with running(alert_settings(tmp_path)) as live:
        await until(lambda: not live.daemon.health().alerts, "the end of all")
        await until(lambda: _events(live, "store", 2), "the last rows")
        events = [(name, event) for name, subject, event in await rows(live) if subject in ("malformed", "store")]
    twice = [(name, event) for event in ("raised", "ended") for name in ("disk_low", "ticks_refused")]
    assert sorted(events) == sorted(twice)


async def test_an_alert_of_a_name_that_is_no_more_is_ended_at_the_next_start(tmp_path: Path) -> None:
    async with running(alert_settings(tmp_path)) as live:
        session = live.daemon.session
        old = Alert(
            name="of_before", subject="x", severity="error", event="raised", detail="d", meaning="", remedy="",
            runbook="", first_ns=1, last_ns=1, ended_ns=None, at_ns=1, raised_by="tickcast/0",
        )  # fmt: skip
        session.commits.add_alerts([old])
        await until(has_rows(live, [("of_before", "x", "raised")]), "its row")
    async with running(alert_settings(tmp_path)) as live:
        await until(has_rows(live, [("of_before", "x", "raised"), ("of_before", "x", "ended")]), "its end")
        assert live.daemon.health().alerts == {}


@pytest.mark.slow
async def test_a_source_that_brings_nothing_is_silent_until_it_does_and_a_pause_is_no_silence(tmp_path: Path) -> None:
    settings = alert_settings(tmp_path, alerts__silent_s=1, bars__kind="tick")
    async with running(settings) as live:
        await until(is_open(live, "source_silent"), "silence before the first tick")
        assert [alert.subject for alert in live.daemon.session.alerts.open()] == ["all partitions"]
        await live.send(ticks(0, 5))
        await until(is_over(live, "source_silent"), "its end")
        await until(is_open(live, "source_silent"), "silence")
        assert [alert.subject for alert in live.daemon.session.alerts.open()] == ["tickcast.ticks/0"]
        await live.daemon.command("pause")
        await until(is_over(live, "source_silent"), "the end by a pause")


async def test_a_store_that_stalls_is_an_alert_that_is_published_while_it_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(alert_settings(tmp_path)) as live:
        told, store = live.bus.subscribe("tickcast.alerts"), live.daemon.session.store

        async def full(*_: object, **__: object) -> None:
            raise StoreStalled("the disk is full")

        with monkeypatch.context() as stalled:
            stalled.setattr(store, "write", full)
            await live.bus.produce(live.topic, ticks(0, 5))
            await until(is_open(live, "store_stalled"), "the alert")
            published = await records(told)
        assert [(record["name"], record["severity"]) for record in published] == [("store_stalled", "error")]
        await until(is_over(live, "store_stalled"), "its end")
        await until(has_rows(live, [("store_stalled", "store", event) for event in ("raised", "ended")]), "the rows")


@pytest.mark.slow
async def test_a_partition_that_is_mostly_late_is_an_alert(tmp_path: Path) -> None:
    async with running(alert_settings(tmp_path, runtime__heartbeat_s=0.1, alerts__quiet_s=1)) as live:
        await live.send(ticks(100, 20) + ticks(0, 60))
        await until(is_open(live, "partition_late"), "the alert")
        await until(is_over(live, "partition_late"), "its end")
        story = [("partition_late", "tickcast.ticks/0", event) for event in ("raised", "ended")]
        await until(has_rows(live, story), "both rows")
