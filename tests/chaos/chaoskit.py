"""The real daemon as a child process with topics and folders of its own, and a supervisor that restarts it."""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from feeder import Feeder, Message, feed_at_once

from brokerkit import KafkaCluster, unique
from kafkanode import ask
from netkit import Child, wait_until
from nursery import Warm
from tickcast.errors import EXIT_FENCED, EXIT_OK, EXIT_REFUSED

HERE = Path(__file__).parent
TICKCAST = [Path(sys.executable).parent / "tickcast"]
OUTPUTS = ("forecasts", "dlq", "accuracy", "drift", "health", "features")
FINAL = (EXIT_OK, EXIT_FENCED, EXIT_REFUSED)  # systemd/tickcast.service does not restart on these
MODES = ("at_least_once", "exactly_once")
FIRST_TICKS = 500
RESTART_S = 0.2
LIMIT_S = 120.0


def seed_of(name: str) -> int:
    """CHAOS_SEED, or a fresh one; printed, so that a failure can be had again."""
    seed = int(os.environ.get("CHAOS_SEED") or int.from_bytes(os.urandom(4), "big"))
    print(f"{name}: CHAOS_SEED={seed}")
    return seed


def is_long() -> bool:
    return bool(os.environ.get("CHAOS_LONG"))


def modes(*short: str) -> pytest.MarkDecorator:
    """Run the test in these modes of delivery; in the long form in both."""
    return pytest.mark.parametrize("delivery", MODES if is_long() else short)


class Daemon(Child):
    """One run of `tickcast run`, forked from a process that has its imports and kernels behind it."""

    popen = Warm

    @property
    def exit_code(self) -> int | None:
        """Negative where a signal ended it; None while it runs."""
        return self._process.poll()

    @property
    def last_words(self) -> str:
        """What it said of its end to whoever started it."""
        return next((line for line in self.log().splitlines() if line.startswith("tickcast: ")), "")

    @property
    def is_stopped(self) -> bool:
        """By SIGSTOP."""
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    def has_logged(self, event: str) -> bool:
        return any(line["event"] == event for line in self.events())

    def events(self) -> list[dict[str, Any]]:
        """Its structured log so far."""
        lines = [line for line in self.log().splitlines() if line.startswith("{") and line.endswith("}")]
        return [json.loads(line) for line in lines]

    def wait_for(self, event: str, *, limit_s: float = LIMIT_S) -> None:
        self.wait_until(lambda: self.has_logged(event), f"event '{event}' in the log", limit_s=limit_s)

    def ended(self, *, limit_s: float = LIMIT_S) -> int:
        """Its exit code, once it has ended."""
        try:
            wait_until(lambda: not self.is_alive, "the daemon to end", limit_s=limit_s)
        except TimeoutError as late:
            raise TimeoutError(f"{late}\n{self.log()[-4000:]}") from None
        code = self.exit_code
        self.kill()  # its guard
        assert code is not None
        return code

    def drain(self) -> int:
        self.signal(signal.SIGTERM)
        return self.ended()


class Deployment:
    """One slot: its topics on a broker, its settings file, its folder, and the daemons that ran in it."""

    def __init__(
        self, broker: KafkaCluster, folder: Path, *, delivery: str = "at_least_once", partitions: int = 4,
        ticks: str | None = None, listener: str = "PLAINTEXT", **settings: object,
    ) -> None:  # fmt: skip
        self.broker, self.folder, self.delivery, self.partitions = broker, folder, delivery, partitions
        self.group = unique("chaos")
        self.prefix = f"{self.group}."
        self.ticks = ticks or broker.create_topic(unique("ticks"), partitions)
        for name in OUTPUTS:
            broker.create_topic(self.prefix + name, partitions)
        self.settings = {
            "bus.kind": "kafka", "topics.ticks": [self.ticks], "topics.prefix": self.prefix,
            "kafka.bootstrap_servers": broker.address(listener), "kafka.group": self.group, "kafka.delivery": delivery,
            "quality.future_ms": 0, "bars.kind": "tick", "bars.every_ticks": 1, "bars.lateness_ms": 1000,
            "window.lookback": 16, "forecast.horizon": 4, "model.default": "holt", "score.adapt_every_bars": 16,
            "store.path": str(folder / "store.duckdb"), "runtime.folder": str(folder / "run"), "snapshot.every_s": 1,
            "snapshot.folder": str(folder / "snapshots"), "log.format": "json",
        } | dotted(settings)  # fmt: skip
        self._runs = count(1)
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def store(self) -> Path:
        return Path(self.settings["store.path"])

    def start(self, *, program: Sequence[str | Path] = TICKCAST, **settings: object) -> Daemon:
        number = next(self._runs)
        config = self.folder / f"settings-{number}.toml"
        config.write_text(toml(self.settings | dotted(settings)))
        return Daemon([*program, "run", "--config", config], self.folder / f"log-{number}")

    def start_to_die(self, seam: str, after: int) -> Daemon:
        """A daemon that kills itself when it has passed that seam so often."""
        return self._start_with(seam, after, signal.SIGKILL)

    def start_to_stop(self, seam: str, after: int) -> Daemon:
        """A daemon that stops itself there, until it is told to go on."""
        return self._start_with(seam, after, signal.SIGSTOP)

    def _start_with(self, seam: str, after: int, number: signal.Signals) -> Daemon:
        return self.start(program=[sys.executable, HERE / "seams.py", seam, str(after), number.name])

    def twin(self, name: str, **settings: object) -> "Deployment":
        """An own group, topics and folder over the same ticks."""
        return Deployment(
            self.broker, self.folder.parent / name, delivery=self.delivery, partitions=self.partitions,
            ticks=self.ticks, **settings,
        )  # fmt: skip

    def has_snapshot(self) -> bool:
        return any(Path(self.settings["snapshot.folder"]).glob("*.snapshot"))

    def is_caught_up(self) -> bool:
        """All that the topic holds has been committed; a broker that cannot tell leaves it open."""
        try:
            ends, committed = self.ends(), self.committed()
        except (KafkaError, TimeoutError, OSError):
            return False
        return all(committed.get(partition, 0) >= end for partition, end in ends.items())

    def committed(self) -> dict[int, int]:
        async def positions(admin: AIOKafkaAdminClient) -> dict[int, int]:
            found = await admin.list_consumer_group_offsets(self.group)
            return {at.partition: meta.offset for at, meta in found.items() if at.topic == self.ticks}

        return ask(self.broker.bootstrap, positions)

    def ends(self) -> dict[int, int]:
        async def ends(_: AIOKafkaAdminClient) -> dict[int, int]:
            async with AIOKafkaConsumer(bootstrap_servers=self.broker.bootstrap) as consumer:
                found = await consumer.end_offsets([TopicPartition(self.ticks, p) for p in range(self.partitions)])
            return {at.partition: end for at, end in found.items()}

        return ask(self.broker.bootstrap, ends)

    def begin(self, messages: Iterator[Message]) -> None:
        """Some ticks are through and a snapshot is there: from then on anything may happen at any time."""
        feed_at_once(self.broker.bootstrap, self.ticks, messages, FIRST_TICKS)
        self.run_undisturbed()
        assert self.has_snapshot()

    def run_undisturbed(self) -> None:
        """From the first tick to the last, in one go."""
        daemon = self.start()
        daemon.wait_for("daemon_started")
        daemon.wait_until(self.is_caught_up, "the end of the topic", limit_s=LIMIT_S)
        assert daemon.drain() == EXIT_OK, daemon.log()[-4000:]


