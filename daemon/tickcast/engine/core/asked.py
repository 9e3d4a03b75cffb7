"""Asked: bars that closed in a turn with the questions that they opened, until the models have answered them."""

from dataclasses import dataclass

import numpy as np

from tickcast.columns import F64, I32, I64, BarBatch, Inputs
from tickcast.engine.core.asking import Wanted
from tickcast.engine.core.fold import ClosedBars


@dataclass(slots=True)
class Asked:
    """Bars closed in this turn, and the questions that they opened, not yet answered."""

    closed: ClosedBars
    rows: I64  # of `closed` that opened a question
    inputs: Inputs
    anchor: F64
    scale: F64
    model: I32


def together(asked: list[Asked], wanted: list[Wanted]) -> tuple[Inputs, I32, I32, I64]:
    """What the models are asked, which of them, and about which bars; those that somebody asks about are nobody's."""
    inputs = [*(a.inputs for a in asked), *(w.window.inputs for w in wanted)]
    nobody = [np.full(len(w), -1, np.int32) for w in wanted]
    return (
        Inputs.concat(inputs) if len(inputs) > 1 else inputs[0],
        np.concatenate([*(a.model for a in asked), *(w.model for w in wanted)]),
        np.concatenate([*(a.closed.bars.symbol[a.rows] for a in asked), *nobody]),
        np.concatenate([*(a.closed.bars.ordinal[a.rows] for a in asked), *nobody]),
    )


def join(pending: list[Asked]) -> Asked:
    """All of a turn's closed bars as one, in the order in which they closed."""
    if len(pending) == 1:
        return pending[0]
    starts = np.cumsum([0, *(len(a.closed.bars) for a in pending[:-1])])
    closed = ClosedBars(
        BarBatch.concat([a.closed.bars for a in pending]), np.concatenate([a.closed.first for a in pending]),
        np.concatenate([a.closed.void_before for a in pending]), np.concatenate([a.closed.stamps_ns for a in pending]),
    )  # fmt: skip
    return Asked(
        closed, np.concatenate([a.rows + start for a, start in zip(pending, starts, strict=True)]),
        Inputs.concat([a.inputs for a in pending]), np.concatenate([a.anchor for a in pending]),
        np.concatenate([a.scale for a in pending]), np.concatenate([a.model for a in pending]),
    )  # fmt: skip
