"""Fixtures that every folder of tests shares."""

import gc
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import structlog
from numba.core import event
from xdist.scheduler import LoadScopeScheduling

import brokerkit
import docskit
import mosquittokit
import nursery
from brokerkit import KafkaBroker, KafkaCluster
from mosquittokit import Mosquitto
from needs import need
from tickcast import plugin

WITH_KAFKA = re.compile(r"[(,]\s*(kafka|secure_kafka|own_kafka|kafka_cluster)[:,)]")  # one of the fixtures below

SLOW = "SLOW_TESTS"  # names the file in which a lane lists them for who shares tests out; once it is gone, lanes stop

QUICK_S = 5.0  # of processor time that a test may take which is not marked slow

hypothesis.settings.register_profile("untimed", deadline=None)  # a first example may compile a kernel
hypothesis.settings.load_profile("untimed")
unfreeze = gc.unfreeze


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        folder = tempfile.mkdtemp()
        config.add_cleanup(lambda: shutil.rmtree(folder))
        os.environ[SLOW] = os.path.join(folder, "slow")
    else:  # a lane is deaf to Ctrl-C and 80 columns wide, and so would be what it starts
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for name in ("COLUMNS", "LINES"):
            os.environ.pop(name, None)
    nursery.hatch_workers()
    plugin.entry_points = by_places(plugin.entry_points)


def by_places(entry_points: Callable[..., Any]) -> Callable[..., Any]:
    """Who looks for a plugin reads the metadata of all that is installed: again only where something was installed."""

    @cache
    def found(group: str, places: tuple[tuple[str, int], ...]) -> Any:
        return entry_points(group=group)

    def in_places(*, group: str) -> Any:
        return found(group, tuple((place, os.stat(place).st_mtime_ns) for place in sys.path if os.path.isdir(place)))

    return in_places


@pytest.hookimpl(tryfirst=True)  # before a lane says what it has
def pytest_collection_finish(session: pytest.Session) -> None:
    """A daemon that starts has all looked through that there is, and freezes it until it ends: what all the tests have
    imported is frozen once instead.
    """
    gc.collect()
    gc.freeze()
    gc.freeze = gc.unfreeze = lambda: None
    if getattr(session.config, "workerinput", {}).get("workerid") == "gw0":
        slow = [item.nodeid for item in session.items if item.get_closest_marker("slow")]
        Path(os.environ[SLOW]).write_text("\n".join(slow), encoding="utf-8")


