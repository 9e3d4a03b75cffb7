"""What the engine works on, in a small mapped file that outlives the process: a death is laid to the turn's messages.

Before a turn its offsets are written, after it its number is even again; no tick pays for that. Who was in the engine
at a death comes message by message in the next life; what dies there alone twice is set aside. It reads no message.
"""

import fcntl
import mmap
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from hashlib import blake2b
from pathlib import Path
from struct import Struct
from typing import Any, NamedTuple

import numpy as np
import structlog

from tickcast.columns import RawBatch, Source
from tickcast.errors import BadSettings
from tickcast.loop import turn_limit
from tickcast.loop.turn_limit import TurnLimit

NAME = "last-turn"  # in runtime.folder
THIS_FORMAT = 0x7469636B5F763102
ROOM = 512  # partitions and batches of a turn that can be told; what is beyond them is not suspected
KEPT = 256  # of what was set aside: as long as a restart may read it again it must be known
MOST_DEATHS = 2  # alone, before a message is set aside
SPAN = Struct("=qqqqq")  # topic, partition, first, end, whether its batch was being opened
MAGIC, BOOT, COUNT, ALONE, DEATHS, SUSPECTS, ASIDE, LONER, ORDER = 0, 1, 2, 3, 4, 5, 6, 8, 16  # cells of eight bytes
HEAD_BYTES = 8 * (ORDER + turn_limit.CELLS)
TURN_AT = HEAD_BYTES
SUSPECTS_AT = TURN_AT + ROOM * SPAN.size
ASIDE_AT = SUSPECTS_AT + ROOM * SPAN.size
FILE_BYTES = ASIDE_AT + KEPT * SPAN.size


class OffsetSpan(NamedTuple):
    """Offsets of a partition; `opening` = of a batch of records that was not yet known to be readable."""

    topic: int  # number of its name
    partition: int
    first: int
    end: int
    opening: int = 0

    def meets(self, other: "OffsetSpan") -> bool:
        return self[:2] == other[:2] and self.first < other.end and other.first < self.end

    def without(self, done: "OffsetSpan") -> "OffsetSpan | None":
        """What is left when everything up to the end of `done` has passed."""
        if not self.meets(done) or done.first > self.first:
            return self
        return None if done.end >= self.end else self._replace(first=done.end)