class Supervisor:
    """Restarts the daemon of a deployment whenever it dies, as systemd would; in a thread."""

    def __init__(self, deployment: Deployment) -> None:
        self.exits: list[int] = []
        self.runs: list[Daemon] = []
        self._deployment = deployment
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="supervisor", daemon=True)

    @property
    def daemon(self) -> Daemon:
        return self.runs[-1]

    def wait_for(self, is_so: Callable[[Daemon], bool], what: str, *, limit_s: float = LIMIT_S) -> None:
        """Whatever the number of restarts."""

        def holds() -> bool:
            assert self._thread.is_alive(), f"the daemon ended for good: {self.exits}\n{self.daemon.log()[-4000:]}"
            return is_so(self.daemon)

        try:
            wait_until(holds, what, limit_s=limit_s)
        except TimeoutError as late:
            raise TimeoutError(f"{late}; exits: {self.exits}\n{self.daemon.log()[-4000:]}") from None

    def catch_up(self, *, limit_s: float = LIMIT_S) -> None:
        self.wait_for(lambda _: self._deployment.is_caught_up(), "all ticks to be committed", limit_s=limit_s)

    def end(self, feeder: Feeder) -> None:
        """No more ticks; all that were fed are committed, and the daemon drains."""
        feeder.finish()
        self.catch_up()
        self.drain()

    def kill_after(self, seconds: float) -> None:
        """SIGKILL for the daemon that runs then; returns when it has ended."""
        pause(seconds)
        self.wait_for(lambda daemon: daemon.is_alive, "a daemon to kill")
        before = len(self.exits)
        self.daemon.signal(signal.SIGKILL)
        self.wait_for(lambda _: len(self.exits) > before, "the end of what was killed")

    def drain(self) -> None:
        """Ends well, and so does the supervision."""
        self._stopping.set()
        self.daemon.signal(signal.SIGTERM)
        self._thread.join(LIMIT_S)
        assert self.exits[-1] == EXIT_OK, f"{self.exits}\n{self.daemon.log()[-4000:]}"

    def __enter__(self) -> "Supervisor":
        self._thread.start()
        wait_until(lambda: bool(self.runs), "the first start")
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self.daemon.signal(signal.SIGKILL)
            self._thread.join(LIMIT_S)

    def _run(self) -> None:
        while True:
            self.runs.append(daemon := self._deployment.start())
            while daemon.is_alive:
                pause(0.02)
            self.exits.append(daemon.ended())
            if self._stopping.is_set() or self.exits[-1] in FINAL:
                return
            pause(RESTART_S)


def pause(seconds: float) -> None:
    Event().wait(seconds)


def dotted(settings: Mapping[str, object]) -> dict[str, Any]:
    return {key.replace("__", "."): value for key, value in settings.items()}


def toml(settings: Mapping[str, Any]) -> str:
    sections: dict[str, list[str]] = {}
    for key, value in settings.items():
        section, name = key.rsplit(".", 1)
        sections.setdefault(section, []).append(f"{name} = {json.dumps(value)}")
    return "".join(f"[{section}]\n" + "\n".join(lines) + "\n" for section, lines in sections.items())
