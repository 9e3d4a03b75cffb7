"""Questions and answers: what models are asked, and what they give. The engine opens the former, a Runner gives the
latter.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from tickcast.columns import F32, F64, I32, I64, Columns, Inputs

TICKS, ALONE = -1, 0  # who asks


@dataclass(frozen=True, slots=True)
class Questions(Columns):
    """What comes after these windows? One row each, copied when its newest bar closed."""

    asker: I32  # TICKS: published and scored; else the number of who asks beside them, for whom no state moves on
    symbol: I32  # -1 = of none that is known
    ordinal: I64  # of the newest bar; -1 = not known
    as_of: I64  # of that bar; -1 = not said
    row: I64  # of that bar among those that closed in the turn; -1 = none of them
    model: I32  # who is asked, by number
    anchor: F64
    scale: F64
    inputs: Inputs
    names: Callable[[], Sequence[str]] = tuple  # of the symbols, by code; another list whenever there is another name
    tile: int = 0  # rows of every call of a graph, else a row's last bits depend on how many stand beside it; 0 = any

    @classmethod
    def of(cls, inputs: Inputs, symbol: I32 | None = None, ordinal: I64 | None = None, *, tile: int = 0) -> "Questions":
        """Of windows alone; with `symbol` and `ordinal` as ticks ask them at those bars."""
        none, nan = np.full(len(inputs), -1), np.full(len(inputs), np.nan)
        asker = np.full(len(inputs), ALONE if symbol is None else TICKS, np.int32)
        return cls(
            asker=asker, symbol=none.astype(np.int32) if symbol is None else symbol,
            ordinal=none if ordinal is None else ordinal, as_of=none, row=none, model=none.astype(np.int32),
            anchor=nan, scale=nan, inputs=inputs, tile=tile,
        )  # fmt: skip

    def alone(self) -> "Questions":
        """The same windows, asked beside the ticks."""
        return replace(self, asker=np.full(len(self), ALONE, np.int32))

    def take(self, rows: Any) -> Self:
        columns = {name: getattr(self, name)[rows] for name in COLUMNS}
        return type(self)(**columns, inputs=self.inputs.take(rows), names=self.names, tile=self.tile)

    @classmethod
    def concat(cls, parts: "list[Self]") -> Self:
        if len(parts) == 1:
            return parts[0]
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS}
        inputs = Inputs.concat([part.inputs for part in parts])
        return cls(**columns, inputs=inputs, names=parts[-1].names, tile=parts[0].tile)


COLUMNS = tuple(name for name in Questions.__slots__ if name not in ("inputs", "names", "tile"))


@dataclass(frozen=True, slots=True)
class Answers:
    """One row a question."""

    quantiles: F32  # [B, H, Q] of the move from the anchor: log(P[t+h]/P[t]) for log_return, else P[t+h]-P[t]
    probs: F32 | None = None  # [B, H, C] how likely each label of the card is at each step, where it has labels
