"""A Gaussian hidden Markov model, fitted by Baum and Welch's algorithm on many sequences of one length.

It knows no market: it takes an array and gives four arrays. A draw of random numbers is nowhere in it.
"""

from typing import NamedTuple

import numpy as np

from tickcast.columns import F64

LEAST_SPREAD = 0.05  # a state may not shrink onto one value that is often repeated
LEAST_PROBABILITY = 1e-5
ROUNDS, ENOUGH = 200, 1e-7  # at most so many, and as many as still gain so much log-likelihood a value


class MarkovChain(NamedTuple):
    """States 0 .. K - 1."""

    start: F64  # [K]
    transition: F64  # [K, K]: from, to
    mean: F64  # [K]
    spread: F64  # [K]


class Passed(NamedTuple):
    """What one pass over the sequences gives; the forward part is what a live filter gives."""

    filtered: F64  # [T, N, K]: given the sequence so far
    smoothed: F64  # [T, N, K]: given the whole sequence
    steps: F64  # [K, K]: expected number of steps from state to state
    likelihood: float  # log, per value


def fit_chain(sequences: F64, begin: MarkovChain) -> MarkovChain:
    """The likeliest chain for sequences [N, T] that climbing from `begin` leads to."""
    chain, before = begin, -np.inf
    for _ in range(ROUNDS):
        passed = run_chain(chain, sequences)
        if passed.likelihood - before < ENOUGH:
            break
        chain, before = _better(sequences, passed), passed.likelihood
    return chain


def run_chain(chain: MarkovChain, sequences: F64) -> Passed:
    """Forward and backward once, each step scaled to sum to 1."""
    values = sequences.T[:, :, None]
    density = -0.5 * ((values - chain.mean) / chain.spread) ** 2 - np.log(chain.spread)
    top = density.max(axis=2, keepdims=True)
    density = np.exp(density - top)
    filtered, scale = np.empty_like(density), np.empty(density.shape[:2])
    for t in range(len(density)):
        prior = chain.start if t == 0 else filtered[t - 1] @ chain.transition
        joint = prior * density[t]
        scale[t] = joint.sum(axis=1)
        filtered[t] = joint / scale[t][:, None]
    smoothed, steps, after = filtered.copy(), np.zeros_like(chain.transition), np.ones(filtered.shape[1:])
    for t in range(len(density) - 2, -1, -1):
        seen = density[t + 1] * after / scale[t + 1][:, None]
        steps += chain.transition * (filtered[t].T @ seen)
        after = seen @ chain.transition.T
        smoothed[t] = filtered[t] * after
    likelihood = float((np.log(scale) + top[:, :, 0]).mean() - 0.5 * np.log(2 * np.pi))
    return Passed(filtered, smoothed, steps, likelihood)


def _better(sequences: F64, passed: Passed) -> MarkovChain:
    """The chain that makes what was expected likeliest."""
    weight, values = passed.smoothed, sequences.T[:, :, None]
    total = weight.sum(axis=(0, 1))
    mean = (weight * values).sum(axis=(0, 1)) / total
    spread = np.sqrt((weight * (values - mean) ** 2).sum(axis=(0, 1)) / total)
    return MarkovChain(
        probabilities(weight[0].mean(axis=0)), probabilities(passed.steps), mean, np.maximum(spread, LEAST_SPREAD)
    )


def probabilities(rows: F64) -> F64:
    """Rows that sum to 1, none of whose cells is 0."""
    shares = rows / rows.sum(axis=-1, keepdims=True)
    shares = np.maximum(shares, LEAST_PROBABILITY)
    found: F64 = shares / shares.sum(axis=-1, keepdims=True)
    return found
