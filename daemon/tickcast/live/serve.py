"""The daemon as a command: its log, its bus, what signals do to it. What it does is in `daemon.py`."""

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any

import structlog

from tickcast.clock import Clock, SystemClock
from tickcast.errors import EXIT_OK, BadSettings
from tickcast.io.systemd import Notifier
from tickcast.io.telemetry import set_up_logging
from tickcast.live.buses.bus import Bus
from tickcast.live.daemon import Daemon
from tickcast.live.process import drain_on_signals
from tickcast.settings import Settings

GIVE_UP_S = 1.0  # for the clean end of a start that is given up


async def serve(settings: Settings, read_again: Callable[[], Settings]) -> None:
    """Until drained. A start that is given up ends the process: its threads may be busy for minutes."""
    clock = SystemClock()
    set_up_logging(settings.log, clock=clock)
    if settings.bus.kind == "memory":
        structlog.get_logger().warning(
            "nobody_can_send", reason="bus.kind is 'memory': only a program around the daemon can send it ticks",
            remedy="set bus.kind = 'kafka' or 'mqtt', or try `tickcast demo`",
        )  # fmt: skip
    daemon = Daemon(settings, bus_of(settings, clock), clock=clock)

    def drain() -> None:
        daemon.drain()
        if daemon.gave_up:
            asyncio.get_running_loop().call_later(GIVE_UP_S, os._exit, EXIT_OK)

    drain_on_signals(drain)
    reload = Reload(settings, read_again, notifier=daemon.notifier, clock=clock, renew_keys=daemon.renew_keys)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
    await daemon.run()
    if daemon.gave_up:
        os._exit(EXIT_OK)


def bus_of(settings: Settings, clock: Clock) -> Bus:
    """Only what the settings name is imported."""
    bus: Bus
    if settings.bus.kind == "kafka":
        from tickcast.live.buses.kafka import KafkaBus
        from tickcast.live.buses.kafka_group import GroupBus

        bus = KafkaBus(settings) if settings.kafka.assignment == "static" else GroupBus(settings)
    elif settings.bus.kind == "mqtt":
        from tickcast.live.buses.mqtt import MqttBus

        bus = MqttBus(settings)
    else:
        from tickcast.io.memory_bus import MemoryBus
        from tickcast.live.buses.memory import EmbeddedBus

        bus = EmbeddedBus(MemoryBus(clock))
    if settings.mqtt.mirror:
        from tickcast.live.buses.mqtt import MirroredBus

        bus = MirroredBus(bus, settings)
    return bus


class Reload:
    """SIGHUP, `systemctl reload`: settings and keys are read again, and what can change while ticks flow does: the log,
    and who may give commands. Other differences are named in the log and wait for a restart; what is wrong changes
    nothing."""

    def __init__(
        self, settings: Settings, read_again: Callable[[], Settings], *, notifier: Notifier, clock: Clock,
        renew_keys: Callable[[], None],
    ) -> None:  # fmt: skip
        self._running, self._read_again = settings, read_again
        self._notifier, self._clock, self._renew_keys = notifier, clock, renew_keys

    def __call__(self) -> None:
        self._notifier.reloading()
        log = structlog.get_logger()
        try:
            fresh = self._read_again()
        except BadSettings as refused:
            log.error("settings_refused", reason=str(refused))
            self._notifier.ready("live; the settings that were read again are refused, the old ones stay")
            return
        set_up_logging(fresh.log, clock=self._clock)
        said = self._keys_said()
        later = [key for key in differences(self._running, fresh) if not key.startswith("log.")]
        log.info("settings_reloaded", after_restart=later)
        said += [f"after a restart: {', '.join(later)}"] if later else []
        self._notifier.ready("; ".join(["live", *said]))

    def _keys_said(self) -> list[str]:
        try:
            self._renew_keys()
        except BadSettings as refused:
            structlog.get_logger().error("keys_refused", reason=str(refused))
            return ["the keys that were read again are refused, the old ones stay"]
        return []


def differences(one: Settings, other: Settings) -> list[str]:
    """Names of the settings that differ."""
    ours, theirs = _flat(one.model_dump()), _flat(other.model_dump())
    return sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return leaves
