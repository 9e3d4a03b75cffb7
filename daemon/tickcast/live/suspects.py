"""In front of a source: what the process died over comes message by message, what was set aside as a dead letter.

While nothing is suspected, what is fetched goes through as it is. It decides nothing: `last_turn` knows the suspects.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import structlog

from tickcast.columns import I64, RawBatch, Rejects
from tickcast.engine.core.events import Event, Letters, Reached
from tickcast.errors import Reason
from tickcast.loop import pump
from tickcast.loop.last_turn import LastTurn, OffsetSpan


class Opening(Protocol):
    """How a bus takes apart what it fetches, where that is more than messages."""

    def batches(self, item: Any) -> list[Any]:
        """What can be opened apart from the rest; each holds messages."""

    def open(self, batch: Any) -> list[Event]: ...

    def unopened(self, batch: Any) -> RawBatch:
        """The batch as one message, as it came."""


class SuspectSource:
    def __init__(self, source: pump.EventSource, last_turn: LastTurn, opening: Opening | None = None) -> None:
        self._source = source
        self._last = last_turn
        self._opening = opening
        self._pieces: Iterator[list[Any]] = iter(())  # that no turn has taken yet
        self._was_told = False

    async def next_fetched(self, max_wait_s: float) -> list[Any] | None:
        if (piece := next(self._pieces, None)) is not None:
            return piece
        fetched = await self._source.next_fetched(max_wait_s)
        is_calm = not (self._last.suspects or self._last.aside)
        if not fetched or is_calm or not any(map(self._last.is_watching, fetched)):
            return fetched
        self._tell()
        self._pieces = self._in_pieces(fetched)
        return next(self._pieces)

    def events(self, fetched: list[Any]) -> Sequence[Event]:
        return self._source.events(fetched)

    def _tell(self) -> None:
        if self._last.suspects and not self._was_told:
            self._was_told = True
            count = sum(span.end - span.first for span in self._last.suspects)
            structlog.get_logger().warning("one_by_one", messages=count, reason="the process died over them")

    def _in_pieces(self, fetched: list[Any]) -> Iterator[list[Any]]:
        """Never empty, in order; each is a turn of its own, and taken when the one before it is over."""
        plain: list[Any] = []
        for item in fetched:
            if not self._last.is_watching(item):
                plain.append(item)
                continue
            if plain:
                yield plain
                plain = []
            yield from self._taken_apart(item)
        if plain:
            yield plain

    def _taken_apart(self, item: Any) -> Iterator[list[Any]]:
        if isinstance(item, RawBatch):
            yield from self._singly(item)
            return
        assert self._opening is not None
        for batch in self._opening.batches(item):
            if self._is_aside(self._last.span_of(batch), opening=True):
                yield [_letter_of(self._opening.unopened(batch))]
                continue
            self._last.begin([batch], opening=True)
            events = self._opening.open(batch)
            self._last.end()
            for event in events:
                yield from self._singly(event) if isinstance(event, RawBatch) else iter([[event]])
        yield [Reached(item.topic, item.partition, item.next_offset)]

    def _singly(self, raw: RawBatch) -> Iterator[list[Any]]:
        """The runs between the suspects stay together."""
        offsets: I64 = raw.offsets
        first = 0
        for row in range(len(raw)):
            one = raw.part(row, row + 1)
            if not self._last.is_watching(one):
                continue
            if first < row:
                yield [raw.part(first, row)]
            first = row + 1
            is_aside = self._is_aside(self._last.span_of(one), opening=False)
            yield [_letter_of(one), Reached(raw.topic, raw.partition, int(offsets[row]) + 1)] if is_aside else [one]
        if first < len(raw):
            yield [raw.part(first, len(raw))]

    def _is_aside(self, span: OffsetSpan | None, *, opening: bool) -> bool:
        return span is not None and any(
            aside.meets(span) and bool(aside.opening) == opening for aside in self._last.aside
        )


def _letter_of(raw: RawBatch) -> Letters:
    return Letters(raw, Rejects.of(0, Reason.FATAL))
