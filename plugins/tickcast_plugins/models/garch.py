"""GARCH and GJR: the variance of the next bar is a mixture of the window's slowest mean of squares and of one that
forgets; over the bars after it, it returns to the slowest. GJR counts falls beside. A GARCH(1, 1) is just that: its
beta is what the mean keeps, its alpha the mixture's share of what it forgets.

Shares by quasi maximum likelihood of the next move, whose law is Laplace's: less swayed than the normal one by a crash.
"""

import numpy as np

from tickcast.columns import F32, F64
from tickcast.plugin import Report
from tickcast_plugins.models.classical import Arrays, RowSample
from tickcast_plugins.models.onnx_graph import Graph
from tickcast_plugins.models.recursion import least
from tickcast_plugins.models.volatility import OneSpeed

LIKELY_ROWS = 20_000  # windows of a likelihood
ALWAYS = 0.995  # the most that shares may add up to: the variance returns


class Garch(OneSpeed):
    kind = "garch"
    factors = np.ones(1)  # of each share's mean, so that it is one where the variance is the slowest mean
    start: tuple[float, ...] = (1.0,)

    def estimate(self, train: RowSample, report: Report) -> Arrays:
        some = slice(None, None, -(-len(train.x) // LIKELY_ROWS))
        squares, sizes = self.squares(train.x[some]), np.abs(train.y[some, 0])
        raw, _ = least(lambda raw: surprise(squares, sizes, shares(raw)), list(self.start))
        return {"shares": shares(raw)}

    def spread(self, x: F32) -> F64:
        """The variance of each bar to come is nearer to the slowest mean than that of the bar before."""
        excess = self.squares(x) @ self.arrays["shares"]
        variance = np.arange(1, self.card.horizon + 1) + excess[:, None] * self._remain()
        spread: F64 = np.sqrt(np.maximum(variance, 1e-6))
        return spread

    def spread_nodes(self, g: Graph, x: str) -> str:
        squares = g.add("Exp", g.add("Mul", self.own_nodes(g, x), g.constant(2.0)))
        weight = np.outer(self.arrays["shares"] * self.factors, self._remain())
        steps = np.arange(1, self.card.horizon + 1) - self.arrays["shares"].sum() * self._remain()
        variance = g.add("Add", g.add("MatMul", squares, g.constant(weight)), g.constant(steps))
        return g.add("Sqrt", g.add("Max", variance, g.constant(1e-6)))

    def squares(self, x: F32) -> F64:
        """[N, shares]: what each share adds, by how far its mean lies from the slowest."""
        own: F64 = np.exp(2 * x[:, :1].astype(np.float64)) - 1
        return own

    def own_nodes(self, g: Graph, x: str) -> str:
        return x

    def told(self, arrays: Arrays) -> str:
        return f", shares {' '.join(f'{share:.3g}' for share in arrays['shares'])}"

    def _remain(self) -> F64:
        """[H]: how much of the next bar's excess the bars up to each step have together."""
        keep = self.arrays["keep"][0]
        stays = keep + self.arrays["shares"].sum() * (1 - keep)
        powers: F64 = np.cumsum(stays ** np.arange(self.card.horizon))
        return powers


class Gjr(Garch):
    """Falls count more than rises."""

    kind = "gjr"
    falls = True
    start = (1.0, -1.0)
    factors = np.array([1.0, 2.0])  # falls are half of all there is

    def squares(self, x: F32) -> F64:
        own: F64 = self.factors * np.exp(2 * x[:, :2].astype(np.float64)) - 1
        return own

    def own_nodes(self, g: Graph, x: str) -> str:
        return g.add("Gather", x, g.constant([0, 1], np.int64), axis=1)


def shares(raw: F64) -> F64:
    """Any numbers as shares above 0 that add up to less than 1."""
    odds: F64 = np.exp(np.clip(raw, -30, 30))
    found: F64 = ALWAYS * odds / (1 + odds.sum())
    return found


def surprise(squares: F64, sizes: F64, shares: F64) -> float:
    """Minus the log-likelihood of moves so large, but for a constant; their mean size is whatever suits it best."""
    deviation = np.sqrt(np.maximum(1 + squares @ shares, 1e-6))
    return len(sizes) * float(np.log((sizes / deviation).mean()) + np.log(deviation).mean())
