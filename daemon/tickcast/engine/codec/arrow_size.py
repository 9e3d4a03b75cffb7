"""How large an Arrow IPC message becomes when it is unpacked, by what its heads say. It unpacks nothing.

A compressed buffer begins with its unpacked size. Where the buffers lie is told by a flatbuffer; of that format only
what leads there is read: a table begins with the distance to its list of slots, which say where its fields lie.
Nothing read here is trusted for more than the sum: Arrow itself checks the message afterwards.
"""

import numpy as np
import pyarrow as pa

HEADER = 2  # slot of a message
DICTIONARY_DATA = 1  # slot of a dictionary batch: a record batch
BUFFERS, COMPRESSION = 2, 3  # slots of a record batch
BUFFER = np.dtype([("offset", "<i8"), ("length", "<i8")])
SIZE_BYTES = 8


def unpacked_bytes(message: pa.Buffer) -> int:
    """Bytes of all compressed buffers when they are unpacked."""
    return sum(_batch_bytes(part) for part in pa.ipc.MessageReader.open_stream(message) if part.body is not None)


def _batch_bytes(part: pa.Message) -> int:
    head, body = part.metadata.to_pybytes(), memoryview(part.body)
    batch = _follow(head, _field(head, _follow(head, 0), HEADER))
    if part.type == "dictionary":
        batch = _follow(head, _field(head, batch, DICTIONARY_DATA))
    if not _field(head, batch, COMPRESSION):
        return 0
    vector = _follow(head, _field(head, batch, BUFFERS))
    buffers = np.frombuffer(head, BUFFER, _number(head, vector, 4), vector + 4)
    sizes = (_number(body, int(at), SIZE_BYTES, signed=True) for at in buffers["offset"][buffers["length"] > 0])
    return sum(size for size in sizes if size > 0)  # -1 = this one is not compressed


def _field(head: bytes, table: int, slot: int) -> int:
    """Where a field of a table lies; 0 where it has none."""
    slots = table - _number(head, table, 4, signed=True)
    place = 4 + 2 * slot
    distance = _number(head, slots + place, 2) if place < _number(head, slots, 2) else 0
    return table + distance if distance else 0


def _follow(head: bytes, at: int) -> int:
    return at + _number(head, at, 4)


def _number(data: bytes | memoryview, at: int, size: int, *, signed: bool = False) -> int:
    return int.from_bytes(data[at : at + size], "little", signed=signed)
