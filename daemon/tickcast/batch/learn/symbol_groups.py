"""Symbols that move together, as groups: clusters by the correlation of their moves. It sets nothing."""

from typing import Any, NamedTuple

import numpy as np
from sklearn.cluster import DBSCAN, AgglomerativeClustering
from sklearn.metrics import silhouette_score

from tickcast.batch.train.history import BarHistory
from tickcast.columns import F64, I64
from tickcast.errors import BadData

LEAST_MOVES = 30  # that two symbols must have in common; else they count as unrelated
MOST_SYMBOLS = 2_000


class Groups(NamedTuple):
    members: list[list[str]]  # the largest first; who is in none is alone
    figures: dict[str, Any]


def group_symbols(
    history: BarHistory, *, until_ns: int, method: str, count: int, eps: float, least: int, most_times: int
) -> Groups:
    """Clusters by average linkage (`count` of them) or by DBSCAN (within `eps`), over the newest moves until then."""
    moves = common_moves(history, until_ns, most_times)
    distance = 1.0 - correlations(moves)
    if method == "dbscan":
        labels = DBSCAN(eps=eps, min_samples=least, metric="precomputed").fit_predict(distance)
    else:
        if count > len(distance):
            raise BadData(f"{len(distance)} symbols make no {count} groups", remedy="give a smaller --k")
        tree = AgglomerativeClustering(n_clusters=count, metric="precomputed", linkage="average")
        labels = tree.fit_predict(distance)
    names = np.array(history.names)
    found = [sorted(names[labels == label].tolist()) for label in np.unique(labels[labels >= 0])]
    found.sort(key=lambda members: (-len(members), members))
    figures: dict[str, Any] = {"symbols": len(names), "moves": len(moves), "in no group": int((labels < 0).sum())}
    if 1 < len(np.unique(labels)) < len(labels):
        figures["silhouette"] = float(silhouette_score(distance, labels, metric="precomputed"))
    return Groups(found, figures)


def common_moves(history: BarHistory, until_ns: int, most_times: int) -> F64:
    """Log returns [times, symbols] of bars that ended at the same time, the newest until then; NaN = none there."""
    if not 2 <= len(history.names) <= MOST_SYMBOLS:
        raise BadData(f"groups need 2 to {MOST_SYMBOLS:,} symbols, not {len(history.names)}")
    bars = history.bars
    rows = _moved(history, until_ns)
    times = np.unique(bars.as_of[rows])[-most_times:]
    rows = rows[bars.as_of[rows] >= times[0]] if len(times) else rows
    moves = np.full((len(times), len(history.names)), np.nan)
    moves[np.searchsorted(times, bars.as_of[rows]), history.symbol[rows]] = np.log(
        bars.close[rows] / bars.close[rows - 1]
    )
    return moves


def _moved(history: BarHistory, until_ns: int) -> I64:
    """Real bars until then that follow a real one, with positive prices."""
    bars = history.bars
    rows = np.flatnonzero((bars.as_of <= until_ns) & (bars.mask == 1) & (history.gap == 0) & (bars.close > 0))
    rows = rows[rows > bars.start[history.symbol[rows]]]
    found: I64 = rows[(bars.mask[rows - 1] == 1) & (bars.close[rows - 1] > 0)]
    return found


def correlations(moves: F64) -> F64:
    """Of each pair of columns, over the rows that both have; 0 where these are too few or one never moves."""
    there = np.isfinite(moves).astype(np.float64)
    values = np.where(there > 0, moves, 0.0)
    scale = np.sqrt((values**2).sum(axis=0) / np.maximum(there.sum(axis=0), 1))
    values = values / np.where(scale > 0, scale, 1.0)
    both = there.T @ there
    count = np.maximum(both, 1)
    total, squares = values.T @ there, (values**2).T @ there
    covariance = values.T @ values / count - total * total.T / count**2
    variance = squares / count - (total / count) ** 2
    product = np.sqrt(np.maximum(variance, 0) * np.maximum(variance.T, 0))
    known = (both >= LEAST_MOVES) & (product > 0)
    found: F64 = np.clip(np.divide(covariance, product, out=np.zeros_like(covariance), where=known), -1, 1)
    np.fill_diagonal(found, 1.0)
    return (found + found.T) / 2
