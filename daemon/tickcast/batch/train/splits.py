"""Where a history is cut into train, validation, calibration and hold-out. No target span crosses a cut.

All symbols are cut at the same event times. A window may look back over a cut, its targets may not; after a cut come
as many bars as the horizon that belong to nobody (the embargo).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit

from tickcast.batch.train.history import BarHistory
from tickcast.columns import I64
from tickcast.errors import BadData

CUTS = (0.7, 0.8, 0.9)  # of the span of event time
TO_THE_END = (0.8, 0.9, 1.0)  # the same parts, moved to its end: there is no hold-out
OF_NEWS = (0.4, 0.5, 0.6)  # of what little is news: its hold-out must be able to tell something
PAPER_TRAIN, PAPER_TEST = 0.7, 0.2  # of the bars of any other series
MONTH_OF_15_MIN = 30 * 24 * 4
PAPER_ROWS = {  # bars of a series in the file -> train, validation, test: 12, 4 and 4 months of 30 days
    69_680: (12 * MONTH_OF_15_MIN, 4 * MONTH_OF_15_MIN, 4 * MONTH_OF_15_MIN),  # ETTm1, ETTm2
    17_420: (3 * MONTH_OF_15_MIN, MONTH_OF_15_MIN, MONTH_OF_15_MIN),  # ETTh1, ETTh2
}
PARTS = ("train", "validation", "calibration", "holdout")


class SplitRows(NamedTuple):
    """Rows of the anchor bars of each part's windows, the first row of each part by symbol [S, 5], and the cuts."""

    train: I64
    validation: I64
    calibration: I64
    holdout: I64
    edges: I64
    cuts: tuple[float, ...] = CUTS
    news_after_ns: int = 0  # windows of the hold-out up to there were taken away; 0 = none was
    cut_from_ns: int = 0  # the cuts are of the span after that, and all before belongs to train; 0 = of all

    def is_train(self, history: BarHistory) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
        """Rows whose bars lie in the training part: what scalers may be fitted on."""
        before: np.ndarray[tuple[int], np.dtype[np.bool_]] = np.arange(len(history)) < self.edges[history.symbol, 1]
        return before


def split(
    history: BarHistory, *, kind: str, need_bars: int, horizon: int, cuts: tuple[float, ...] = CUTS,
    seen_to_ns: int = 0, cut_from_ns: int = 0,
) -> SplitRows:  # fmt: skip
    """All usable windows, by part; in the hold-out none of bars up to `seen_to_ns`."""
    paper = kind == "paper"
    edges, embargo = (_paper_edges(history, horizon), -1) if paper else (_edges(history, cuts, cut_from_ns), horizon)
    rows = usable_windows(history, need_bars=need_bars, horizon=horizon)
    own = edges[history.symbol[rows]]
    found = {}
    for part, name in enumerate(PARTS):
        begins = own[:, part] + embargo if part else own[:, part]
        found[name] = rows[(rows >= begins) & (rows + horizon < own[:, part + 1])]
        if paper and name == "calibration" and not len(found[name]):
            found[name] = found["validation"]
        if not len(found[name]) and not (name == "holdout" and cuts == TO_THE_END):
            raise BadData(
                f"{len(history)} bars of {len(history.names)} symbols leave the {name} part without a window",
                remedy="give more history, or a shorter lookback, horizon or feature lookback",
            )
    parts = SplitRows(found["train"], found["validation"], found["calibration"], found["holdout"], edges, cuts)
    return _with_news(parts._replace(cut_from_ns=cut_from_ns), history, seen_to_ns)


def _with_news(parts: SplitRows, history: BarHistory, seen_to_ns: int) -> SplitRows:
    """A hold-out is none for a fit that begins with a model which learnt from it."""
    is_news = history.bars.as_of[parts.holdout] > seen_to_ns
    if is_news.all():
        return parts
    if not is_news.any():
        raise BadData(
            "the model that this fit begins with has seen all of the hold-out", remedy="give later bars, or fit anew"
        )
    return parts._replace(holdout=parts.holdout[is_news], news_after_ns=seen_to_ns)


def usable_windows(history: BarHistory, *, need_bars: int, horizon: int) -> I64:
    """Rows of real bars with their lookback, none of whose targets is carried or lies across a gap."""
    bad = np.concatenate([[0], np.cumsum((history.bars.mask == 0) | (history.gap == 1), dtype=np.int64)])
    out = np.empty(len(history), np.int64)
    count = _usable(history.bars, history.symbol, history.first, history.ends, bad, need_bars, horizon, out)
    return out[:count].copy()


@njit(cache=True, nogil=True)
def _usable(bars, symbol, first, ends, bad, need_bars, horizon, out):  # type: ignore[no-untyped-def]
    count = 0
    for row in range(len(symbol)):
        s = symbol[row]
        if row + horizon >= ends[s] or bars.mask[row] == 0:
            continue
        held = row - bars.start[s] - first[row] + 1
        if held >= need_bars and bad[row + 1] == bad[row + horizon + 1]:
            out[count] = row
            count += 1
    return count


def _edges(history: BarHistory, shares: Sequence[float], from_ns: int) -> I64:
    """The same event times for all symbols; a bar that ends at a cut lies before it."""
    as_of = history.bars.as_of
    begin, end = max(int(as_of.min()), from_ns), int(as_of.max())
    cuts = [end if share == 1 else begin + int((end - begin) * share) for share in shares]
    edges = np.empty((len(history.names), len(PARTS) + 1), np.int64)
    edges[:, 0], edges[:, -1] = history.bars.start, history.ends
    for s, (start, stop) in enumerate(zip(history.bars.start, history.ends, strict=True)):
        edges[s, 1:-1] = start + np.searchsorted(as_of[start:stop], cuts, side="right")
    return edges


def _paper_edges(history: BarHistory, horizon: int) -> I64:
    """The cuts of the literature, in bars of each series; calibration is the last quarter of its validation part, or
    all of it where a quarter holds no window.
    """
    counts = history.ends - history.bars.start
    edges = np.empty((len(counts), len(PARTS) + 1), np.int64)
    for s, count in enumerate(counts.tolist()):
        train, test = int(count * PAPER_TRAIN), int(count * PAPER_TEST)
        train, validation, test = PAPER_ROWS.get(count, (train, count - train - test, test))
        cut, quarter = train + validation, validation // 4
        own = quarter if quarter >= horizon else 0
        edges[s] = history.bars.start[s] + np.array([0, train, cut - own, cut, cut + test])
    return edges
