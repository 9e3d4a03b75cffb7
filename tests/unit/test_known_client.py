"""A client whose inside is not the one we know is refused, by every command, before it reads or sends anything."""

import sys
import tomllib
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.consumer import fetcher
from aiokafka.producer import message_accumulator, transaction_manager

from tickcast.errors import EXIT_REFUSED, MissingPackage
from tickcast.io.kafka import fetch, known_client
from tickcast.ui import cli

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _looked_at_anew(monkeypatch):
    """The client's two names as it has them itself, whichever test ran before; and nothing that is remembered."""
    swapped = getattr(fetcher.MemoryRecords, "__self__", None)
    if isinstance(swapped, fetch._Dispatch):
        monkeypatch.setattr(fetcher, "MemoryRecords", swapped._plain_records)
        monkeypatch.setattr(fetcher, "PartitionRecords", swapped._plain_partition)
    known_client.require.cache_clear()
    yield
    known_client.require.cache_clear()


class OtherRecords:
    def __init__(self, tp, records):
        pass


class OtherFetcher(fetcher.Fetcher):
    async def _proc_fetch_request(self, assignment, node_id, request):
        return assignment


class DeafFetcher(fetcher.Fetcher):
    error_future = None


class AskingForMore(message_accumulator.MessageBatch):
    def drain_ready(self):
        self._builder.rewind()


class OtherBytes(message_accumulator.BatchBuilder):
    def _build(self):
        return super()._build() + b"more"


async def send_batch(self, batch, tp):
    """Of another shape."""


async def stop(self):
    """Of other parts."""


OTHERS = {
    "records of a partition": (fetcher, "PartitionRecords", OtherRecords),
    "records in memory": (fetcher, "MemoryRecords", None),
    "fetcher": (fetcher, "Fetcher", OtherFetcher),
    "fetched": (fetcher, "FetchResult", object),
    "a batch asked for more": (message_accumulator, "MessageBatch", AskingForMore),
    "bytes of a batch": (message_accumulator, "BatchBuilder", OtherBytes),
    "sending a batch": (AIOKafkaProducer, "send_batch", send_batch),
    "the end of fetching": (fetcher, "Fetcher", DeafFetcher),
    "the stop of a consumer": (AIOKafkaConsumer, "stop", stop),
    "the end of a transaction": (transaction_manager.TransactionManager, "wait_for_transaction_end", None),
}


def test_the_installed_client_is_the_one_that_is_pinned_and_known():
    known_client.require()
    pinned = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    major, minor = known_client.KNOWN.split(".")
    assert f"aiokafka>={known_client.KNOWN},<{major}.{int(minor) + 1}" in pinned


def test_one_that_is_in_use_already_is_still_the_one_we_know():
    fetch.install()
    known_client.require.cache_clear()
    known_client.require()


@pytest.mark.parametrize("what", OTHERS)
def test_another_one_is_refused_and_nothing_is_swapped_in_it(monkeypatch, what):
    monkeypatch.setattr(*OTHERS[what])
    before = fetcher.MemoryRecords, fetcher.PartitionRecords
    with pytest.raises(
        MissingPackage, match=rf"aiokafka [0-9.]+ is installed.*pip install 'aiokafka=={known_client.KNOWN}"
    ):
        fetch.install()
    assert (fetcher.MemoryRecords, fetcher.PartitionRecords) == before


@pytest.mark.slow
@pytest.mark.parametrize("command", ["run", "topics", "synth --to kafka --symbols 1"])
def test_a_command_ends_as_with_any_setting_that_is_wrong(monkeypatch, capsys, tmp_path, command):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(AIOKafkaProducer, "send_batch", send_batch)
    monkeypatch.setattr(sys, "argv", ["tickcast"])
    assert cli.main([*command.split(), "--set", "bus.kind=kafka", "--set", 'topics.ticks=["ticks"]']) == EXIT_REFUSED
    assert "aiokafka" in capsys.readouterr().err
