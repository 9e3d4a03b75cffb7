"""How far apart bars are, which says how long a block of a contest is."""

import pytest

from kit import SECOND, T0, Served, settings


@pytest.mark.parametrize("bars", [2, 40, 5000])
def test_the_usual_time_between_bars_is_that_of_the_bars_that_are_held(bars: int) -> None:
    """Also after many more than that; the symbol that closed most says it."""
    s = settings(bars__kind="tick", window__lookback=16, forecast__horizon=2)
    ticks = [("A", T0 + k * 3 * SECOND, 100.0 + k % 2, 1.0) for k in range(bars)]
    served = Served(s, [*ticks, ("B", T0 + 3 * bars * SECOND, 100.0, 1.0)], chunk=50)
    assert served.engine.pace() == (bars, 3 * SECOND)


def test_after_a_restart_it_is_that_of_the_bars_that_came_back() -> None:
    s = settings(bars__kind="tick", window__lookback=16, forecast__horizon=2)
    ticks = [("A", T0 + k * 3 * SECOND, 100.0 + k % 2, 1.0) for k in range(5000)]
    served, again = Served(s, ticks, chunk=50), Served(s, [], chunk=50)
    again.engine.resume(served.engine.snapshot())
    assert again.engine.pace() == (5000, 3 * SECOND)


def test_before_two_bars_there_is_no_time_between_them() -> None:
    s = settings(bars__kind="tick", window__lookback=16, forecast__horizon=2)
    assert Served(s, [("A", T0, 100.0, 1.0)], chunk=1).engine.pace() == (1, 0)
