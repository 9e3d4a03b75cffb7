"""Linear regressions on the window, one per step: ridge, lasso and elastic net; served as one dot product per step.

All that they need of their windows is how often each two columns went together, so that is what is added up.
"""

import warnings
from abc import abstractmethod
from typing import Annotated, Any, ClassVar

import msgspec
import numpy as np
from msgspec import Meta
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import ElasticNet as SklearnElasticNet
from sklearn.linear_model import Lasso as SklearnLasso
from sklearn.linear_model import Ridge as SklearnRidge

from tickcast.columns import F64
from tickcast.plugin import Parameter, Report
from tickcast_plugins.models.classical import Arrays, LinearMap, RowSample, error_of
from tickcast_plugins.models.counting import Counting, Forget

SPARSE = {"max_iter": 1_000, "tol": 1e-3, "selection": "cyclic"}


class PenaltyParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`model_params` of a card. Of the penalties, each per window, the validation part chooses."""

    rows: Annotated[int, Meta(ge=100, le=200_000)] = 50_000
    penalties: Annotated[list[Annotated[float, Meta(gt=0)]], Meta(min_length=1, max_length=32)] = msgspec.field(
        default_factory=lambda: [1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0]
    )
    forget: Forget = 0.0


class Penalised(Counting, LinearMap):
    """One regression per step, all with the penalty that did best on the validation part."""

    params_type = PenaltyParams
    space: ClassVar = {"rows": Parameter("int", 5_000, 100_000, log=True)}  # its fit finds the penalty itself

    @abstractmethod
    def regression(self, penalty: float, windows: int) -> Any:
        """sklearn's estimator, unfitted and without a constant."""

    def sums(self, train: RowSample) -> Arrays:
        one = np.ones((len(train.x), 1))
        columns = np.concatenate([one, train.x.astype(np.float64), train.y / self._unit], axis=1)
        return {"products": columns.T @ columns}

    def sizes(self) -> dict[str, tuple[int, ...]]:
        columns = 1 + self.width + self.card.horizon
        return {"products": (columns, columns)}

    def are_sums(self, sums: Arrays) -> bool:
        return super().are_sums(sums) and bool((sums["products"].diagonal() >= 0).all())

    def solve(self, sums: Arrays, train: RowSample, validation: RowSample, report: Report) -> Arrays:
        mean, rows = few_rows(sums["products"])
        unit, steps = self._unit, self.card.horizon
        best, chosen, least = {}, 0.0, np.inf
        for step, penalty in enumerate(sorted(self.params.penalties, reverse=True)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # the validation part judges what came of it
                fitted = self.regression(penalty, len(rows)).fit(rows[:, :-steps], rows[:, -steps:])
            weights = np.atleast_2d(fitted.coef_).T
            found = {"weights": weights * unit, "bias": (mean[-steps:] - mean[:-steps] @ weights) * unit}
            error = error_of(validation.x @ found["weights"] + found["bias"], validation.y)
            if error < least:
                best, chosen, least = found, penalty, error
            if not report(step=step + 1, steps=len(self.params.penalties), validation_loss=error):
                break
        self.note(f"penalty {chosen:g}, {int((best['weights'] != 0).sum())} weights")
        return best

    @property
    def _unit(self) -> F64:
        """[H]: so that one penalty means the same at every step."""
        unit: F64 = np.sqrt(np.arange(1, self.card.horizon + 1))
        return unit


class Ridge(Penalised):
    kind = "ridge"

    def regression(self, penalty: float, windows: int) -> Any:
        return SklearnRidge(alpha=penalty * windows, fit_intercept=False)


class Lasso(Penalised):
    kind = "lasso"

    def regression(self, penalty: float, windows: int) -> Any:
        return SklearnLasso(alpha=penalty, precompute=True, fit_intercept=False, **SPARSE)


class ElasticNet(Penalised):
    kind = "elasticnet"

    def regression(self, penalty: float, windows: int) -> Any:
        return SklearnElasticNet(alpha=penalty, l1_ratio=0.5, precompute=True, fit_intercept=False, **SPARSE)


def few_rows(products: F64) -> tuple[F64, F64]:
    """Means of the columns after the first, which is all ones, and as many rows as there are columns, whose mean
    products are those of all windows about these means: no regression can tell them from the windows."""
    windows, mean = products[0, 0], products[0, 1:] / products[0, 0]
    size, turn = np.linalg.eigh(products[1:, 1:] / windows - np.outer(mean, mean))
    rows: F64 = np.sqrt(len(size) * np.maximum(size, 0.0))[:, None] * turn.T
    return mean, rows
