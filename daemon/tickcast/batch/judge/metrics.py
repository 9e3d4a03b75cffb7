"""What a search may seek: one number of a fitted model over the validation part, by name. It fits nothing."""

from typing import NamedTuple

import numpy as np

from tickcast.batch.judge import statistics
from tickcast.batch.judge.hold_out import TILE, Figures, Predict, last_value_said, last_value_widths
from tickcast.batch.train.dataset import Dataset
from tickcast.columns import F64, I64
from tickcast.errors import BadData
from tickcast.figures import directions, mean
from tickcast.io.jobs.orders import FEE_BPS, SLIPPAGE_BPS, FitOrder, Metric

MOST_IS_BEST = ("directional", "sharpe")
SIDE_COST = (FEE_BPS + SLIPPAGE_BPS) * 1e-4  # of the capital that is turned over, as a backtest takes unless told


class MedianAndTruth(NamedTuple):
    """What the median said of each window, and what came, as moves from the anchor [n, H]."""

    rows: I64
    point: F64
    actual: F64
    quantile: Figures


def validation_value(metric: Metric, predict: Predict, dataset: Dataset, order: FitOrder) -> float:
    """Over the same windows in every trial, whatever loss the fit minimised; pinball is in one-bar moves."""
    said = _said(predict, dataset, order)
    if metric == "directional":
        told, right = directions(said.actual, said.point)
        return float(mean(np.count_nonzero(right), np.count_nonzero(told))) if told.any() else 0.0
    if metric == "sharpe":
        return _sharpe(said, dataset, order)
    return float(said.quantile.result()[metric])


def last_value_pinball(dataset: Dataset, order: FitOrder) -> float:
    """Of last value over the same windows, with widths that its errors over the training part had."""
    widths, rows = last_value_widths(dataset, dataset.parts.train, order.levels), _rows(dataset, order)
    figures = Figures(order.levels)
    for first in range(0, len(rows), TILE):
        _, target, scale = dataset.batch(rows[first : first + TILE])
        figures.add(last_value_said(widths, scale), target, scale)
    return float(figures.result()["pinball"])


def _rows(dataset: Dataset, order: FitOrder) -> I64:
    rows = dataset.parts.validation
    spread: I64 = rows[np.linspace(0, len(rows) - 1, min(order.validation_windows, len(rows))).astype(np.int64)]
    return spread


def _said(predict: Predict, dataset: Dataset, order: FitOrder) -> MedianAndTruth:
    rows = _rows(dataset, order)
    figures, median = Figures(order.levels), order.levels.index(0.5)
    point, actual = np.empty((len(rows), order.horizon)), np.empty((len(rows), order.horizon))
    for first in range(0, len(rows), TILE):
        tile = slice(first, first + TILE)
        inputs, target, scale = dataset.batch(rows[tile])
        quantiles = predict(inputs)
        figures.add(quantiles, target, scale)
        point[tile], actual[tile] = quantiles[:, :, median], target
    return MedianAndTruth(rows, point, actual, figures)


def _sharpe(said: MedianAndTruth, dataset: Dataset, order: FitOrder) -> float:
    """Of one trade a window, held to the last step in the median's direction, after costs; trades of one moment share
    the capital. Who never trades earns nothing and risks nothing: 0.
    """
    bars, move = dataset.history.bars, said.actual[:, -1]
    anchor = bars.close[said.rows]
    if not (anchor > 0).all():
        raise BadData("a share of a price that is not positive cannot be traded", remedy="seek another metric")
    share = np.expm1(move) if order.transform == "log_return" else move / anchor
    side = np.sign(said.point[:, -1])
    earned = side * share - 2 * SIDE_COST * np.abs(side)
    moment = np.unique(bars.as_of[said.rows], return_inverse=True)[1]
    ratio = statistics.sharpe(np.bincount(moment, earned) / np.bincount(moment))
    return ratio if np.isfinite(ratio) or side.any() else 0.0
