"""What models share that step through a window bar by bar: few windows side by side, an optimiser,
and the way into serving. Such a recursion is linear in the moves, so what it answers to one move at a time is all
there is to know of it: it is served as one dot product per step, with no state that a restart could lose.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Annotated, Any, ClassVar

import msgspec
import numpy as np
from msgspec import Meta
from scipy.optimize import minimize

from tickcast.columns import F64, I64
from tickcast.errors import BadSettings
from tickcast.plugin import Parameter, Report
from tickcast_plugins.models.classical import Arrays, LinearMap, RowSample

EVALUATIONS = 120  # of a likelihood, per parameter
Forecast = Callable[[F64], F64]  # moves [B, L] -> sums of the next moves [B, H]


class RecursionParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`model_params` of a card."""

    series: Annotated[int, Meta(ge=1, le=200)] = 200
    bars: Annotated[int, Meta(ge=100, le=5_000)] = 5_000  # newest of every series
    rows: Annotated[int, Meta(ge=10, le=10_000)] = 1_000


class SeasonalParams(RecursionParams, frozen=True, forbid_unknown_fields=True):
    """`model_params` of a card; 0 = no season."""

    season_bars: Annotated[int, Meta(ge=0, le=4096)] = 0


class Recursion(LinearMap):
    """Parameters fitted to all windows at once, in one-bar moves: one set serves every symbol."""

    params_type = RecursionParams
    space: ClassVar = {  # how much of the past counts; the likelihood says the rest
        "bars": Parameter("int", 500, 5_000, log=True),
        "rows": Parameter("int", 200, 2_000, log=True),
    }
    reads_channels = reads_calendar = False
    overlapping = False  # a likelihood must count no error twice; an error of all steps may take every window

    def __init__(self, card: Any) -> None:
        super().__init__(card)
        season = getattr(self.params, "season_bars", 0)
        if season == 1 or 2 * season > card.lookback:
            raise BadSettings(
                f"{self.kind}: season_bars = {season} in a window of {card.lookback} bars",
                remedy="give a season of 2 bars or more that fits twice into window.lookback, or 0",
            )

    @abstractmethod
    def estimate(self, moves: F64, y: F64, report: Report) -> Forecast:
        """The recursion with its parameters; it has no constant."""

    def learn(self, train: RowSample, validation: RowSample, report: Report) -> Arrays:
        forecast = self.estimate(train.x.astype(np.float64), train.y, report)
        return {"weights": forecast(np.eye(self.card.lookback)), "bias": np.zeros(self.card.horizon)}

    def pick(self, dataset: Any, rows: I64) -> I64:
        """Windows of the newest bars of some symbols, one after the other unless they may overlap."""
        apart = 1 if self.overlapping else self.card.lookback
        symbols = dataset.history.symbol[rows]
        rng = np.random.Generator(np.random.Philox(key=np.array([self.card.seed, 0], np.uint64)))
        kept = []
        for symbol in rng.permutation(np.unique(symbols))[: self.params.series]:
            own = rows[symbols == symbol]
            back = own[-1] - own
            kept.append(own[(back < self.params.bars) & (back % apart == 0)])
        return super().pick(dataset, np.concatenate(kept))


def least(loss: Callable[[F64], float], start: list[float]) -> tuple[F64, float]:
    """Where `loss` is smallest near `start`, and its value there."""
    budget = EVALUATIONS * len(start)
    found = minimize(
        loss, np.array(start), method="Nelder-Mead", options={"maxfev": budget, "xatol": 1e-3, "fatol": 1e-3}
    )
    return found.x, float(found.fun)


def unit(value: F64 | float) -> Any:
    """Any number as one between 0 and 1."""
    return 1 / (1 + np.exp(-np.clip(value, -30.0, 30.0)))


def information(squares: float, errors: int, parameters: int) -> float:
    """Akaike's criterion, corrected for short samples."""
    correction = 2 * parameters * (parameters + 1) / max(errors - parameters - 1, 1)
    return errors * float(np.log(max(squares / errors, 1e-12))) + 2 * parameters + correction
