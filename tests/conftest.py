"""Fixtures that every folder of tests shares."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import brokerkit
import docskit
import mosquittokit
from brokerkit import KafkaBroker, KafkaCluster
from mosquittokit import Mosquitto
from needs import need


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


@pytest.fixture
def own_kafka() -> Iterator[KafkaBroker]:
    """A broker of this test's own, to kill, to pause and, by its listener PROXIED, to cut off."""
    need_kafka()
    with KafkaBroker(heap_mb=256, proxied=True) as broker:
        yield broker


@pytest.fixture
def kafka_cluster() -> Iterator[KafkaCluster]:
    """Three brokers of this test's own."""
    need_kafka()
    with KafkaCluster() as cluster:
        yield cluster


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
