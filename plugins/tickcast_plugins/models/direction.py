"""The quantiles that follow from the probabilities of down, flat and up. It learns no probability.

The classes cut the move at each step in order, so a level falls into one of them by the cumulated probabilities; how
far into it says where on that class's table of moves the quantile lies. Both rise with the level, so none can cross.
"""

from statistics import NormalDist
from typing import Annotated, NamedTuple

import numpy as np
from msgspec import Meta

from tickcast.columns import F64
from tickcast.direction import LABELS, classes_of, counts_of, edges, frequencies
from tickcast.errors import BadData
from tickcast_plugins.models.onnx_graph import Graph

Band = Annotated[float, Meta(gt=0, le=10)]
BAND = 0.5  # about 38 % of a walk's moves are then flat

PIECES = 32  # of a class's table, each with an equal share of its moves; straight lines between their ends
OUTERMOST = 0.005  # share of a class beyond the end of its table: farther out a single window would decide
LEAST_PROBABILITY = 0.01  # of any class: a market that never does a thing is not known
LEAST_WINDOWS = 20  # that a class's table is learnt from; with fewer it is that of a walk
INSIDE = np.clip(np.arange(PIECES + 1) / PIECES, OUTERMOST, 1 - OUTERMOST)


class Classes(NamedTuple):
    """What each class is like, step by step."""

    frequencies: F64  # [H, C]
    knots: F64  # [H, C * PIECES + 1]: moves that ascend through all classes, which share their edges


def of_walk(horizon: int, band: float) -> Classes:
    """Of a random walk whose one-bar move is 1."""
    return _classes(np.tile(_walk_frequencies(band), (horizon, 1)), _walk_tables(horizon, band))


def of_moves(moves: F64, band: float) -> Classes:
    """Of the moves [N, H] that followed the windows of a training part."""
    n, horizon = moves.shape
    known, edge, tables = classes_of(moves, band), edges(band, horizon), _walk_tables(horizon, band)
    counts = counts_of(known)
    if (counts.max(axis=1) == n).all():
        only = LABELS[int(counts[0].argmax())]
        raise BadData(
            f"every window of the training part ends {only}: there is no direction to learn", remedy="set another band"
        )
    for step in range(horizon):
        for place in np.flatnonzero(counts[step] >= LEAST_WINDOWS):
            tables[step, place] = np.quantile(moves[known[:, step] == place, step], INSIDE)
    return _classes(frequencies(counts), _pinned(tables, edge))


def _walk_frequencies(band: float) -> F64:
    below = NormalDist().cdf(-band)
    return np.array([below, 1 - 2 * below, below])


def _walk_tables(horizon: int, band: float) -> F64:
    """[H, C, PIECES + 1]: the moves at the knots of every class."""
    shares, normal = _walk_frequencies(band), NormalDist()
    begins = np.array([0.0, *shares.cumsum()[:-1]])
    levels = begins[:, None] + shares[:, None] * INSIDE
    one = np.array([[normal.inv_cdf(level) for level in row] for row in levels])
    tables: F64 = one * np.sqrt(np.arange(1, horizon + 1))[:, None, None]
    return _pinned(tables, edges(band, horizon))


def _pinned(tables: F64, edge: F64) -> F64:
    """[H, C, PIECES + 1]: classes that meet at their edges."""
    tables[:, 0, -1] = tables[:, 1, 0] = -edge
    tables[:, 1, -1] = tables[:, 2, 0] = edge
    return tables


def _classes(frequencies: F64, tables: F64) -> Classes:
    return Classes(
        frequencies, np.concatenate([tables[:, :, :-1].reshape(len(tables), -1), tables[:, -1:, -1]], axis=1)
    )


def probabilities(scores: F64) -> F64:
    """[N, H, C] of scores that add to their logarithm."""
    grown = np.exp(scores - scores.max(axis=2, keepdims=True))
    likely: F64 = grown / grown.sum(axis=2, keepdims=True)
    return likely * (1 - len(LABELS) * LEAST_PROBABILITY) + LEAST_PROBABILITY


def quantiles(probs: F64, classes: Classes, levels: list[float]) -> F64:
    """[N, H, Q] of the move, in one-bar moves."""
    down, flat, up = (probs[:, :, place, None] for place in range(len(LABELS)))
    level, above = np.array(levels), 1 - up
    is_up, is_down = level > above, level <= down
    begin = np.where(is_up, above, np.where(is_down, 0.0, down))
    width = np.where(is_up, up, np.where(is_down, down, flat))
    at = np.clip((level - begin) / width, 0.0, 1.0) + np.where(is_up, 2.0, np.where(is_down, 0.0, 1.0))
    piece = np.minimum(np.floor(at * PIECES), len(LABELS) * PIECES - 1)
    step, place = np.arange(len(classes.knots))[:, None], piece.astype(np.int64)
    low, high = classes.knots[step, place], classes.knots[step, place + 1]
    return np.minimum(low + (at * PIECES - piece) * (high - low), high)


def probability_nodes(g: Graph, scores: str) -> str:
    """As `probabilities`, in the graph, in double precision."""
    double = np.float64
    share = g.constant(1 - len(LABELS) * LEAST_PROBABILITY, double)
    return g.add("Add", g.add("Mul", g.add("Softmax", scores, axis=2), share), g.constant(LEAST_PROBABILITY, double))


def quantile_nodes(g: Graph, probs: str, classes: Classes, levels: list[float]) -> str:
    """As `quantiles`, in the graph, in double precision."""
    width, last = classes.knots.shape[1], g.constant([2], np.int64)
    zero, one, two, pieces = (g.constant(value, np.float64) for value in (0.0, 1.0, 2.0, PIECES))
    cut = [g.add("Gather", probs, g.constant(place, np.int64), axis=2) for place in range(len(LABELS))]
    down, flat, up = (g.add("Unsqueeze", part, last) for part in cut)
    level, above = g.constant(levels, np.float64), g.add("Sub", one, up)
    is_up, is_down = g.add("Greater", level, above), g.add("LessOrEqual", level, down)

    def chosen(of_down: str, of_flat: str, of_up: str) -> str:
        return g.add("Where", is_up, of_up, g.add("Where", is_down, of_down, of_flat))

    within = g.add("Div", g.add("Sub", level, chosen(zero, down, above)), chosen(down, flat, up))
    at = g.add("Mul", g.add("Add", g.add("Clip", within, zero, one), chosen(zero, one, two)), pieces)
    piece = g.add("Min", g.add("Floor", at), g.constant(len(LABELS) * PIECES - 1, np.float64))
    rows = g.constant(width * np.arange(len(classes.knots))[:, None], np.int64)
    place = g.add("Add", g.cast(piece, np.int64), rows)
    knots = g.constant(classes.knots.ravel(), np.float64)
    low = g.add("Gather", knots, place)
    high = g.add("Gather", knots, g.add("Add", place, g.constant(1, np.int64)))
    risen = g.add("Mul", g.add("Sub", at, piece), g.add("Sub", high, low))
    return g.add("Min", g.add("Add", low, risen), high)
