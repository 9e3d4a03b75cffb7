"""The regime of every symbol: against a plain computation, whatever the bars, and whatever the chunks."""

import numpy as np
import pytest

from kit import Served, settings, walk
from tickcast.columns import BarBatch
from tickcast.engine.core.regimes import LARGEST, Regimes
from tickcast.regimes import CALM, NORMAL, REGIMES, WILD, regime_after, weight
from tickcast.symbols import SymbolTable


def bars_of(close: np.ndarray, *, mask: np.ndarray | None = None, gap: np.ndarray | None = None) -> BarBatch:
    """[bars, symbols] in the order in which they close."""
    t, s = (each.ravel() for each in np.indices(close.shape))
    none, n = np.zeros(close.size, np.int64), close.size
    real = np.ones(n, np.uint8) if mask is None else mask.ravel().astype(np.uint8)
    prices = {name: close.ravel().astype(float) for name in ("open", "high", "low", "close")}
    return BarBatch(
        symbol=s.astype(np.int32), ordinal=t, as_of=t + 1, tie=none.astype(np.int32), **prices, volume=none * 1.0,
        ticks=none, mask=real, gap=(none if gap is None else gap.ravel()).astype(np.uint8),
        partition=none.astype(np.int32), offset=none, mark=none,
    )  # fmt: skip


def made(symbols: int, transform: str = "log_return") -> Regimes:
    known = SymbolTable(64)
    for code in range(symbols):
        known.code(f"S{code}")
    return Regimes(settings(forecast__transform=transform), known)


def plain(close: list[float], mask: list[int], gap: list[int], *, in_logs: bool) -> list[int]:
    """Of one symbol."""
    fast = slow = 0.0
    seen, label, before, found = 0, NORMAL, None, []
    for price, real, after_gap in zip(close, mask, gap, strict=True):
        if real and before is not None and not after_gap:
            size, seen = abs(np.log(price / before) if in_logs else price - before), seen + 1
            fast += (size - fast) * max(2 / 25, 1 / seen)
            slow += (size - slow) * max(2 / 241, 1 / seen)
            if fast > 1.5 * slow:
                label = WILD
            elif 1.5 * fast < slow:
                label = CALM
            elif (label == WILD and fast < 1.25 * slow) or (label == CALM and 1.25 * fast > slow):
                label = NORMAL
        before = price if real else None
        found.append(label)
    return found


@pytest.mark.parametrize("transform", ["log_return", "difference", "level"])
def test_a_regime_is_what_a_plain_computation_says(transform: str) -> None:
    draw = np.random.default_rng(1)
    size = np.repeat(draw.choice([0.3, 1.0, 3.0], (20, 3)), 60, axis=0)
    close = 100 * np.exp(np.cumsum(1e-3 * size * draw.normal(size=size.shape), axis=0))
    mask, gap = draw.random(close.shape) > 0.05, draw.random(close.shape) < 0.03
    found = made(3, transform).follow(bars_of(close, mask=mask, gap=gap)).reshape(close.shape)
    for s in range(3):
        expected = plain(
            close[:, s].tolist(), mask[:, s].tolist(), gap[:, s].tolist(), in_logs=transform == "log_return"
        )
        assert found[:, s].tolist() == expected
    assert {*np.unique(found)} == {CALM, NORMAL, WILD}


@pytest.mark.parametrize(
    ("before", "pace", "after"),
    [
        (NORMAL, 1.51, WILD), (NORMAL, 1.49, NORMAL), (WILD, 1.26, WILD), (WILD, 1.24, NORMAL), (CALM, 1.51, WILD),
        (NORMAL, 0.66, CALM), (NORMAL, 0.67, NORMAL), (CALM, 0.79, CALM), (CALM, 0.81, NORMAL), (WILD, 0.66, CALM),
    ],
)  # fmt: skip
def test_a_label_follows_from_the_one_before_and_how_fast_it_goes(before: int, pace: float, after: int) -> None:
    assert regime_after(before, 3.0 * pace, 3.0) == after
    assert regime_after(before, 0.0, 0.0) == before


def test_a_mean_weighs_all_alike_until_it_has_seen_its_span() -> None:
    assert [weight(3, seen) for seen in (1, 2, 3, 100)] == [1.0, 0.5, 0.5, 0.5]


