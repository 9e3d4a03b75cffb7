"""What a turn publishes: a message is written once, however many send it. It sends nothing and leaves out nothing."""

from collections import Counter
from functools import cached_property

import numpy as np

from tickcast.columns import Encoded, Forecasts
from tickcast.engine.core.events import Letters, Outcome
from tickcast.engine.records.as_json import JsonWriter
from tickcast.errors import Reason
from tickcast.loop.build import Serving
from tickcast.records import DeadLetter

MOST_NUMBERS = 20  # of refused ticks that a letter lists
KEY_SHARE = 4  # a key may take this part of a letter's bytes
BATCH_BYTES = 64 << 20  # that the letters of one batch keep together; beyond it they tell of a message without it


class Publications:
    """Of one turn. A sink asks for what it sends, on the engine thread; who asks first has it written."""

    def __init__(self, outcome: Outcome, serving: Serving, writer: JsonWriter, produced_ns: int) -> None:
        self.outcome, self.produced_ns = outcome, produced_ns
        self._serving, self._writer = serving, writer

    @cached_property
    def forecasts(self) -> list[Encoded]:
        """As JSON, in the outcome's order."""
        return self._written(self.outcome.forecasts)

    @cached_property
    def shadows(self) -> list[Encoded]:
        """Forecasts of models that do not serve."""
        return self._written(self.outcome.shadows)

    def _written(self, parts: list[Forecasts]) -> list[Encoded]:
        symbols, sources = self._serving.symbols, self._serving.engine.builder.sources()
        write, produced_ns = self._writer.encode, self.produced_ns
        return [write(part, symbols, produced_ns=produced_ns, sources=sources) for part in parts]

    @cached_property
    def features(self) -> list[Encoded]:
        """The vectors as JSON, in the outcome's order."""
        symbols, sources = self._serving.symbols, self._serving.engine.builder.sources()
        write, names = self._writer.encode_features, self._serving.features.names
        return [write(part, symbols, names=names, sources=sources) for part in self.outcome.vectors]

    @cached_property
    def dead_letters(self) -> list[DeadLetter]:
        most_bytes = self._serving.settings.kafka.batch_bytes
        return [letter for refused in self.outcome.letters for letter in dead_letters(refused, most_bytes)]


def dead_letters(letters: Letters, most_bytes: int) -> list[DeadLetter]:
    """One a message however much of it was refused, in their order; each keeps so many bytes of key and value."""
    rows, first, counts = np.unique(letters.rejects.row, return_index=True, return_counts=True)
    written, left = [], BATCH_BYTES
    for row, at, count in zip(rows.tolist(), first.tolist(), counts.tolist(), strict=True):
        letter = _letter(letters, row, slice(at, at + count), min(most_bytes, left))
        left -= len(letter.value) + len(letter.key or b"")
        written.append(letter)
    return written


def _letter(letters: Letters, row: int, refused: slice, most_bytes: int) -> DeadLetter:
    raw, rejects = letters.raw, letters.rejects
    reasons = [Reason(reason) for reason in rejects.reason[refused].tolist()]
    numbers = rejects.number[refused][:MOST_NUMBERS].tolist()
    key = raw.key(row, most_bytes // KEY_SHARE)
    return DeadLetter(
        topic=raw.topic, partition=raw.partition, offset=int(raw.offsets[row]), key=key,
        value=raw.message(row, most_bytes - len(key or b"")), original_bytes=int(raw.ends[row] - raw.starts[row]),
        reason=reasons[0].name.lower(), stage=_stage(reasons[0]), refused=len(reasons),
        ticks=[number for number in numbers if number >= 0],
        reasons={reason.name.lower(): count for reason, count in sorted(Counter(reasons).items())},
    )  # fmt: skip


def _stage(reason: Reason) -> str:
    return "codec" if reason < Reason.LATE else "quality" if reason < Reason.FATAL else "engine"
