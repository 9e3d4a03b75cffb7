"""What this package knows of aiokafka's inside, and whether the installed one is like that. It changes nothing.

Blobs, finished batches, deaf clients and broken transactions are told by parts that no release promises to keep:
`fetch.py`, `publish.py`, `consumer.py` and `delivery.py` use them. So a client that differs is refused at a start.
"""

import inspect
import re
from functools import cache

import aiokafka
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.consumer import fetcher
from aiokafka.producer import message_accumulator
from aiokafka.producer.transaction_manager import TransactionManager

from tickcast.errors import MissingPackage
from tickcast.io.kafka.publish import HEADER_BYTES, ReadyBatch

KNOWN = "0.14"  # that tests/contract reads and writes with
PARTITION_RECORDS = (
    "tp", "records", "aborted_transactions", "fetch_offset", "key_deserializer", "value_deserializer", "check_crcs",
    "isolation_level",
)  # fmt: skip


@cache
def require() -> None:
    """MissingPackage where the client is not the one we know; before anything is read or sent by it."""
    for part, is_known in (("fetcher", knows_fetcher), ("producer", knows_producer), ("client", knows_clients)):
        try:
            known = is_known()
        except (AttributeError, TypeError, ValueError, OSError, AssertionError):
            known = False
        if not known:
            raise MissingPackage(
                f"aiokafka {aiokafka.__version__} is installed, and its {part} is not the one that tickcast builds on",
                remedy=f"pip install 'aiokafka=={KNOWN}.*', or a tickcast that knows this one",
            )


def knows_fetcher() -> bool:
    """It wraps what it fetched of a partition in two globals, which `fetch.py` swaps."""
    used = fetcher.Fetcher._proc_fetch_request.__code__.co_names
    records = fetcher.MemoryRecords(b"")
    return (
        {"MemoryRecords", "PartitionRecords", "has_next", "size_in_bytes"} <= {*used}
        and tuple(inspect.signature(fetcher.PartitionRecords).parameters) == PARTITION_RECORDS
        and "_partition_records" in fetcher.FetchResult.getall.__code__.co_names
        and "next_fetch_offset" in fetcher.FetchResult._update_position.__code__.co_names
        and (not records.has_next() and records.size_in_bytes() == 0 and fetcher.READ_COMMITTED == 1)
    )


def knows_producer() -> bool:
    """It takes a ReadyBatch for a batch builder of its own, and would build the same bytes."""
    users = message_accumulator.MessageBatch, message_accumulator.MessageAccumulator
    calls = set(re.findall(r"\b_builder\.(\w+)", "".join(map(inspect.getsource, users))))
    return (
        {"_set_producer_state", "_build"} <= calls <= set(dir(ReadyBatch))
        and list(inspect.signature(AIOKafkaProducer.send_batch).parameters) == ["self", "batch", "topic", "partition"]
        and _bytes_are_equal()
    )


def knows_clients() -> bool:
    """A consumer shows what ended its fetching and lets its parts be closed; a producer, what broke its transaction."""
    return (
        {"_fetcher", "_client"} <= {*AIOKafkaConsumer.stop.__code__.co_names}
        and isinstance(fetcher.Fetcher.error_future, property)
        and "_txn_manager" in AIOKafkaProducer.__init__.__code__.co_names
        and callable(TransactionManager.wait_for_transaction_end)
    )


def _bytes_are_equal() -> bool:
    theirs = message_accumulator.BatchBuilder(1 << 10, 0, is_transactional=1)
    theirs.append(timestamp=5, key=b"k", value=b"v", headers=[])
    record = bytes([16, 0, 0, 0, 2, *b"k", 2, *b"v", 0])
    ours = ReadyBatch(0, bytearray(HEADER_BYTES) + record, count=1, stamp_ms=5, codec=0)
    ours.transactional = True
    for batch in (theirs, ours):
        batch._set_producer_state(producer_id=7, producer_epoch=1, base_sequence=3)
    return bytes(theirs._build()) == ours._build()
