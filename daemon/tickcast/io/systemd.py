"""What systemd and the daemon tell each other: readiness, status, signs of life. Elsewhere it is silent.

It never decides whether the daemon is well: `watch` asks, and says nothing while there is no answer.
"""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Mapping

import structlog

from tickcast.clock import Clock

SEND_S = 1.0  # systemd reads at once; a reader that does not must not hold the loop


class Notifier:
    """Speaks the protocol of sd_notify(3) over NOTIFY_SOCKET; without one every call does nothing."""

    def __init__(self, environ: Mapping[str, str], clock: Clock) -> None:
        name = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + name[1:] if name.startswith("@") else name  # @ stands for an abstract socket
        self._clock = clock
        self.watchdog_s = _watchdog_s(environ) if name else None

    def ready(self, status: str) -> None:
        """Start-up, or a reload, is over."""
        self._send("READY=1", _status(status))

    def status(self, status: str) -> None:
        """One line for `systemctl status`."""
        self._send(_status(status))

    def reloading(self) -> None:
        """`ready` must follow."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={self._clock.monotonic_ns() // 1000}")

    def stopping(self, status: str) -> None:
        self._send("STOPPING=1", _status(status))

    async def watch(self, alive: Callable[[], Awaitable[bool]]) -> None:
        """For ever: feed the watchdog at a third of its time, each time `alive` comes back and says so."""
        if self.watchdog_s is None:
            return
        while True:
            if await alive():
                self._send("WATCHDOG=1")
            await asyncio.sleep(self.watchdog_s / 3)

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
                speaker.settimeout(SEND_S)
                speaker.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            structlog.get_logger().warning("notify_failed", reason=str(error), said=lines[0])


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    """None where there is no watchdog, or it is that of another process."""
    us = environ.get("WATCHDOG_USEC", "")
    ours = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(us) / 1e6 if us.isdecimal() and int(us) and ours else None


def _status(text: str) -> str:
    return "STATUS=" + " ".join(text.split())