def test_a_label_is_left_nearer_to_the_usual_than_it_was_entered() -> None:
    """Moves go up slowly and down again: between the two bounds the label is that of before."""
    size = np.concatenate([np.ones(400), np.linspace(1, 3, 60), np.linspace(3, 1, 60), np.ones(300)])
    regimes, close = made(1), 100 * np.exp(np.cumsum(1e-4 * size))[:, None]
    labels, pace = [], []
    for bar in range(len(close)):
        labels.append(int(regimes.follow(bars_of(close[bar : bar + 1]))[0]))
        state = regimes._paces.symbol[0]
        pace.append(state["fast"] / max(state["slow"], 1e-300))
    begin, end = labels.index(WILD), len(labels) - 1 - labels[::-1].index(WILD)
    assert set(labels[begin : end + 1]) == {WILD}
    assert pace[begin - 1] <= 1.5 < pace[begin]
    assert pace[end + 1] < 1.25 <= pace[end]


def test_normal_moves_make_no_regime_and_a_doubled_spread_is_one_within_20_bars() -> None:
    draw = np.random.default_rng(2)
    moves = draw.normal(size=(1000, 40))
    moves[900:] *= 2
    found = made(40).follow(bars_of(100 * np.exp(1e-3 * np.cumsum(moves, axis=0)))).reshape(moves.shape)
    assert (found[240:900] != NORMAL).mean() < 0.01
    assert (found[920] == WILD).mean() > 0.8


def test_one_jump_alone_is_no_regime() -> None:
    moves = np.full((600, 1), 1e-3)
    moves[500] = 6e-3
    found = made(1).follow(bars_of(100 * np.exp(np.cumsum(moves, axis=0))))
    assert set(found.tolist()) == {NORMAL}


def test_moves_without_bound_or_none_at_all_harm_nobody() -> None:
    regimes = made(2, "difference")
    close = np.tile([[1.7e308, 5.0], [-1.7e308, 5.0]], (300, 1))
    found = regimes.follow(bars_of(close)).reshape(close.shape)
    assert set(found.ravel().tolist()) == {NORMAL}  # of the one all moves are alike, and the other never moved
    assert regimes._paces.symbol["fast"][:2] == pytest.approx([LARGEST, 0.0])
    regimes = made(1)
    regimes.follow(bars_of(np.array([[1.0], [-1.0], [2.0], [0.0], [3.0]])))
    assert not np.isnan(regimes._paces.symbol["fast"][0])


def test_symbols_are_counted_once_they_have_moved_and_none_that_was_forgotten() -> None:
    regimes = made(3)
    assert regimes.counts() == dict.fromkeys(REGIMES, 0)
    close = np.full((400, 2), 100.0)
    close[:, 0] *= np.exp(np.cumsum(np.concatenate([np.full(350, 1e-3), np.full(50, 9e-3)])))
    close[:, 1] *= np.exp(np.cumsum(np.concatenate([np.full(350, 1e-3), np.full(50, 1e-5)])))
    regimes.follow(bars_of(close))
    assert regimes.counts() == {"calm": 1, "normal": 0, "wild": 1}
    regimes.forget(np.array([1]))
    assert regimes.counts() == {"calm": 0, "normal": 0, "wild": 1}


def test_scores_carry_the_regime_of_their_bar_whatever_the_chunks() -> None:
    given = settings(forecast__horizon=3, window__lookback=6, bars__every_ms=200)
    ticks = walk(3000, 2, seed=3)
    moved = [100 * (price / 100) ** (4 if 1800 < i < 2200 else 1) for i, (_, _, price, _) in enumerate(ticks)]
    ticks = [(name, ts, price, size) for (name, ts, _, size), price in zip(ticks, moved, strict=True)]
    whole, other = (Served(given, ticks, chunk=chunk) for chunk in (len(ticks), 7))
    for one in (whole, other):
        assert one.engine.regimes.counts() == whole.engine.regimes.counts()
    scores, others = whole.scores, other.scores
    assert (scores.id_low == others.id_low).all()
    np.testing.assert_array_equal(scores.regime, others.regime)
    assert len(np.unique(scores.regime)) > 1
    assert (scores.odd == 255).all()  # no reference
