"""A window that is brought along gives the very inputs that the rings give after the same bars."""

import numpy as np
import pytest

from kit import T0
from snapshotkit import Running, small_settings
from tickcast.columns import Bars
from tickcast.engine.core import windows
from tickcast.engine.core.events import Ask
from tickcast.errors import BadRequest
from tickcast.io.memory_bus import raw_batch
from tickcast.questions import Questions
from tickcast.settings import Settings

SECOND = 10**9


def options(**other: object) -> Settings:
    return small_settings(**{"bars__every_ms": 1000, "model__default": "naive", "codec__fields__sequence": ""} | other)


def running(settings: Settings, prices: list[float]) -> Running:
    """One tick a second, and one more that closes the last bar."""
    texts = [
        b'{"symbol": "A", "ts": %d, "price": %r, "size": 2}' % (T0 + i * SECOND, price)
        for i, price in enumerate([*prices, 1.0])
    ]
    served = Running(settings)
    return served.take([[raw_batch("t", 0, texts, first_offset=0, stamp_ns=-1)]])


def given(prices: list[float]) -> Bars:
    close = np.array(prices)
    return windows.whole([close, close, close, close, np.full(len(prices), 2.0)])


def asked(served: Running, ask: Ask) -> Questions:
    return served.engine.questioner.of_ask(ask, 0)


@pytest.mark.parametrize("transform", ["log_return", "difference", "level"])
def test_the_same_bars_give_the_same_inputs_and_the_same_answer(transform: str) -> None:
    prices = (100 * np.exp(np.cumsum(np.random.default_rng(1).normal(0, 1e-2, 40)))).tolist()
    settings = options(forecast__transform=transform)
    served = running(settings, prices)
    own = asked(served, Ask(("A",)))
    ask = Ask(("A",), bars=given(prices), as_of=int(own.as_of[0]))
    brought = asked(served, ask)
    for name in ("past", "mask", "future"):
        np.testing.assert_array_equal(getattr(brought.inputs, name), getattr(own.inputs, name))
    assert (brought.anchor, brought.scale) == (own.anchor, own.scale)
    one, other = served.engine.turn([Ask(("A",)), ask], T0).answers
    assert one.refused is None
    np.testing.assert_array_equal(one.quantiles, other.quantiles)


@pytest.mark.parametrize("kind", ["time", "tick"])
def test_a_window_of_no_known_time_rides_along_with_the_questions_of_ticks(kind: str) -> None:
    prices = (100 * np.exp(np.cumsum(np.random.default_rng(2).normal(0, 1e-2, 40)))).tolist()
    settings = options(bars__kind=kind, forecast__horizon=3)
    served = running(settings, prices)
    text = b'{"symbol": "A", "ts": %d, "price": 1.5, "size": 2}' % (T0 + 50 * SECOND)
    ask = Ask(("A",), bars=given(prices))
    outcome = served.engine.turn([ask, raw_batch("t", 0, [text], first_offset=50, stamp_ns=-1)], T0)
    assert outcome.answers[0].refused is None
    assert outcome.answers[0].quantiles.shape == (1, 3, len(settings.forecast.quantiles))
    assert outcome.questions >= 1


def test_bars_before_the_first_feature_are_not_there_for_the_model() -> None:
    settings = options()
    served = running(settings, [1.0, 2.0])
    prices = [1.0 + i / 100 for i in range(served.serving.features.lookback + 2)]
    window = asked(served, Ask((), bars=given(prices)))
    assert window.inputs.mask[0].tolist() == [0.0] * (settings.window.lookback - 2) + [1.0, 1.0]
    assert not window.inputs.past[0, : settings.window.lookback - 2].any()


@pytest.mark.parametrize(
    ("prices", "other", "why"),
    [
        ([1.0, float("nan")] * 20, {}, "not a number"),
        ([1.0, -1.0] * 20, {}, "must be positive"),
        ([1.0, 2.0], {}, "too few"),
        ([1.0, 2.0] * 20, {"features__future": '["time_of_day"]'}, "as_of"),
    ],
)
def test_what_cannot_be_a_window_is_refused_with_the_reason(
    prices: list[float], other: dict[str, object], why: str
) -> None:
    with pytest.raises(BadRequest, match=why):
        asked(Running(options(**other)), Ask((), bars=given(prices)))


def test_a_level_may_be_negative() -> None:
    settings = options(forecast__transform="level")
    served = Running(settings)
    window = asked(served, Ask((), bars=given([-1.0, 2.0] * 20)))
    assert window.anchor[0] == 2.0
    assert window.inputs.past.shape == (1, settings.window.lookback, len(served.serving.features.names))
