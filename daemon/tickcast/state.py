"""State: all that decides later outputs, as named arrays and a few plain facts. It copies out and puts back, no more.

Parts copy their groups of arrays by the groups' own fields, so that a new field cannot be forgotten.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy.typing as npt

from tickcast.errors import BadStore

Array = npt.NDArray[Any]
Arrays = dict[str, Array]
Facts = dict[str, Any]  # what JSON can hold


class Group(Protocol):
    """A NamedTuple of arrays."""

    def _asdict(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class State:
    arrays: Arrays = field(default_factory=dict)
    facts: Facts = field(default_factory=dict)

    @classmethod
    def join(cls, parts: Mapping[str, "State"]) -> "State":
        arrays = {f"{name}.{key}": array for name, part in parts.items() for key, array in part.arrays.items()}
        return cls(arrays, {name: part.facts for name, part in parts.items()})

    @property
    def positions(self) -> dict[tuple[str, int], int]:
        """Next offset of every partition that was read."""
        return {(topic, partition): offset for topic, partition, offset in self.facts["positions"]}

    def part(self, name: str) -> "State":
        """What `join` was given under that name."""
        start = name + "."
        arrays = {key.removeprefix(start): array for key, array in self.arrays.items() if key.startswith(start)}
        return State(arrays, self.facts[name])


class HasState(Protocol):
    """What remembers something."""

    def snapshot(self) -> State: ...

    def resume(self, state: State) -> None: ...


def copied(group: Group, rows: Mapping[str, int] | None = None) -> State:
    """Every array of the group by its field's name; of a field in `rows` only so many."""
    rows = rows or {}
    return State({name: column[: rows.get(name)].copy() for name, column in group._asdict().items()})


def put_back(state: State, group: Group, rows: Array | None = None) -> None:
    """What `copied` gave, back into a fresh group of the same fields: its first rows, or those at `rows`."""
    columns, saved = group._asdict(), state.arrays
    if columns.keys() != saved.keys():
        raise BadStore(f"the state has {', '.join(saved) or 'nothing'} where {', '.join(columns)} belong")
    for name, column in columns.items():
        put_rows(saved[name], column, name, rows)


def put_rows(saved: Array, column: Array, name: str, rows: Array | None = None) -> None:
    """`saved` becomes the column's rows at `rows`, else its first ones."""
    at = slice(len(saved)) if rows is None else rows
    here = column[at].shape
    if saved.dtype != column.dtype or saved.shape != here:
        raise BadStore(f"the state's {name} is {saved.dtype} {saved.shape}, here it is {column.dtype} {here}")
    column[at] = saved
