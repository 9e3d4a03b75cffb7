"""Which windows an epoch sees: a function of order, data and epoch alone. It gathers none of them."""

import numpy as np

from tickcast.batch.train.dataset import Dataset
from tickcast.columns import F64, I64
from tickcast.io.jobs.orders import FitOrder


def draw(dataset: Dataset, order: FitOrder, epoch: int) -> I64:
    """The epoch's windows: where old ones are drawn beside news, of each kind as many as `epoch_windows` says."""
    rng = np.random.Generator(np.random.Philox(key=np.array([order.seed, epoch], np.uint64)))
    old, news = epoch_windows(dataset, order)
    seen, unseen = dataset.training_windows()
    drawn = _drawn(dataset, order, unseen, news, rng)
    if not old:
        return drawn
    known = np.setdiff1d(seen, remembered(dataset, order), assume_unique=True)
    both = np.concatenate([_drawn(dataset, order, known, old, rng), drawn])
    mixed: I64 = both[rng.permutation(len(both))]
    return mixed


def epoch_windows(dataset: Dataset, order: FitOrder) -> tuple[int, int]:
    """How many old ones, and how much news: all of it, and so many old ones beside it, as long as there is room."""
    seen, unseen = dataset.training_windows()
    share, most = order.old_share or 0.0, len(seen) - len(remembered(dataset, order))
    old = min(round(len(unseen) * share / (1 - share)), most)
    count = min(order.windows_per_epoch, old + len(unseen))
    old = count * old // (old + len(unseen))
    return old, count - old


def remembered(dataset: Dataset, order: FitOrder) -> I64:
    """Old windows that are never drawn: by them is told what a fit forgets. Evenly spaced, a tenth of them at most."""
    seen, _ = dataset.training_windows()
    count = min(order.validation_windows, -(-len(seen) // 10))
    chosen: I64 = seen[np.linspace(0, len(seen) - 1, count).astype(np.int64)]
    return chosen


def _drawn(dataset: Dataset, order: FitOrder, rows: I64, count: int, rng: np.random.Generator) -> I64:
    """Where all weigh alike, every one comes up once before any comes twice."""
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