class LastTurn:
    """Made by `open`, by one daemon at a time. `begin` and `end` are called around each turn, by its thread."""

    def __init__(self, cells: mmap.mmap, topics: Sequence[str], *, by_content: bool = False) -> None:
        self.suspects: list[OffsetSpan] = []
        self.aside: list[OffsetSpan] = []
        self._map, self._by_content = cells, by_content
        self._cells = memoryview(cells).cast("q")
        self._number = {topic: _number_of(topic.encode()) for topic in topics}
        self._name = {number: topic for topic, number in self._number.items()}

    @classmethod
    @contextmanager
    def open(
        cls, folder: Path, topics: Sequence[str], *, limit_s: float, by_content: bool = False
    ) -> Iterator["LastTurn"]:
        """Notes a death where the process before us ended within a turn. `by_content`: a message that comes again comes
        with another offset, so it is known by what it says."""
        path = folder / NAME
        with ExitStack() as stack:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
                stack.callback(os.close, file)
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                stack.callback(fcntl.flock, file, fcntl.LOCK_UN)  # the map keeps a handle of its own
                os.posix_fallocate(file, 0, FILE_BYTES)  # written to a full disk, a mapped hole ends the process
                last = cls(mmap.mmap(file, FILE_BYTES), topics, by_content=by_content)
            except BlockingIOError:
                raise BadSettings(
                    f"another daemon keeps its last turn in {path}", remedy="give each daemon its own runtime.folder"
                ) from None
            except OSError as error:
                raise BadSettings(f"cannot keep {path}: {error.strerror}", remedy="see runtime.folder") from None
            last._take_up()
            order = np.frombuffer(last._map, np.int64, turn_limit.CELLS, 8 * ORDER)
            stack.enter_context(TurnLimit(order, limit_s))
            yield last

    def begin(self, items: Iterable[Any], *, opening: bool = False, mixed: bool = False) -> None:
        """A turn over these items, or the `opening` of one batch; `mixed`: beside what is no message."""
        cells, numbers, at, messages = self._cells, self._number, TURN_AT, 0
        for item in items:
            for first, end in self._bounds_of(item):
                if at < SUSPECTS_AT and item.topic in numbers:
                    SPAN.pack_into(self._map, at, numbers[item.topic], item.partition, first, end, opening)
                    at += SPAN.size
                    messages += end - first
        cells[COUNT] = (at - TURN_AT) // SPAN.size
        cells[ALONE] = opening or (messages == 1 and not mixed)
        cells[ORDER] += 1

    def end(self, *, is_over: bool = True) -> None:
        """`is_over`: all of the turn's messages have been through the engine."""
        self._cells[ORDER] += 1
        if is_over and (self.suspects or self._cells[DEATHS]):
            self._acquit(self._turn())

    def span_of(self, item: Any) -> OffsetSpan | None:
        """Of one message, or of messages by their offsets; None of what is no message."""
        return next(self._spans_of(item), None)

    def is_watching(self, item: Any) -> bool:
        """Whether something in it is suspected or set aside."""
        watched = (*self.suspects, *self.aside)
        return any(any(map(span.meets, watched)) for span in self._spans_of(item))

    def _spans_of(self, item: Any) -> Iterator[OffsetSpan]:
        return (OffsetSpan(self._number[item.topic], item.partition, *bounds) for bounds in self._bounds_of(item))

    def _bounds_of(self, item: Any) -> list[tuple[int, int]]:
        """First offset and the one after the last, of what holds messages; by content a number for each message."""
        if isinstance(item, RawBatch):
            if self._by_content:
                return [(number, number + 1) for number in (_number_of(item.message(row)) for row in range(len(item)))]
            return [(int(item.offsets[0]), int(item.offsets[-1]) + 1)]
        if hasattr(item, "fetch_offset"):  # edges.kafka.blob.Blob, which other buses do not load
            return [(item.fetch_offset, item.next_offset)]
        return []

    def starts_at(self, begin: Mapping[Source, int]) -> None:
        """What lies before, or in partitions that are not ours, is no longer suspected."""
        starts = {(self._number.get(topic, 0), partition): offset for (topic, partition), offset in begin.items()}
        self._suspect(span for span in self.suspects if span.end > starts.get(span[:2], span.end))

    def set_aside(self) -> dict[str, int]:
        """How many messages, by partition."""
        return dict(Counter(f"{self._name[span.topic]}/{span.partition}" for span in self.aside))

    def _take_up(self) -> None:
        cells, boot = self._cells, _boot()
        if cells[MAGIC] != THIS_FORMAT or not self._is_sound():
            self._map[:FILE_BYTES] = bytes(FILE_BYTES)
            cells[MAGIC] = THIS_FORMAT
        died = cells[ORDER] % 2 == 1
        self.suspects = self._spans(SUSPECTS_AT, cells[SUSPECTS])
        self.aside = self._spans(ASIDE_AT, cells[ASIDE])
        if died and cells[BOOT] == boot:  # a machine that lost its power was not stopped by a message
            self._note_death(self._turn(), is_alone=bool(cells[ALONE]))
        cells[ORDER] += died
        cells[BOOT] = boot

    def _is_sound(self) -> bool:
        counts = ((COUNT, ROOM), (SUSPECTS, ROOM), (ASIDE, KEPT))
        return all(0 <= self._cells[count] <= most for count, most in counts)

    def _note_death(self, spans: list[OffsetSpan], *, is_alone: bool) -> None:
        log = structlog.get_logger()
        if not spans:
            return
        deaths = 0
        if is_alone:
            (loner,) = spans
            again = OffsetSpan(*SPAN.unpack_from(self._map, 8 * LONER)) == loner
            deaths = self._cells[DEATHS] + 1 if again else 1
            SPAN.pack_into(self._map, 8 * LONER, *loner)
            self._cells[DEATHS] = deaths
        log.warning("died_in_a_turn", messages=self._told(spans), times_alone=deaths)
        if deaths >= MOST_DEATHS:
            self._cells[DEATHS] = 0
            self._keep_aside(spans[0])
        else:
            self._suspect([*self.suspects, *(span for span in spans if not any(map(span.meets, self.suspects)))])

    def _keep_aside(self, span: OffsetSpan) -> None:
        """The oldest is forgotten for it: it was committed long ago."""
        self.aside = [*self.aside, span][-KEPT:]
        self._write(ASIDE_AT, ASIDE, self.aside)
        structlog.get_logger().error(
            "message_set_aside", messages=self._told([span]), reason="fatal",
            remedy="the process ended in it time and again: see the dead letter, and report it",
        )  # fmt: skip

    def _acquit(self, done: list[OffsetSpan]) -> None:
        """They have been through a turn and nothing happened."""
        if any(span == OffsetSpan(*SPAN.unpack_from(self._map, 8 * LONER)) for span in done):
            self._cells[DEATHS] = 0
        if any(span.opening for span in done):  # its messages are yet to come
            return
        left: list[OffsetSpan] = []
        for suspect in self.suspects:
            rest: OffsetSpan | None = suspect
            for span in done:
                rest = rest and rest.without(span)
            left += [rest] if rest else []
        if left != self.suspects:
            self._suspect(left)

    def _suspect(self, spans: Iterable[OffsetSpan]) -> None:
        self.suspects = [*spans][:ROOM]
        self._write(SUSPECTS_AT, SUSPECTS, self.suspects)

    def _turn(self) -> list[OffsetSpan]:
        return self._spans(TURN_AT, self._cells[COUNT])

    def _spans(self, at: int, count: int) -> list[OffsetSpan]:
        """Those of topics that we know."""
        spans = [OffsetSpan(*SPAN.unpack_from(self._map, at + number * SPAN.size)) for number in range(count)]
        return [span for span in spans if span.topic in self._name]

    def _write(self, at: int, count: int, spans: Sequence[OffsetSpan]) -> None:
        """Shorter first: a death within it leaves spans that are true."""
        self._cells[count] = min(self._cells[count], len(spans))
        for number, span in enumerate(spans):
            SPAN.pack_into(self._map, at + number * SPAN.size, *span)
        self._cells[count] = len(spans)

    def _told(self, spans: Iterable[OffsetSpan]) -> dict[str, list[int]]:
        return {f"{self._name[span.topic]}/{span.partition}": [span.first, span.end] for span in spans}


def _number_of(said: bytes) -> int:
    """Of 62 bits, so that there is one after it."""
    return int.from_bytes(blake2b(said, digest_size=8).digest(), "little") >> 2


def _boot() -> int:
    """Another one after each start of the machine."""
    try:
        return _number_of(Path("/proc/sys/kernel/random/boot_id").read_bytes())
    except OSError:
        return 0
