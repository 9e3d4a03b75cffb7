"""Random record batches read as the client reads them; random damage never crashes, reads beyond, or goes back."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickcast.io.kafka.blob import Blob
from wirekit import (
    ABORT,
    ATTRIBUTES,
    CODECS,
    COMMIT,
    LAST_DELTA,
    LOG_APPEND,
    MAX_MS,
    T0_MS,
    TRACE,
    TRANSACTIONAL,
    Message,
    batch,
    bent,
    by_client,
    judge,
    marker,
    opened,
)

few_bytes = st.binary(max_size=40)
headers = st.lists(
    st.tuples(st.sampled_from(["traceparent", "x", ""]) | st.text(max_size=12), st.none() | st.just(TRACE) | few_bytes),
    max_size=3,
)
messages = st.builds(
    Message,
    value=st.none() | few_bytes | st.binary(min_size=200, max_size=300),
    key=st.none() | few_bytes,
    headers=headers,
    ms=st.integers(T0_MS - 10**9, T0_MS + 10**12) | st.just(-1) | st.integers(0, 10**6),
)
LEAST = 61  # bytes of a batch


@st.composite
def gapped(draw):
    """Messages as compaction leaves them, and the last offset that the batch keeps."""
    kept = draw(st.lists(messages, max_size=8))
    deltas = np.cumsum([draw(st.integers(0 if i == 0 else 1, 5)) for i in range(len(kept))]).tolist()
    last = (deltas[-1] if deltas else 0) + draw(st.integers(0, 4))
    return [message._replace(delta=int(delta)) for message, delta in zip(kept, deltas, strict=True)], last


@st.composite
def blobs(draw):
    """Batches in the order of a log: codecs, gaps, log-append time, and transactions that end either way."""
    parts, at, aborted, running = [], draw(st.integers(0, 10**12)), [], {}
    for _ in range(draw(st.integers(1, 6))):
        at += draw(st.integers(0, 3))
        kept, last = draw(gapped())
        producer = draw(st.sampled_from([-1, 5, 6]))
        if producer in running and draw(st.booleans()):
            kind = draw(st.sampled_from([ABORT, COMMIT]))
            parts.append(marker(kind, producer=producer, base=at))
            first = running.pop(producer)
            aborted += [(producer, first)] if kind == ABORT else []
            at += 1
            continue
        extra = TRANSACTIONAL if producer >= 0 else 0
        made = batch(kept, base=at, codec=draw(st.sampled_from(CODECS)) if kept else 0, producer=producer, extra=extra)
        if draw(st.booleans()):
            attributes = struct.unpack_from(">h", made, ATTRIBUTES)[0]
            made = bent(made, (ATTRIBUTES, ">h", attributes | LOG_APPEND), (MAX_MS, ">q", T0_MS))
        parts.append(bent(made, (LAST_DELTA, ">i", last)))
        if producer >= 0:
            running.setdefault(producer, at)
        at += last + 1
    return parts, aborted


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(blobs(), st.booleans(), st.integers(0, 30), st.integers(0, 60))
def test_any_log_is_read_as_the_client_reads_it(log, committed, skipped, cut):
    parts, aborted = log
    data = b"".join(parts) + parts[0][:cut]
    fetch_offset = min(struct.unpack_from(">q", data)[0] + skipped, Blob.scan("t", 0, parts[0], 0).next_offset - 1)
    ours = opened(data, fetch_offset=fetch_offset, aborted=aborted if committed else ())
    theirs = by_client(b"".join(parts), fetch_offset=fetch_offset, aborted=aborted, committed=committed)
    assert (ours[0], ours[2]) == theirs
    assert ours[1] == []


@st.composite
def mutations(draw):
    parts, aborted = draw(blobs())
    changed = [bytearray(part) for part in parts]
    for _ in range(draw(st.integers(1, 6))):
        part = changed[draw(st.integers(0, len(parts) - 1))]
        where = draw(st.integers(0, len(part) - 1))
        part[where] = draw(st.integers(0, 255))
    if draw(st.booleans()):
        changed = [bytearray(bent(bytes(part))) if len(part) >= LEAST else part for part in changed]
    return b"".join(parts), b"".join(changed), aborted


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(mutations())
def test_no_mutation_crashes_or_reads_beyond_the_bytes(mutation):
    data, changed, aborted = mutation
    judge(changed, struct.unpack_from(">q", data)[0], aborted)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400), st.integers(0, 1 << 62))
def test_no_bytes_at_all_crash(data, fetch_offset):
    judge(data, fetch_offset, [(1, 0)])


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(blobs(), st.data())
def test_damage_to_the_records_of_a_batch_costs_that_batch_alone(log, data):
    parts, _ = log
    hit = data.draw(st.integers(0, len(parts) - 1))
    whole = opened(b"".join(parts))
    part = bytearray(parts[hit])
    where = data.draw(st.integers(ATTRIBUTES, len(part) - 1))
    part[where] ^= data.draw(st.integers(1, 255))
    blob = Blob.scan("t", 0, parts[hit], 0)
    first, last = int(blob.batches["base"][0]), int(blob.batches["last"][0])
    found, damaged, position = opened(b"".join([*parts[:hit], bytes(part), *parts[hit + 1 :]]))
    assert [d.data for d in damaged] == [bytes(part)]
    assert found == [row for row in whole[0] if not first <= row.offset <= last]
    if hit < len(parts) - 1:
        assert position == whole[2]
    else:  # nobody knows where it ends; what is left of it comes again, and nothing behind it is passed over
        assert first < position <= whole[2]
