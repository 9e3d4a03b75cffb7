"""What was fetched as events of the engine: blobs opened, what is damaged as letters. It runs on the engine thread."""

from dataclasses import replace

import numpy as np

from tickcast.columns import RawBatch, Rejects
from tickcast.engine.core.events import Event, Letters, Reached
from tickcast.errors import Reason
from tickcast.io.kafka.blob import Blob, Damaged, open_blob


def opened(blob: Blob, expanded_bytes: int) -> list[Event]:
    """Damaged batches first: their offsets do not matter to the engine, and `Reached` ends the blob."""
    raws, damaged = open_blob(blob, most_bytes=expanded_bytes)
    return [*map(letter_of, damaged), *raws, Reached(blob.topic, blob.partition, blob.next_offset)]


def letter_of(damaged: Damaged) -> Letters:
    """The whole batch as one message that nobody can read."""
    raw = as_one(damaged.topic, damaged.partition, damaged.first_offset, damaged.data)
    return Letters(raw, Rejects.of(0, Reason.TOO_LARGE if damaged.too_large else Reason.CORRUPT))


def as_one(topic: str, partition: int, offset: int, batch: bytes) -> RawBatch:
    data, start = np.frombuffer(batch, np.uint8), np.zeros(1, np.int64)
    return RawBatch(topic, partition, data, start, start + len(data), start + offset, stamps_ns=start - 1)


class BlobOpening:
    """A blob batch by batch."""

    def __init__(self, expanded_bytes: int) -> None:
        self._expanded_bytes = expanded_bytes

    def batches(self, item: Blob) -> list[Blob]:
        """The offsets of a damaged one are what its header says, held within the blob's."""
        low, high = item.fetch_offset, item.next_offset
        rows = [item.batches[row : row + 1] for row in range(len(item.batches))]
        return [
            replace(
                item, batches=row, fetch_offset=min(max(int(row["base"][0]), low), high - 1),
                next_offset=min(max(int(row["last"][0]) + 1, low + 1), high),
            )
            for row in rows
        ]  # fmt: skip

    def open(self, batch: Blob) -> list[Event]:
        raws, damaged = open_blob(batch, most_bytes=self._expanded_bytes)
        return [*map(letter_of, damaged), *raws]

    def unopened(self, batch: Blob) -> RawBatch:
        (row,) = batch.batches
        return as_one(batch.topic, batch.partition, batch.fetch_offset, batch.data[row["position"] : row["end"]])
