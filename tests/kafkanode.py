"""One Kafka broker as a child process: its settings, its life, and what it is asked as an administrator."""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

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


def ask(bootstrap: str, question: Callable[[AIOKafkaAdminClient], Awaitable[T]]) -> T:
    """Ask an admin client, from any thread, with or without a running event loop."""

    async def answer() -> T:
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=10_000)
        try:
            async with asyncio.timeout(30):
                await admin.start()
                return await question(admin)
        finally:
            await admin.close()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(answer())).result()


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
        except (KafkaError, OSError):
            return False
        return self.number in seen and len(seen) >= nodes

    @property
    def child(self) -> Child:
        if self._child is None:
            raise RuntimeError(f"Kafka node {self.number} was not started")
        return self._child

    def kill(self) -> None:
        """SIGKILL."""
        if self._child:
            self._child.kill()

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        self.child.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.child.signal(signal.SIGCONT)

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
