"""What a model was fitted on, as drift is judged by it: quantiles of every channel, how they move together, and what
was missed and lost on the hold-out. It is made at the fit, travels with the model, and computes nothing.
"""

from dataclasses import dataclass, fields
from typing import Self

import msgspec
import numpy as np

from tickcast.columns import F64, U8
from tickcast.errors import BadModel
from tickcast.state import Arrays

EDGES = 33  # of a sketch: the quantiles 0, 1/32, ... 1
STEP = 1  # what is known of losses and misses is of the first step
UNBOUNDED = ("low", "high")  # infinite where a channel is not watched
AGAIN = "fit the model again"


@dataclass(frozen=True, slots=True)
class Reference:
    """`S` symbols in the order of their names, and behind them what holds for any other; `F` channels, the first that
    of the target. Shares of blocks of the bars that stand here are next to uncorrelated: what is left stands beside.
    """

    symbols: U8  # names, as a JSON list
    edges: F64  # [F, EDGES] the sketch of each channel
    bins: F64  # [F, EDGES - 1] share of its values between two edges: even, but for ties
    low: F64  # [F] its central 90 %
    high: F64
    repeats: U8  # [F] 1 = a value that is that of the bar before tells nothing
    odd: F64  # [S + 1, F] share of values outside of the central 90 %, or that repeat the one before
    odd_block: F64  # [F]
    odd_left: F64
    center: F64  # [F] mean of the normal scores,
    whiten: F64  # [F, F] the inverse of the root of their covariance, lower triangle,
    distance: F64  # [1] and 95 % point of the squared distance from that mean
    far: F64  # [S + 1] share of bars that are further away
    far_block: F64  # [1]
    far_left: F64
    missed_block: F64  # [1] of truths outside of the outer quantiles
    missed_left: F64
    loss: F64  # [S + 1] pinball loss in those of last value
    loss_width: F64  # [1] by how much of it a block's changes to the next: two standard deviations
    loss_block: F64  # [1]
    loss_left: F64

    @classmethod
    def of(cls, arrays: Arrays, *, channels: int) -> Self:
        """What a file holds, checked: kernels read it without looking where it ends."""
        if arrays.keys() != {field.name for field in fields(cls)}:
            raise BadModel("the reference does not hold what it should", remedy=AGAIN)
        sizes = {"S": len(names_in(arrays["symbols"])) + 1, "F": channels, "E": EDGES, "B": EDGES - 1, "1": 1}
        for name, shape in SHAPES.items():
            array, expected = arrays[name], tuple(sizes[size] for size in shape)
            if array.shape != expected or array.dtype != (np.uint8 if name == "repeats" else np.float64):
                raise BadModel(
                    f"the reference's {name} is {array.dtype} {array.shape}, expected is {expected}", remedy=AGAIN
                )
            if np.isnan(array).any() or not (name in UNBOUNDED or np.isfinite(array).all()):
                raise BadModel(f"the reference's {name} is not finite", remedy=AGAIN)
        return cls(**{name: np.array(array) for name, array in arrays.items()})  # which kernels know: none is read-only

    def names(self) -> list[str]:
        return names_in(self.symbols)

    def arrays(self) -> Arrays:
        """What its file holds."""
        return {field.name: np.ascontiguousarray(getattr(self, field.name)) for field in fields(self)}


SHAPES = {
    "edges": "FE", "bins": "FB", "low": "F", "high": "F", "repeats": "F", "odd": "SF", "odd_block": "F",
    "odd_left": "F", "center": "F", "whiten": "FF", "distance": "1", "far": "S", "far_block": "1", "far_left": "1",
    "missed_block": "1", "missed_left": "1", "loss": "S", "loss_width": "1", "loss_block": "1", "loss_left": "1",
}  # fmt: skip


def names_in(symbols: U8) -> list[str]:
    try:
        return msgspec.json.decode(symbols.tobytes(), type=list[str])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise BadModel("the reference names no symbols", remedy=AGAIN) from None