def pytest_unconfigure() -> None:
    while nursery.nurseries:
        nursery.nurseries.popitem()[1].close()
    unfreeze()  # else libraries would tell at the end of all that they leave behind


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The quick ones first: what they find is known in minutes."""
    for item in items:
        if needs_kafka(item.path):
            item.add_marker("slow")
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """A lane has been sent hundreds of tests by the time that it is to stop."""
    if hasattr(item.config, "workerinput") and not os.path.exists(os.environ[SLOW]):
        item.session.shouldstop = "a quick test failed"


class Compiling(event.Listener):  # type: ignore[misc]
    """Processor time that went into kernels: whoever comes first compiles for all that follow."""

    def __init__(self) -> None:
        self.seconds, self._depth, self._since = 0.0, 0, 0.0

    def on_start(self, event: event.Event) -> None:
        if not self._depth:
            self._since = time.process_time()
        self._depth += 1

    def on_end(self, event: event.Event) -> None:
        self._depth -= 1
        if not self._depth:
            self.seconds += time.process_time() - self._since


compiling = Compiling()
event.register("numba:compile", compiling)


def worked_s() -> float:
    """Processor time of this process and of the children that have ended, without kernels."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system - compiling.seconds


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Processor time, not time: what a test waits for its neighbours is not its own."""
    before = worked_s()
    yield
    took = worked_s() - before
    if took > QUICK_S and "CI" in os.environ and not item.get_closest_marker("slow"):
        pytest.fail(
            f"took {took:.1f} s of processor time: a test above {QUICK_S:.0f} s is made quicker, or marked slow"
        )


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if (times := os.environ.get("TEST_TIMES")) and "PYTEST_XDIST_WORKER" not in os.environ:
        with open(times, "a") as file:
            file.write(f"{report.duration:.2f} {report.when} {report.nodeid}\n")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """For `pytest -n 2`: the quick tests of a file are one lane's, then its slow ones, and all that need Kafka are one
    lane's, for two tests that start, kill and load brokers beside each other would stretch each other's waits. Where a
    quick test fails in CI, the slow ones are left out.
    """
    lanes = Lanes(config, log)
    config.pluginmanager.register(lanes)
    return lanes


class Lanes(LoadScopeScheduling):  # type: ignore[misc]
    failed = ""  # a quick test

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::")[0]
        if nodeid not in self.slow:
            return file
        return "kafka" if needs_kafka(self.config.rootpath / file) else f"{file} slow"

    @cached_property
    def slow(self) -> frozenset[str]:
        return frozenset(Path(os.environ[SLOW]).read_text(encoding="utf-8").splitlines())

    def mark_test_complete(self, node: Any, item_index: int, duration: float = 0) -> None:
        super().mark_test_complete(node, item_index, duration)
        if self.failed and "CI" in os.environ and self.collection[item_index] in self.slow:
            self.config.pluginmanager.getplugin("dsession").shouldstop = f"{self.failed} failed, which is a quick test"
            Path(os.environ[SLOW]).unlink(missing_ok=True)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and report.nodeid not in self.slow:
            self.failed = report.nodeid


@cache
def needs_kafka(file: Path) -> bool:
    return WITH_KAFKA.search(file.read_text(encoding="utf-8")) is not None


@pytest.fixture(autouse=True)
def process_as_it_was() -> Iterator[None]:
    """A command that is run within a test sets up the log, here for a stream that is closed later, and the umask."""
    log, umask = structlog.get_config(), os.umask(0o022)
    os.umask(umask)
    yield
    structlog.configure(**log)
    os.umask(umask)


@pytest.fixture
def cold_workers() -> Iterator[None]:
    """Workers of jobs and of trials start as they do for a user."""
    with nursery.cold_workers():
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real market data beside the checkout; absent, tests skip, but never in CI."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    need(folder.is_dir(), f"the market data in {folder}")
    return folder


def need_kafka() -> None:
    need(brokerkit.is_installed(), brokerkit.REMEDY)


@pytest.fixture
def run_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[[str], list[str]]:
    """Runs the worked example of a page of the docs in an empty folder; gives the lines that its program printed."""
    monkeypatch.chdir(tmp_path)
    return lambda page: docskit.run_example(page, capfd)


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaBroker]:
    """One broker that all tests share: topics and groups get names from `brokerkit.unique`, and nobody kills it."""
    need_kafka()
    with KafkaBroker() as broker:
        yield broker


@pytest.fixture(scope="session")
def secure_kafka() -> Iterator[KafkaBroker]:
    """One more to share: TLS, SASL, and no right without `allow`."""
    need_kafka()
    with KafkaBroker(heap_mb=256, secure=True) as broker:
        yield broker


@pytest.fixture(scope="session")
def breakable_kafka() -> Iterator[KafkaBroker]:
    need_kafka()
    with KafkaBroker(heap_mb=256, proxied=True) as broker:
        yield broker


@pytest.fixture
def own_kafka(breakable_kafka: KafkaBroker) -> Iterator[KafkaBroker]:
    """A broker for this test alone, to kill, to pause and, by its listener PROXIED, to cut off; then it is mended."""
    yield breakable_kafka
    breakable_kafka.mend()


@pytest.fixture(scope="module")
def breakable_cluster() -> Iterator[KafkaCluster]:
    need_kafka()
    with KafkaCluster() as cluster:
        yield cluster


@pytest.fixture
def kafka_cluster(breakable_cluster: KafkaCluster) -> Iterator[KafkaCluster]:
    """Three brokers for this test alone; then they are mended."""
    yield breakable_cluster
    breakable_cluster.mend()


@pytest.fixture
def mosquitto() -> Iterator[Mosquitto]:
    need(mosquittokit.is_installed(), mosquittokit.REMEDY)
    with Mosquitto() as broker:
        yield broker


@pytest.fixture
def secure_mosquitto() -> Iterator[Mosquitto]:
    """With TLS and one user, `mosquittokit.USER`."""
    need(mosquittokit.is_installed(), mosquittokit.REMEDY)
    with Mosquitto(secure=True) as broker:
        yield broker
