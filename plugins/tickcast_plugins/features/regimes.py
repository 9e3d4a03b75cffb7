"""The market regime as probabilities of the states of a learnt hidden Markov model, filtered and never smoothed.

The chain starts anew in every window and sees its log returns in units of their root mean square: a value needs no
bar before the window, none after it, and means the same for calm symbols and wild ones.
"""

from collections.abc import Sequence

import numpy as np
from numba import njit

from tickcast.columns import F64, I32, I64, Bars
from tickcast.errors import BadSettings
from tickcast_plugins.features import parameters
from tickcast_plugins.features.series import LOG_RETURN, lookback_of, scaled_moves

LEAST_STATES, MOST_STATES = 2, 4
ROUNDING = 1e-3  # what sums of printed probabilities may miss


@njit(cache=True, nogil=True, error_model="numpy")
def believe(prior, move, mean, spread, log_spread, belief):  # type: ignore[no-untyped-def]
    """What the prior of each state becomes once the move is seen. Relative to the likeliest: nothing underflows."""
    top = -np.inf
    for s in range(len(prior)):
        distance = (move - mean[s]) / spread[s]
        belief[s] = -0.5 * distance * distance - log_spread[s]
        top = max(top, belief[s])
    total = 0.0
    for s in range(len(prior)):
        belief[s] = prior[s] * np.exp(belief[s] - top)
        total += belief[s]
    for s in range(len(prior)):
        belief[s] /= total


@njit(cache=True, nogil=True)
def filtered(bars, symbol, ordinal, length, start, transition, mean, spread, out):  # type: ignore[no-untyped-def]
    """The probability of each state at the window's last bar, given the window."""
    states, log_spread = len(start), np.log(spread)
    scratch, prior, belief = np.empty(2 * length + 1), np.empty(states), np.empty(states)
    for i in range(len(symbol)):
        moves, _ = scaled_moves(bars.close, bars.start[symbol[i]], ordinal[i], length, bars.wrap, scratch)
        believe(start, moves[0], mean, spread, log_spread, belief)
        for j in range(1, length):
            for s in range(states):
                prior[s] = 0.0
                for r in range(states):
                    prior[s] += belief[r] * transition[r, s]
            believe(prior, moves[j], mean, spread, log_spread, belief)
        out[i, :] = belief


class Regime:
    """The filtered probability of each state of a Gaussian hidden Markov model over the window."""

    version = 1

    def __init__(
        self, *, window: int, start: Sequence[float], transition: Sequence[Sequence[float]], mean: Sequence[float],
        spread: Sequence[float], learnt_to_ns: int,
    ) -> None:  # fmt: skip
        self._window = parameters.bars("window", window, least=4)
        self._mean = parameters.learnt("mean", mean, shape=(-1,))
        states = parameters.bars("the number of states", len(self._mean), least=LEAST_STATES, most=MOST_STATES)
        self._spread = parameters.learnt("spread", spread, shape=(states,))
        parameters.positive("spread", float(self._spread.min()))
        self._start = _probabilities("start", parameters.learnt("start", start, shape=(states,)))
        rows = parameters.learnt("transition", transition, shape=(states, states))
        self._transition = _probabilities("transition", rows)
        known = (self._start, self._transition, self._mean, self._spread)
        digest = parameters.fingerprint(learnt_to_ns, *known)
        self.names = tuple(f"regime_{window}_{digest}_{s}" for s in range(1, states + 1))
        self.lookback = lookback_of(LOG_RETURN, window)

    def compute(self, bars: Bars, symbol: I32, ordinal: I64, out: F64) -> None:
        chain = (self._start, self._transition, self._mean, self._spread)
        filtered(bars, symbol, ordinal, self._window, *chain, out)


def _probabilities(name: str, rows: F64) -> F64:
    """Each row made to sum to exactly 1; a state that cannot be reached would leave no state where it alone fits."""
    totals = rows.sum(axis=-1, keepdims=True)
    if (rows <= 0).any() or (np.abs(totals - 1) > ROUNDING).any():
        raise BadSettings(f"{name} must be probabilities above 0 that sum to 1")
    found: F64 = rows / totals
    return found
