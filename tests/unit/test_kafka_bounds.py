"""How large a batch may become when it is decompressed, and what becomes of one that would be larger."""

import os
import tracemalloc

import cramjam
import pytest

from wirekit import BODY, GZIP, LZ4, SNAPPY, T0_MS, ZSTD, Message, batch, framed, opened

PACKED_BY = {
    GZIP: cramjam.gzip.compress, SNAPPY: cramjam.snappy.compress_raw, LZ4: cramjam.lz4.compress,
    ZSTD: cramjam.zstd.compress,
}  # fmt: skip
PLAIN = [Message(b"%d" % i, b"k", ms=T0_MS + i) for i in range(40)]


def test_what_expands_beyond_the_bound_is_damage_and_what_fits_exactly_is_read():
    body = batch([Message(bytes(range(200)) + b"x" * 15_000)])[BODY:]
    for codec, pack in PACKED_BY.items():
        made = framed(bytes(pack(body)), count=1, codec=codec)
        assert len(opened(made, most_bytes=len(body))[0]) == 1
        found, damaged, position = opened(made, most_bytes=len(body) - 1)
        assert (found, [(d.data, d.too_large) for d in damaged], position) == ([], [(made, True)], 1)


@pytest.mark.parametrize("codec", [GZIP, LZ4, ZSTD])  # snappy reaches a ratio of 21 at most
def test_a_batch_far_larger_than_its_bytes_is_refused_alone_before_it_is_expanded(codec):
    bomb = framed(bytes(PACKED_BY[codec](batch([Message(bytes(20_000_000))])[BODY:])), count=1, base=40, codec=codec)
    assert len(bomb) < 150_000
    good, behind = batch(PLAIN, codec=codec), batch(PLAIN, base=41, codec=codec)
    tracemalloc.start()
    found, damaged, position = opened(good + bomb + behind)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [row.offset for row in found] == [*range(40), *range(41, 81)]
    assert [(d.data, d.first_offset, d.too_large) for d in damaged] == [(bomb, 40, True)]
    assert "larger" in damaged[0].reason
    assert position == 81
    assert peak_bytes < (20_000_000 if codec != LZ4 else 40_000_000)


def test_what_is_broken_is_not_called_too_large():
    for codec, pack in PACKED_BY.items():
        packed = bytes(pack(batch([Message(os.urandom(30_000))])[BODY:]))
        _, (damaged,), _ = opened(framed(packed[: len(packed) // 2], count=1, codec=codec))
        assert not damaged.too_large


def test_a_large_batch_takes_no_room_from_its_neighbours():
    body = batch([Message(os.urandom(10_000))])[BODY:]
    made = [framed(bytes(cramjam.lz4.compress(body)), count=1, base=i, codec=LZ4) for i in range(5)]
    found, damaged, _ = opened(b"".join(made), most_bytes=len(body))
    assert ([row.offset for row in found], damaged) == ([0, 1, 2, 3, 4], [])
