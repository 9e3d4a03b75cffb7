"""Which windows an epoch sees: a function of order, data and epoch alone. It gathers none of them."""

import numpy as np

from tickcast.batch.train.dataset import Dataset
from tickcast.columns import F64, I64
from tickcast.io.jobs.orders import FitOrder


def draw(dataset: Dataset, order: FitOrder, epoch: int) -> I64:
    """The epoch's windows. Where all weigh alike, every one comes up once before any comes twice."""
    rows = dataset.parts.train
    rng = np.random.Generator(np.random.Philox(key=np.array([order.seed, epoch], np.uint64)))
    count = min(order.windows_per_epoch, len(rows))
    _, start, windows = np.unique(dataset.history.symbol[rows], return_index=True, return_counts=True)
    if not order.half_life_bars and len(np.unique(windows)) == 1:
        shuffled: I64 = rows[rng.permutation(len(rows))[:count]]
        return shuffled
    sums = np.cumsum(weights(rows, start, windows, order))
    place = np.searchsorted(sums, rng.random(count) * sums[-1], side="right")
    drawn: I64 = rows[np.minimum(place, len(rows) - 1)]
    return drawn


def weights(rows: I64, start: I64, windows: I64, order: FitOrder) -> F64:
    """How often each of `rows` is drawn, by symbol: n windows weigh n ** symbol_weight together, and a window that is
    a half-life of bars older than another of its symbol weighs half as much.
    """
    recency = np.ones(len(rows))
    if order.half_life_bars:
        newest = np.repeat(rows[start + windows - 1], windows)
        recency = np.exp2((rows - newest) / order.half_life_bars)
    share: F64 = windows.astype(np.float64) ** order.symbol_weight / np.add.reduceat(recency, start)
    return np.repeat(share, windows) * recency
