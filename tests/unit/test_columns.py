"""Column groups: counted, picked from and joined without one object per row."""

from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from tickcast.columns import PACKED, FeatureRows, RawBatch, TickBatch


def ticks(count, first=0):
    ramp = np.arange(first, first + count)
    floats = ramp.astype(np.float64)
    return TickBatch(
        symbol=ramp.astype(np.int32), ts=ramp.astype(np.int64), price=floats, size=floats, bid=floats, ask=floats,
        sequence=ramp.astype(np.int64), row=ramp.astype(np.int32), number=ramp.astype(np.int32),
    )  # fmt: skip


def raw(*messages):
    data = np.frombuffer(b"".join(messages), np.uint8)
    ends = np.cumsum([len(message) for message in messages], dtype=np.int64)
    starts = ends - [len(message) for message in messages]
    offsets = np.arange(100, 100 + len(messages), dtype=np.int64)
    return RawBatch("t", 3, data, starts, ends, offsets, np.full(len(messages), -1, np.int64))


def test_a_group_is_as_long_as_its_columns():
    assert len(ticks(5)) == 5
    assert len(ticks(0)) == 0


@pytest.mark.parametrize(
    ("rows", "kept"),
    [
        (slice(1, 3), [1, 2]),
        (np.array([4, 0, 0]), [4, 0, 0]),
        (np.array([True, False, False, False, True]), [0, 4]),
        (np.array([], np.int64), []),
    ],
)
def test_take_picks_the_same_rows_of_every_column(rows, kept):
    picked = ticks(5).take(rows)
    for name in TickBatch.__dataclass_fields__:
        assert getattr(picked, name).tolist() == kept
        assert getattr(picked, name).dtype == getattr(ticks(5), name).dtype


def test_concat_joins_groups_in_order():
    joined = TickBatch.concat([ticks(2), ticks(0), ticks(3, first=2)])
    assert joined.ts.tolist() == [0, 1, 2, 3, 4]
    assert isinstance(joined, TickBatch)


def test_concat_joins_columns_of_several_dimensions():
    one = FeatureRows(*(np.zeros(2, np.int64) for _ in range(5)), values=np.arange(6.0).reshape(2, 3))
    joined = FeatureRows.concat([one, one.take(slice(0, 1))])
    assert joined.values.tolist() == [[0, 1, 2], [3, 4, 5], [0, 1, 2]]


def test_a_group_cannot_be_given_other_columns_later():
    with pytest.raises(FrozenInstanceError):
        ticks(1).price = np.zeros(1)


def test_a_message_of_a_raw_batch_comes_back_as_its_bytes():
    batch = raw(b"one", b"", b"three")
    assert len(batch) == 3
    assert [batch.message(row) for row in range(3)] == [b"one", b"", b"three"]


def test_a_part_of_a_raw_batch_shares_its_bytes_and_keeps_its_offsets():
    whole = raw(b"one", b"", b"three")
    part = whole.part(1, 3)
    assert [part.message(row) for row in range(2)] == [b"", b"three"]
    assert part.offsets.tolist() == [101, 102]
    assert (part.topic, part.partition) == ("t", 3)
    assert part.data is whole.data


def test_a_packed_tick_has_no_padding_and_is_little_endian_everywhere():
    assert PACKED.itemsize == 6 * 8 + 48
    assert not [name for name in PACKED.names if PACKED[name].byteorder == ">"]
