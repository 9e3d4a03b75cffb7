"""What broker tests stand on: free ports, children that never outlive us, certificates, a proxy. It knows no broker."""

import asyncio
import os
import secrets
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Self

HOST = "127.0.0.1"
LOWEST_PORT = 15_000
LANE = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
LANES = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_given: set[int] = set()


def free_port() -> int:
    """A port below those that the kernel gives to outgoing connections: it stays free while its server is down."""
    ephemeral = Path("/proc/sys/net/ipv4/ip_local_port_range")
    highest = int(ephemeral.read_text().split()[0]) if ephemeral.exists() else 32_768
    room = max(highest - LOWEST_PORT, 1000) // LANES  # of one lane: none takes a port that the other is about to bind
    for _ in range(200):
        port = LOWEST_PORT + LANE * room + secrets.randbelow(room)
        if port not in _given and is_free(port):
            _given.add(port)
            return port
    raise RuntimeError(f"no free port from {LOWEST_PORT} to {highest}")


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def answers(port: int) -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def wait_until(is_so: Callable[[], bool], what: str, *, limit_s: float = 60, every_s: float = 0.05) -> None:
    until = time.monotonic() + limit_s
    while not is_so():
        if time.monotonic() > until:
            raise TimeoutError(f"waited {limit_s:.0f} s for {what}")
        time.sleep(every_s)


class Child:
    """A process in a session of its own with its output in a file; it is killed when this process ends, however."""

    popen: type["subprocess.Popen[bytes]"] = subprocess.Popen

    def __init__(self, command: Sequence[str | Path], log: Path) -> None:
        self._log = log
        self._process = self._start(command)
        # The guard waits for the end of its input, which is the end of this process.
        self._guard = subprocess.Popen(
            ["sh", "-c", f"read -r _; kill -KILL {self._process.pid}"],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip

    def _start(self, command: Sequence[str | Path]) -> "subprocess.Popen[bytes]":
        with self._log.open("ab") as output:
            return self.popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, which a stopped process heeds too, and wait for its end."""
        self._guard.kill()
        self._guard.wait()
        if self._guard.stdin:
            self._guard.stdin.close()
        self._process.kill()
        self._process.wait()

    def wait_until(self, is_so: Callable[[], bool], what: str, *, limit_s: float = 60) -> None:
        """Like `wait_until`, but gives up with the log as soon as the process has ended."""

        def is_so_or_ended() -> bool:
            if not self.is_alive:
                raise RuntimeError(
                    f"no {what}: the process ended with {self._process.returncode}\n{self.log()[-4000:]}"
                )
            return is_so()

        try:
            wait_until(is_so_or_ended, what, limit_s=limit_s)
        except TimeoutError as late:
            raise TimeoutError(f"{late}\n{self.log()[-4000:]}") from None


@dataclass(frozen=True)
class Certificates:
    """PEM files for 127.0.0.1 and localhost: an authority, what it signed, and an authority that signed nothing."""

    folder: Path

    def make(self) -> None:
        """With `openssl`, in a tenth of a second."""
        self.folder.mkdir()
        for authority in ("ca", "stranger"):
            self._request(authority, "basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign")
        for name in ("server", "client"):
            self._request(name, f"subjectAltName=IP:{HOST},DNS:localhost", "basicConstraints=CA:FALSE", signer="ca")

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def stranger(self) -> Path:
        """An authority whose word should count for nothing."""
        return self.folder / "stranger.pem"

    def certificate(self, name: str) -> Path:
        """Of `server` or `client`."""
        return self.folder / f"{name}.pem"

    def key(self, name: str) -> Path:
        return self.folder / f"{name}.key"

    def _request(self, name: str, *extensions: str, signer: str | None = None) -> None:
        blank = self.folder / "openssl.cnf"
        blank.write_text("[req]\ndistinguished_name = name\n[name]\n")
        command: list[str | Path] = ["openssl", "req", "-x509", "-config", blank, "-nodes", "-days", "2", "-subj"]
        command += [f"/CN={name}", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        command += ["-keyout", self.key(name), "-out", self.certificate(name)]
        command += [part for extension in extensions for part in ("-addext", extension)]
        if signer:
            command += ["-CA", self.certificate(signer), "-CAkey", self.key(signer)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"openssl made no certificate: {done.stderr}")


class Proxy:
    """A TCP port in front of another that can be cut and paused; it runs in a thread of its own."""

    def __init__(self, target_port: int, port: int | None = None) -> None:
        self.port = port or free_port()
        self._target_port = target_port
        self._ends: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self.restore()

    def cut(self) -> None:
        """Reset every connection and refuse new ones."""
        self._run(self._cut())

    def restore(self) -> None:
        """Accept connections, again after `cut`."""
        self._run(self._listen())

    def pause(self) -> None:
        """Keep connections open, accept new ones, and let no byte through."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def resume(self) -> None:
        self._loop.call_soon_threadsafe(self._flowing.set)

    def close(self) -> None:
        self.resume()
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, job: Coroutine[object, object, None]) -> None:
        asyncio.run_coroutine_threadsafe(job, self._loop).result(10)

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._connect, HOST, self.port)

    async def _cut(self) -> None:
        if self._server:
            self._server.close()
            self._server = None
        for end in self._ends:
            with suppress(OSError):  # the far side may have ended it: its socket is closed, its task not yet told
                end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            end.transport.abort()

    async def _end(self) -> None:
        await self._cut()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._ends.add(writer)
        try:
            far_reader, far_writer = await asyncio.open_connection(HOST, self._target_port)
        except OSError:
            writer.transport.abort()
        else:
            self._ends.add(far_writer)
            await asyncio.gather(self._pass_on(reader, far_writer), self._pass_on(far_reader, writer))
            self._ends.discard(far_writer)
        self._ends.discard(writer)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()
