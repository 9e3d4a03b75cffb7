"""One Kafka broker as a child process: its settings, its life, and what it is asked as an administrator."""

import asyncio
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from netkit import HOST, Child, Proxy, answers, wait_until

ROOT = Path(__file__).parents[1]
JARS = ROOT / "build" / "kafka"
FILES = ROOT / "tests" / "kafka"
START_S = 90.0
CLASSES = JARS / "classes.jsa"  # as a JVM has them in memory once they are loaded: half the processor time of a start
QUICK_COMPILER = "-XX:TieredStopAtLevel=1"  # halves the processor time of a start; the broker is slower at full load
T = TypeVar("T")


class Admin(AIOKafkaAdminClient):
    """As an administrator, who also knows where a topic ends."""

    def __init__(self, bootstrap: str) -> None:
        super().__init__(bootstrap_servers=bootstrap, request_timeout_ms=10_000)
        self._bootstrap = bootstrap
        self._reader: AIOKafkaConsumer | None = None

    async def ends(self, topic: str, partitions: int) -> dict[int, int]:
        if self._reader is None:
            self._reader = AIOKafkaConsumer(bootstrap_servers=self._bootstrap, request_timeout_ms=10_000)
            await self._reader.start()
        found = await self._reader.end_offsets([TopicPartition(topic, number) for number in range(partitions)])
        return {at.partition: end for at, end in found.items()}

    async def close(self) -> None:
        if self._reader is not None:
            await self._reader.stop()
        await super().close()


Question = Callable[[Admin], Awaitable[T]]
kept: dict[str, "asyncio.Task[Admin]"] = {}  # by the brokers that they ask; used in their own loop alone


def ask(bootstrap: str, question: Question[T]) -> T:
    """Ask an administrator, who is kept for the next question, from any thread, with or without a running loop."""
    return asyncio.run_coroutine_threadsafe(_answer(bootstrap, question), _loop()).result()


def forget(bootstrap: str) -> None:
    """Whoever is asked next finds the broker anew."""
    asyncio.run_coroutine_threadsafe(_close(bootstrap), _loop()).result()


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="admin", daemon=True).start()
    return loop


async def _answer(bootstrap: str, question: Question[T]) -> T:
    try:
        async with asyncio.timeout(30):
            if bootstrap not in kept:
                kept[bootstrap] = asyncio.create_task(_started(bootstrap))
            return await question(await asyncio.shield(kept[bootstrap]))
    except BaseException:
        await _close(bootstrap)
        raise


async def _started(bootstrap: str) -> Admin:
    admin = Admin(bootstrap)
    try:
        await admin.start()
    except BaseException:
        await admin.close()
        raise
    return admin


async def _close(bootstrap: str) -> None:
    if (starting := kept.pop(bootstrap, None)) is not None:
        with suppress(Exception):
            await (await starting).close()


class KafkaNode:
    """One JVM, broker and controller in one, with its data in a folder."""

    def __init__(self, number: int, folder: Path, ports: dict[str, int], *, jvm: tuple[str, ...]) -> None:
        self.number = number
        self.ports = ports
        self.proxy = Proxy(ports["PROXIED"]) if "PROXIED" in ports else None
        self.data = folder / "data"  # a folder for each partition
        self._folder = folder
        self._config = folder / "server.properties"
        self._jvm = jvm
        self._child: Child | None = None

    def address(self, listener: str = "PLAINTEXT") -> str:
        """Where clients find it; behind its proxy for the listener PROXIED."""
        port = self.proxy.port if self.proxy and listener == "PROXIED" else self.ports[listener]
        return f"{HOST}:{port}"

    def format(self, cluster: str, properties: dict[str, object], *, scram: tuple[str, ...] = ()) -> None:
        """Write the settings and an empty store of a broker of that cluster, with those users."""
        public = [name for name in self.ports if name != "CONTROLLER"]
        own = {
            "node.id": self.number,
            "listeners": ",".join(f"{name}://{HOST}:{port}" for name, port in self.ports.items()),
            "advertised.listeners": ",".join(f"{name}://{self.address(name)}" for name in public),
            "log.dirs": self.data,
        }
        self._folder.mkdir()
        lines = [f"{key}={value}\n" for key, value in (own | properties).items()]
        self._config.write_text((FILES / "server.properties").read_text() + "".join(lines))
        users = [part for user in scram for part in ("--add-scram", user)]
        command = _java("kafka.tools.StorageTool", "format", "-t", cluster, "-c", self._config, *users)
        done = subprocess.run(command, capture_output=True, text=True, timeout=START_S)
        if done.returncode:
            raise RuntimeError(f"kafka: the store was not formatted\n{done.stdout}{done.stderr}")

    def start(self) -> None:
        """Start the JVM; `wait` waits until it answers."""
        self._child = Child(_java("kafka.Kafka", self._config, jvm=self._jvm), self._folder / "log")

    def leave_classes(self) -> None:
        """Start, end, and leave what it loaded to all that come; there was none."""
        made = self._folder / CLASSES.name
        self._child = Child(
            _java("kafka.Kafka", self._config, jvm=(*self._jvm, f"-XX:ArchiveClassesAtExit={made}")),
            self._folder / "log",
        )
        self.wait()
        self.child.signal(signal.SIGTERM)
        wait_until(lambda: not self.child.is_alive, "the end of a JVM", limit_s=START_S)
        if made.exists():
            kept = CLASSES.with_name(f".{CLASSES.name}.{os.getpid()}")
            shutil.copy(made, kept)
            kept.rename(CLASSES)

    def wait(self, nodes: int = 1) -> None:
        """Until it answers and sees that many brokers, itself among them."""
        port = self.ports["PLAINTEXT"]
        self.child.wait_until(lambda: answers(port), f"Kafka on port {port}", limit_s=START_S)
        self.child.wait_until(lambda: self._sees(nodes), f"{nodes} Kafka brokers", limit_s=START_S)

    def _sees(self, nodes: int) -> bool:
        async def brokers(admin: AIOKafkaAdminClient) -> list[int]:
            return [broker["node_id"] for broker in (await admin.describe_cluster())["brokers"]]

        try:
            seen = ask(self.address(), brokers)
        except (KafkaError, OSError):  # a TimeoutError is one
            return False
        return self.number in seen and len(seen) >= nodes

    @property
    def child(self) -> Child:
        if self._child is None:
            raise RuntimeError(f"Kafka node {self.number} was not started")
        return self._child

    def kill(self) -> None:
        """SIGKILL."""
        forget(self.address())
        if self._child:
            self._child.kill()

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        self.child.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.child.signal(signal.SIGCONT)

    def mend(self) -> None:
        """It runs, and its proxy lets through; `wait` waits until it answers."""
        if self._child is None or not self._child.is_alive:
            self.start()
        self.resume()
        if self.proxy:
            self.proxy.restore()
            self.proxy.resume()

    def restart(self) -> None:
        """On the same ports and data, killed first if it runs; it answers on return."""
        self.kill()
        self.start()
        self.wait()

    def close(self) -> None:
        self.kill()
        if self.proxy:
            self.proxy.close()


def _java(main: str, *arguments: str | Path, jvm: tuple[str, ...] = (QUICK_COMPILER,)) -> list[str | Path]:
    config = f"-Dlog4j2.configurationFile={FILES / 'log4j2.properties'}"
    shared = (f"-XX:SharedArchiveFile={CLASSES}", "-Xlog:disable") if CLASSES.exists() else ()
    return ["java", "-XX:+UseSerialGC", config, *shared, *jvm, "-cp", f"{JARS}/*", main, *arguments]
