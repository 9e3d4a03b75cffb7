"""Has aiokafka hand over what it fetched as whole blobs, for consumers that ask for it. Opening them is not its job.

The client wraps each partition of a fetch in `MemoryRecords` and `PartitionRecords`, two globals of its fetcher; here
they are swapped for dispatchers, and every consumer without the sentinel still gets the client's own classes.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from tickcast.io.kafka import known_client
from tickcast.io.kafka.blob import Blob, open_blob
from tickcast.io.kafka.wire import TRACE_LENGTH, TRACEPARENT

BLOBS: Final = object()
"""As `value_deserializer` of a consumer: its `getmany()` gives one Blob per partition. Never pass `max_records`: what
the client holds back stops it from fetching ahead."""


def install() -> None:
    """Swap the names, once. MissingPackage where the client's inside is not the one that this expects."""
    if not isinstance(getattr(fetcher.MemoryRecords, "__self__", None), _Dispatch):
        known_client.require()
        dispatch = _Dispatch(fetcher.MemoryRecords, fetcher.PartitionRecords)
        fetcher.MemoryRecords, fetcher.PartitionRecords = dispatch.records, dispatch.partition


class _Dispatch:
    def __init__(self, plain_records: Any, plain_partition: Any) -> None:
        self._plain_records = plain_records
        self._plain_partition = plain_partition

    def records(self, data: bytes) -> "_Fetched":
        return _Fetched(data, self._plain_records(data))

    def partition(
        self,
        tp: TopicPartition,
        records: "_Fetched",
        aborted_transactions: Iterable[tuple[int, int]] | None,
        fetch_offset: int,
        key_deserializer: Any,
        value_deserializer: Any,
        check_crcs: bool,
        isolation_level: int,
    ) -> Any:
        if value_deserializer is not BLOBS:
            return self._plain_partition(
                tp, records.plain, aborted_transactions, fetch_offset, key_deserializer=key_deserializer,
                value_deserializer=value_deserializer, check_crcs=check_crcs, isolation_level=isolation_level,
            )  # fmt: skip
        left_out = (aborted_transactions or ()) if isolation_level == fetcher.READ_COMMITTED else ()
        return _OneBlob(Blob.scan(tp.topic, tp.partition, records.data, fetch_offset, left_out))


class _Fetched:
    """Stands where the client's MemoryRecords stood, whose word on what is complete counts for everybody."""

    def __init__(self, data: bytes, plain: Any) -> None:
        self.data = data
        self.plain = plain

    def has_next(self) -> bool:
        return bool(self.plain.has_next())

    def size_in_bytes(self) -> int:
        return int(self.plain.size_in_bytes())


class _OneBlob:
    """Stands where PartitionRecords stood: an iterator whose `next_fetch_offset` the client takes as the position.

    A blob without records (control batches only) is given too: so the position behind it is known.
    """

    def __init__(self, blob: Blob) -> None:
        self.next_fetch_offset = blob.fetch_offset
        self._blob: Blob | None = blob

    def __iter__(self) -> Iterator[Blob]:
        return self

    def __next__(self) -> Blob:
        if self._blob is None:
            raise StopIteration
        blob, self._blob = self._blob, None
        self.next_fetch_offset = blob.next_offset
        return blob


def warm_up() -> None:
    """Compile all kernels that reading runs, or load them from the cache, on one batch that is thrown away."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, producer_id=-1, producer_epoch=-1, base_sequence=0, batch_size=1 << 10)
    builder.append(0, 0, b"", b"", [(TRACEPARENT.decode(), bytes(TRACE_LENGTH))])
    open_blob(Blob.scan("", 0, bytes(builder.build()), 0, aborted=[(0, 0)]))
