"""Linear regressions on the window, one per step: ridge, lasso and elastic net; served as one dot product per step."""

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

from tickcast.plugin import Parameter, Report
from tickcast_plugins.models.classical import Arrays, LinearMap, RowSample, error_of

SPARSE = {"max_iter": 1_000, "tol": 1e-3, "selection": "cyclic"}


class PenaltyParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`model_params` of a card. Of the penalties, each per window, the validation part chooses."""

    rows: Annotated[int, Meta(ge=100, le=200_000)] = 50_000
    penalties: Annotated[list[Annotated[float, Meta(gt=0)]], Meta(min_length=1, max_length=32)] = msgspec.field(
        default_factory=lambda: [1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0]
    )


class Penalised(LinearMap):
    """One regression per step, all with the penalty that did best on the validation part."""

    params_type = PenaltyParams
    space: ClassVar = {"rows": Parameter("int", 5_000, 100_000, log=True)}  # its fit finds the penalty itself

    @abstractmethod
    def regression(self, penalty: float, windows: int) -> Any:
        """sklearn's estimator, unfitted."""

    def learn(self, train: RowSample, validation: RowSample, report: Report) -> Arrays:
        unit = np.sqrt(np.arange(1, train.y.shape[1] + 1))  # so that one penalty means the same at every step
        x, y = train.x.astype(np.float64), train.y / unit
        best, chosen, least = {}, 0.0, np.inf
        for step, penalty in enumerate(sorted(self.params.penalties, reverse=True)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # the validation part judges what came of it
                fitted = self.regression(penalty, len(x)).fit(x, y)
            found = {"weights": np.atleast_2d(fitted.coef_).T * unit, "bias": np.atleast_1d(fitted.intercept_) * unit}
            error = error_of(validation.x @ found["weights"] + found["bias"], validation.y)
            if error < least:
                best, chosen, least = found, penalty, error
            if not report(step=step + 1, steps=len(self.params.penalties), validation_loss=error):
                break
        self.note(f"penalty {chosen:g}, {int((best['weights'] != 0).sum())} weights")
        return best


class Ridge(Penalised):
    kind = "ridge"

    def regression(self, penalty: float, windows: int) -> Any:
        return SklearnRidge(alpha=penalty * windows)


class Lasso(Penalised):
    kind = "lasso"

    def regression(self, penalty: float, windows: int) -> Any:
        return SklearnLasso(alpha=penalty, precompute=True, **SPARSE)


class ElasticNet(Penalised):
    kind = "elasticnet"

    def regression(self, penalty: float, windows: int) -> Any:
        return SklearnElasticNet(alpha=penalty, l1_ratio=0.5, precompute=True, **SPARSE)
