"""The daemon as a command: its log, its bus, what signals do to it. What it does is in `daemon.py`."""

import asyncio
import os
import signal
from collections.abc import Callable

import structlog

from tickcast.clock import Clock, SystemClock
from tickcast.errors import EXIT_OK
from tickcast.io.telemetry import set_up_logging
from tickcast.live.buses.bus import Bus
from tickcast.live.daemon import Daemon
from tickcast.live.process import drain_on_signals
from tickcast.live.reload import Reload
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
