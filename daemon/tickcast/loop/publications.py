"""What a turn publishes: a message is written once, however many send it. It sends nothing and leaves out nothing."""

from functools import cached_property

from tickcast.columns import Encoded
from tickcast.engine.core.events import Outcome
from tickcast.engine.records.as_json import JsonWriter
from tickcast.loop.build import Serving
from tickcast.loop.dead_letters import dead_letters
from tickcast.records import DeadLetter


class Publications:
    """Of one turn. A sink asks for what it sends, on the engine thread; who asks first has it written."""

    def __init__(self, outcome: Outcome, serving: Serving, writer: JsonWriter, produced_ns: int) -> None:
        self.outcome, self.produced_ns = outcome, produced_ns
        self._serving, self._writer = serving, writer

    @cached_property
    def forecasts(self) -> list[Encoded]:
        """As JSON, in the outcome's order."""
        symbols, sources = self._serving.symbols, self._serving.engine.builder.sources()
        write, produced_ns = self._writer.encode, self.produced_ns
        return [write(part, symbols, produced_ns=produced_ns, sources=sources) for part in self.outcome.forecasts]

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
