"""Has aiokafka hand over what it fetched as whole blobs, for consumers that ask for it. Opening them is not its job.

The client wraps each partition of a fetch in `MemoryRecords` and `PartitionRecords`, two globals of its fetcher; here
they are swapped for dispatchers, and every consumer without the sentinel still gets the client's own classes.
"""

import inspect
from collections.abc import Iterable, Iterator
from typing import Any, Final

import numpy as np
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from tickcast.columns import RawBatch
from tickcast.io.kafka.blob import Blob, open_blob
from tickcast.io.kafka.wire import MOST_MS, TRACE_LENGTH, TRACEPARENT

BLOBS: Final = object()
"""As `value_deserializer` of a consumer: its `getmany()` gives one Blob per partition. Never pass `max_records`: what
the client holds back stops it from fetching ahead."""

EXPECTED = (
    "tp", "records", "aborted_transactions", "fetch_offset", "key_deserializer", "value_deserializer", "check_crcs",
    "isolation_level",
)  # fmt: skip


def install() -> bool:
    """Swap the names, once. False where the client's internals are not those that this expects: read plainly then."""
    if isinstance(getattr(fetcher.MemoryRecords, "__self__", None), _Dispatch):
        return True
    if not _as_expected():
        return False
    dispatch = _Dispatch(fetcher.MemoryRecords, fetcher.PartitionRecords)
    fetcher.MemoryRecords, fetcher.PartitionRecords = dispatch.records, dispatch.partition
    return True


def _as_expected() -> bool:
    try:
        used = fetcher.Fetcher._proc_fetch_request.__code__.co_names
        read = fetcher.FetchResult.getall.__code__.co_names
        position = fetcher.FetchResult._update_position.__code__.co_names
        taken = tuple(inspect.signature(fetcher.PartitionRecords).parameters)
        records = fetcher.MemoryRecords(b"")
        known = not records.has_next() and records.size_in_bytes() == 0 and fetcher.READ_COMMITTED == 1
    except (AttributeError, TypeError, ValueError):
        return False
    swapped = {"MemoryRecords", "PartitionRecords", "has_next", "size_in_bytes"} <= {*used}
    return known and swapped and taken == EXPECTED and "_partition_records" in read and "next_fetch_offset" in position


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
        aborted: Iterable[tuple[int, int]] | None,
        fetch_offset: int,
        key_deserializer: Any,
        value_deserializer: Any,
        check_crcs: bool,
        isolation_level: int,
    ) -> Any:
        if value_deserializer is not BLOBS:
            return self._plain_partition(
                tp, records.plain, aborted, fetch_offset, key_deserializer, value_deserializer, check_crcs,
                isolation_level,
            )  # fmt: skip
        left_out = (aborted or ()) if isolation_level == fetcher.READ_COMMITTED else ()
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
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, 0, 1 << 10)
    builder.append(0, 0, b"", b"", [(TRACEPARENT.decode(), bytes(TRACE_LENGTH))])
    open_blob(Blob.scan("", 0, bytes(builder.build()), 0, aborted=[(0, 0)]))


def plain_batches(fetched: dict[TopicPartition, list[Any]]) -> list[RawBatch]:
    """What `getmany` of an ordinary consumer of raw bytes gives, in the same columns."""
    return [_plain_batch(tp, records) for tp, records in fetched.items() if records]


def _plain_batch(tp: TopicPartition, records: list[Any]) -> RawBatch:
    pieces = [piece for record in records for piece in (record.value, record.key, _traceparent(record.headers))]
    lengths = np.fromiter((0 if piece is None else len(piece) for piece in pieces), np.int64, len(pieces))
    ends = np.cumsum(lengths)
    starts = ends - lengths
    missing = np.fromiter((piece is None for piece in pieces), bool, len(pieces))
    trace = np.where(missing[2::3], -1, starts[2::3])
    return RawBatch(
        tp.topic, tp.partition, np.frombuffer(bytearray().join(piece for piece in pieces if piece), np.uint8),
        np.where(missing[::3], -1, starts[::3]), np.where(missing[::3], -1, ends[::3]),
        np.fromiter((r.offset for r in records), np.int64, len(records)),
        np.fromiter((_ns(r.timestamp) for r in records), np.int64, len(records)),
        (np.where(missing[1::3], -1, starts[1::3]), np.where(missing[1::3], -1, ends[1::3])),
        None if missing[2::3].all() else trace,
    )  # fmt: skip


def _ns(ms: int) -> int:
    return ms * 10**6 if 0 <= ms <= MOST_MS else -1


def _traceparent(headers: Iterable[tuple[str, bytes | None]]) -> bytes | None:
    name = TRACEPARENT.decode()
    return next((v for k, v in headers if k == name and v is not None and len(v) == TRACE_LENGTH), None)
