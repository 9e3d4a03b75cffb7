"""Whom else alerts are told: a webhook, and a program of the operator's. One at a time, in order, within a limit of
time; what fails is counted and logged, and never comes back to who raised the alert. No secret is logged.
"""

import asyncio
import os
import signal
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, urlsplit

import structlog

from tickcast import __version__
from tickcast.io.jobs.child import environment
from tickcast.settings.alerts import AlertSettings

MOST_WAITING = 64
ANSWER_BYTES = 4096  # of a webhook's answer, or of what the program prints, that is looked at
TOLD_CHARS = 200  # of it that is logged
TOKEN = "{token}"

Send = Callable[[bytes], Awaitable[None]]


class HookFailed(Exception):
    """What was sent did not arrive, or was not taken."""


class Hook:
    """`offer` never waits: what finds no room is dropped and counted."""

    def __init__(self, name: str, send: Send, timeout_s: float) -> None:
        self.name = name
        self.counts: Counter[str] = Counter(sent=0, failed=0, dropped=0)
        self._send, self._timeout_s = send, timeout_s
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue(MOST_WAITING)

    def offer(self, record: bytes) -> None:
        try:
            self._waiting.put_nowait(record)
        except asyncio.QueueFull:
            self.counts["dropped"] += 1

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            record = await self._waiting.get()
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._send(record)
            except TimeoutError:
                self._failed(f"not done within {self._timeout_s:g} s")
            except (OSError, ValueError, HookFailed) as error:
                self._failed(str(error) or type(error).__name__)
            else:
                self.counts["sent"] += 1

    def _failed(self, why: str) -> None:
        self.counts["failed"] += 1
        structlog.get_logger().warning("alert_hook_failed", hook=self.name, reason=why)


def hooks(settings: AlertSettings, folder: Path) -> list[Hook]:
    """Those of the settings; the program runs in `folder`."""
    found: list[Hook] = []
    if settings.webhook:
        webhook = Webhook.of(settings.webhook, settings.webhook_token_file)
        found.append(Hook("webhook", webhook.send, settings.hook_timeout_s))
    if settings.command:
        command = Program([*settings.command], folder)
        found.append(Hook("command", command.run, settings.hook_timeout_s))
    return found


class Webhook(NamedTuple):
    """A POST of JSON; taken when the answer is 2xx. Redirects are not followed."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    target: str  # path and query, perhaps with the token's place in it
    token_file: Path | None

    @classmethod
    def of(cls, url: str, token_file: Path | None) -> "Webhook":
        parts = urlsplit(url)
        tls = ssl.create_default_context() if parts.scheme == "https" else None
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(parts.hostname or "", parts.port or (443 if tls else 80), tls, target, token_file)

    async def send(self, record: bytes) -> None:
        head = self._head(len(record))
        reader, writer = await asyncio.open_connection(self.host, self.port, ssl=self.tls, limit=ANSWER_BYTES)
        try:
            writer.write(head + record)
            await writer.drain()
            status = (await reader.readline()).split(maxsplit=2)
        finally:
            writer.transport.abort()  # a peer that does not answer a goodbye holds nobody up
        if len(status) < 2 or not status[0].startswith(b"HTTP/1.") or not status[1].startswith(b"2"):
            raise HookFailed(f"{self.host} answered {' '.join(_told(part) for part in status[1:2]) or 'nothing'}")

    def _head(self, length: int) -> bytes:
        token = self._token()
        in_target = TOKEN in self.target
        target = self.target.replace(TOKEN, quote(token, safe="/"))
        host = f"[{self.host}]" if ":" in self.host else self.host
        lines = [
            f"POST {target} HTTP/1.1", f"Host: {host}:{self.port}", f"User-Agent: tickcast/{__version__}",
            "Content-Type: application/json", f"Content-Length: {length}", "Connection: close",
        ]  # fmt: skip
        if token and not in_target:
            lines.append(f"Authorization: Bearer {token}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")

    def _token(self) -> str:
        """Read for each alert, so that a new one needs no restart."""
        if self.token_file is None:
            return ""
        token = self.token_file.read_bytes().strip().decode("latin-1")
        if not token or not (token.isascii() and token.isprintable()):
            raise HookFailed("alerts.webhook_token_file holds no token")
        return token


class Program(NamedTuple):
    """A program that reads the record from its standard input, in a session of its own so that all that it starts ends
    with it; taken when it exits with 0. It gets the environment of a job, which has no secrets.
    """

    arguments: list[str]
    folder: Path

    async def run(self, record: bytes) -> None:
        process = await asyncio.create_subprocess_exec(
            *self.arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT, cwd=self.folder, env=environment(os.environ), start_new_session=True,
        )  # fmt: skip
        try:
            _, output = await asyncio.gather(_feed(process, record), _first_of(process))
            code = await process.wait()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        if code:
            raise HookFailed(f"{self.arguments[0]} ended with {code}: {_told(output)}")


async def _feed(process: asyncio.subprocess.Process, record: bytes) -> None:
    """A program that does not read has heard all it wants."""
    assert process.stdin is not None
    with suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(record)
        await process.stdin.drain()
    process.stdin.close()


async def _first_of(process: asyncio.subprocess.Process) -> bytes:
    """The first of what it prints; the rest is read and forgotten."""
    assert process.stdout is not None
    first = b""
    while part := await process.stdout.read(ANSWER_BYTES):
        first += part[: ANSWER_BYTES - len(first)]
    return first


def _told(text: bytes) -> str:
    shown = text.decode("ascii", "replace")[:TOLD_CHARS]
    return "".join(char if char.isprintable() else " " for char in shown)
