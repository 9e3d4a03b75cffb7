"""The book by itself: what is entered into it and what leaves it. The engine's tests hold the figures."""

import numpy as np
import pytest

from tickcast.engine.core import scoring, tally, uncertainty
from tickcast.figures import last_value_quantiles

LEVELS, HORIZONS = [0.1, 0.5, 0.9], [1, 3]
FRAME = scoring.Frame(
    levels=np.array(LEVELS), horizons=np.array(HORIZONS, np.int64), median=1, transform=1, groups=1, cells=1,
    widening=False, gamma=0.01, memory=100.0, bound=20.0, per_bar=False, last_value=0,
    marks_per_cell=1, class_step=1, class_edge=np.full(1, -1.0),
    last_value_raw=last_value_quantiles(LEVELS, HORIZONS), correcting=False,
)  # fmt: skip


class Keeper:
    """One symbol whose every bar asks a question; quantiles lie one scale around the anchor."""

    def __init__(self) -> None:
        self.book = scoring.fresh_book(2, HORIZONS, len(LEVELS))
        self.tally = tally.fresh_tally(1, len(HORIZONS), len(LEVELS), marks=4)
        self.conformal = uncertainty.fresh(1, len(HORIZONS), LEVELS)
        self.mark = np.zeros(1, np.int64)

    def take(self, closes: list[float], *, first: int, scale: float, real: list[int] | None = None) -> scoring.Settled:
        n = len(closes)
        ordinal, close, none = first + np.arange(n), np.array(closes), np.zeros(n, np.int64)
        mask = np.ones(n, np.uint8) if real is None else np.array(real, np.uint8)
        rows = scoring.SettledRows(
            none.astype(np.int32), ordinal, close, ordinal * 10, mask, none, none, none.astype(np.int32), np.arange(n)
        )
        raw = np.tile(np.array([-1.0, 0.0, 1.0]), (n, max(HORIZONS), 1))
        answers = scoring.Entries(
            raw, close.copy(), np.full(n, scale), none.astype(np.int32), np.zeros(n, np.uint8),
            none.astype(np.uint64), ordinal.astype(np.uint64), np.empty_like(raw), np.empty(n, np.float32),
            np.full((n, 3), np.nan, np.float32), np.empty(n, np.uint8), ordinal.astype(np.uint8),
            np.full(n, 7, np.uint8),
        )  # fmt: skip
        out = scoring.settled_room(n, len(HORIZONS))
        group, self.labels = np.zeros(1, np.int32), scoring.labels_room(n)
        given = (FRAME, group, rows, answers, self.mark, self.mark)
        scoring.settle(self.book, self.tally, self.conformal, out, self.labels, *given)
        return out


def test_a_question_leaves_with_the_closes_of_its_horizons_however_often_the_ring_went_round() -> None:
    keeper, closes = Keeper(), [float(n * n) for n in range(40)]
    for first in range(0, 40, 8):
        out = keeper.take(closes[first : first + 8], first=first, scale=100.0)
        for row in range(int(out.used[0])):
            asked = int(out.id_low[row])
            assert out.actual[row].tolist() == [closes[asked + 1], closes[asked + 3]]
            assert out.point[row].tolist() == [closes[asked]] * 2
            assert out.covered[row].tolist() == [closes[asked + h] - closes[asked] <= 100.0 for h in HORIZONS]
            beyond = np.array([closes[asked + h] - closes[asked] for h in HORIZONS])
            loss = sum(np.maximum(q * (beyond - z), (q - 1) * (beyond - z)) for q, z in zip(LEVELS, (-100, 0, 100)))
            assert out.pinball[row] == pytest.approx(loss / 3, rel=1e-6)


def test_a_carried_bar_makes_the_labels_void_that_it_would_be_the_truth_of() -> None:
    out = Keeper().take([1.0, 2.0, 3.0, 4.0, 5.0], first=0, scale=1.0, real=[1, 1, 0, 1, 1])
    assert out.actual[:2].tolist() == [[2.0, 4.0], [pytest.approx(np.nan, nan_ok=True), 5.0]]
    assert np.isnan(out.pinball[1, 0])


def test_what_the_first_step_settled_is_noted_row_by_row() -> None:
    keeper = Keeper()
    keeper.take([1.0, 1.5, 9.0, 9.0, 9.5], first=0, scale=1.0, real=[1, 1, 1, 0, 1])
    labels = keeper.labels
    assert labels.cell.tolist() == [-1, 0, 0, -1, 0]  # none before the first bar, and a carried one is no truth
    assert labels.missed.tolist() == [0, 0, 1, 0, 0]
    beyond = np.array([0.5, 7.5, 0.5])
    loss = [sum(max(q * (b - z), (q - 1) * (b - z)) for q, z in zip(LEVELS, (-1, 0, 1), strict=True)) for b in beyond]
    np.testing.assert_allclose(labels.loss[[1, 2, 4]], np.array(loss) / 3, rtol=1e-6)
    np.testing.assert_array_equal(labels.loss, labels.loss_naive)  # it is last value
    keeper.take([9.5, 9.5], first=5, scale=1e-9)
    assert keeper.take([9.5], first=7, scale=1.0).used[0] == 1
    assert (keeper.labels.cell.tolist(), keeper.labels.loss.tolist()) == ([0], [0.0])  # a window that never moved


def test_a_question_whose_unit_overflows_is_answered_and_never_scored() -> None:
    keeper = Keeper()
    assert keeper.take([1e200, -1e200, 1e200, -1e200, 1e200], first=0, scale=np.inf).used[0] == 0
    assert not keeper.tally.current.any()
    assert not keeper.conformal.pending.any()
    assert keeper.take([1.0, 2.0, 3.0, 4.0], first=5, scale=1.0).used[0] == 1
