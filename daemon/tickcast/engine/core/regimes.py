"""The regime of every symbol, moved by each bar that closes: a function of its ticks, and of no forecast."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tickcast.columns import I64, U8, BarBatch
from tickcast.compiled import inlined_njit, lean_njit
from tickcast.engine.core import windows
from tickcast.regimes import FAST_BARS, NORMAL, REGIMES, SLOW_BARS, regime_after, weight
from tickcast.settings import Settings
from tickcast.state import State, copied, put_back
from tickcast.symbols import SymbolTable

LARGEST = 1e300  # a move: what is larger makes no mean infinite
PACE = np.dtype(
    [("fast", "f8"), ("slow", "f8"), ("close", "f8"), ("seen", "i8"), ("regime", "u1"), ("real", "u1")], align=True
)


class Paces(NamedTuple):
    symbol: npt.NDArray[np.void]  # PACE [symbols]


class Regimes:
    def __init__(self, settings: Settings, symbols: SymbolTable) -> None:
        self._symbols = symbols
        self._in_logs = windows.TRANSFORMS[settings.forecast.transform] == windows.LOG_RETURN
        self._paces = Paces(np.zeros(settings.symbols.limit, PACE))
        self._paces.symbol["regime"] = NORMAL

    def follow(self, bars: BarBatch) -> U8:
        """Of closed bars, in the order in which they closed: the regime of the symbol when each had closed."""
        found = np.empty(len(bars), np.uint8)
        follow(self._paces.symbol, bars.symbol, bars.close, bars.mask, bars.gap, self._in_logs, found)
        return found

    def counts(self) -> dict[str, int]:
        """Symbols by regime, of those that have moved or could have."""
        known = self._paces.symbol[: len(self._symbols)]
        counted = np.bincount(known["regime"][known["seen"] > 0], minlength=len(REGIMES))
        return dict(zip(REGIMES, counted.tolist(), strict=True))

    def forget(self, symbol: I64) -> None:
        self._paces.symbol[symbol] = np.zeros((), PACE)
        self._paces.symbol["regime"][symbol] = NORMAL

    def snapshot(self) -> State:
        return copied(self._paces, {"symbol": len(self._symbols)})

    def resume(self, state: State) -> None:
        put_back(state, self._paces)


@inlined_njit
def _move(before, now, in_logs):  # type: ignore[no-untyped-def]
    """Its size; 0 from or to what has no logarithm."""
    if not in_logs:
        return abs(now - before)
    return abs(np.log(now / before)) if now > 0.0 and before > 0.0 else 0.0


@lean_njit
def follow(pace, symbol, close, mask, gap, in_logs, out):  # type: ignore[no-untyped-def]
    """A move over a gap is one of many bars, and says nothing of how far one goes."""
    for r in range(len(symbol)):
        p = pace[symbol[r]]
        if mask[r] == 1:
            if p.real and gap[r] == 0:
                size = min(_move(p.close, close[r], in_logs), LARGEST)
                p.seen += 1
                p.fast += (size - p.fast) * weight(FAST_BARS, p.seen)
                p.slow += (size - p.slow) * weight(SLOW_BARS, p.seen)
                p.regime = regime_after(p.regime, p.fast, p.slow)
            p.close = close[r]
        p.real = mask[r]
        out[r] = p.regime
