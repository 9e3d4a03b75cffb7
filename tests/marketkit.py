"""A made market whose moves turn back, or go on: what a model can win over last value is known."""

import numpy as np

T0, SECOND = 1_700_000_000_000_000_000, 10**9
SYMBOLS = ("A", "B")


class Market:
    """One tick a second for each symbol, in turn."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(1)
        self._move, self._price, self.bars = np.zeros(len(SYMBOLS)), np.zeros(len(SYMBOLS)), 0

    @property
    def newest_ns(self) -> int:
        return T0 + self.bars * SECOND

    def ticks(self, bars: int, *, persistence: float) -> list[bytes]:
        """So much of a move is in the next one."""
        found = []
        for _ in range(bars):
            self._move = persistence * self._move + self._rng.normal(0, 1e-3, len(SYMBOLS))
            self._price = self._price + self._move
            self.bars += 1
            found += [
                b'{"symbol":"%s","ts":%d,"price":%.10f,"size":1}'
                % (name.encode(), self.newest_ns, 100 * float(np.exp(price)))
                for name, price in zip(SYMBOLS, self._price, strict=True)
            ]
        return found


def best_skill(persistence: float) -> float:
    """One bar ahead, of who knows the law, over last value: what is left of a move's spread is 1 - p ** 2 of its
    variance, and pinball goes with the spread."""
    return 1 - float(np.sqrt(1 - persistence**2))
