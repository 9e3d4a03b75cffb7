"""What a record in columns is made of: fields, each of a kind that says what its values are. It writes nothing.

The tables are in `published.py`; `as_json.py`, `as_arrow.py` and `io/store/rows.py` run them.
"""

from collections.abc import Callable, Sequence
from enum import Enum, auto
from operator import attrgetter
from typing import Any, NamedTuple

from tickcast.columns import Source
from tickcast.records import ModelCard
from tickcast.settings import Settings
from tickcast.symbols import SymbolTable


class Deployment(NamedTuple):
    """What does not change while a process runs, but that cards are added."""

    levels: list[float]
    transform: str
    expires_after_ns: int | None  # after as_of; None for bars without a time of their own
    cards: list[ModelCard]
    rungs: list[str]

    @classmethod
    def of(cls, settings: Settings, cards: list[ModelCard], rungs: list[str]) -> "Deployment":
        bars, forecast = settings.bars, settings.forecast
        expires_after_ns = forecast.expires_bars * bars.every_ms * 10**6 if bars.kind == "time" else None
        return cls(forecast.quantiles, forecast.transform, expires_after_ns, cards, rungs)

    @property
    def median(self) -> int:
        return self.levels.index(0.5)


UNKNOWN = Deployment(levels=[], transform="", expires_after_ns=None, cards=[], rungs=[])


class Facts(NamedTuple):
    """All that the fields of some rows are read from."""

    rows: Any  # Forecasts or FeatureRows
    symbols: SymbolTable
    sources: Sequence[Source]  # what the numbers in the column `partition` stand for
    produced_ns: int = 0
    deployment: Deployment = UNKNOWN  # the store does without it
    features: Sequence[str] = ()  # the names of the values of feature vectors


class Kind(Enum):
    """What the values of a field are. Of PRICE, MOVE, REAL and SHARE there may be several in a row."""

    CONSTANT = auto()  # one for all rows
    SYMBOL = auto()  # a code of the table of symbols
    PLACE = auto()  # partition and offset of a record
    HEX = auto()  # words of 64 bits: the digits of one number
    WHOLE = auto()  # NO_TIME where there is none
    CHOICE = auto()  # the number of one of `choices`
    PRICE = auto()  # as exact as the one-bar move asks
    MOVE = auto()  # in the unit of the one-bar move, as exact
    REAL = auto()  # with `digits` significant ones
    SHARE = auto()  # between 0 and 1 with `digits` decimals; none of them where the first is NaN
    TIMES = auto()  # event times by step; none of them where the first is negative


class RecordField(NamedTuple):
    """A line of a table."""

    name: str
    kind: Kind
    arrow: str  # its type there, by name
    values: Callable[[Facts], Any]  # by row, or one for all rows
    type: Any  # in JSON Schema
    meaning: str = ""
    digits: int = 0
    choices: Callable[[Deployment], list[Any]] | None = None
    stored: str = ""  # the store's column; empty = the store does not keep it
    published: bool = True


class RecordTable(NamedTuple):
    """One record: its fields in the order in which they are published."""

    name: str
    schema: int
    meaning: str
    fields: tuple[RecordField, ...]

    @property
    def published(self) -> list[RecordField]:
        return [field for field in self.fields if field.published]


def column(name: str) -> Callable[[Facts], Any]:
    """The column of the rows, as it is."""
    return attrgetter(f"rows.{name}")
