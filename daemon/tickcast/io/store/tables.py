"""The tables of the store that rows are stored in, rolled off from, handed over and exported from: one list, a line
for each. Their columns stand in the migrations, and those of forecasts in `engine/records/published.py`.
"""

from typing import NamedTuple


class StoreTable(NamedTuple):
    """A table; empty = it has none of that."""

    name: str
    time: str = ""  # the column of event time, or of when a row was written
    key: tuple[str, ...] = ()  # what tells rows of a stream apart; the last column bounds the search
    rolled_off: bool = False  # by `time`, day by day
    handed_over: bool = False  # with its partition
    exported: bool = True
    has_symbols: bool = False
    first: str = ""  # the order of rows of one key, where the archive may have one that was read again

    @property
    def once(self) -> str:
        """Behind WHERE, so that no row comes twice."""
        keys = ", ".join(self.key)
        return f"QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {self.first}) = 1" if self.first else ""


_LIST = (
    StoreTable(
        "bars", "as_of_ns", ("symbol", "tie", "as_of_ns"), rolled_off=True, handed_over=True, has_symbols=True,
        first="source_offset, ordinal",
    ),
    StoreTable(
        "forecasts", "as_of_ns", ("id", "as_of_ns"), rolled_off=True, handed_over=True, has_symbols=True,
        first="source_offset",
    ),
    StoreTable(
        "scores", "as_of_ns", ("id", "as_of_ns"), rolled_off=True, handed_over=True, has_symbols=True,
        first="settled_ns",
    ),
    StoreTable(  # after scores: what is in the archive has no score in the table that could bring it back
        "postmortems", "as_of_ns", ("id", "as_of_ns"), rolled_off=True, has_symbols=True, first="settled_ns",
    ),
    StoreTable(
        "accuracy", "as_of_ns", ("model", "version", "symbol_group", "horizon", "span", "as_of_ns"), rolled_off=True,
    ),
    StoreTable("alerts", "at_ns", rolled_off=True),
    StoreTable(
        "drift", "as_of_ns", ("family", "source_topic", "source_partition", "event", "as_of_ns"), rolled_off=True,
    ),
    StoreTable(
        "dead_letters", "watermark_ns", ("source_topic", "source_partition", "source_offset"), rolled_off=True,
        handed_over=True, exported=False,
    ),
    StoreTable(
        "watermarks", key=("source_topic", "source_partition", "next_offset"), handed_over=True, exported=False,
    ),
    StoreTable("contest_blocks", "ended_ns", ("contest", "number"), rolled_off=True, first="ended_ns"),
    StoreTable("decisions", "at_ns"),
    StoreTable("commands", "received_ns"),
    StoreTable("promotions", "at_ns"),
    StoreTable("versions", "registered_ns"),
    StoreTable("jobs", "created_ns"),
    StoreTable("trials"),
)  # fmt: skip
TABLES = {table.name: table for table in _LIST}
