"""Entries of `[[features.set]]` with learnt numbers, as `tickcast learn` prints them, small enough to check by hand."""

from typing import Any

UNTIL_NS = 1_700_000_000_000_000_000

LEARNT: dict[str, dict[str, Any]] = {
    "pca": {
        "components": [[0.5, -0.5, 0.5, -0.25, 0.25], [0.1, 0.2, 0.3, 0.4, 0.5]],
        "mean": [0.01, 0.0, -0.02, 0.03, 0.0], "learnt_to_ns": UNTIL_NS,
    },
    "ica": {"components": [[1.5, 0.0, -0.7, 0.2]], "mean": [0.0, 0.1, 0.0, -0.1], "learnt_to_ns": UNTIL_NS},
    "kmeans": {
        "window": 9, "centers": [[-1.1, 0.1, 0.0, 0.2], [0.3, 0.7, -0.4, 0.0], [1.2, -0.6, 0.3, 0.1]],
        "mean": [-5.0, 0.02, -0.03, 0.49], "spread": [0.9, 1.1, 0.3, 0.07], "learnt_to_ns": UNTIL_NS,
    },
    "dbscan": {
        "window": 8, "cores": [[0.0, 0.0, 0.1, 0.0], [0.9, 0.4, -0.2, 0.1]], "reach": 1.37,
        "mean": [-5.0, 0.02, -0.03, 0.49], "spread": [0.9, 1.1, 0.3, 0.07], "learnt_to_ns": UNTIL_NS,
    },
    "regime": {
        "window": 12, "start": [0.5, 0.3, 0.2],
        "transition": [[0.9, 0.06, 0.04], [0.1, 0.8, 0.1], [0.05, 0.15, 0.8]],
        "mean": [0.02, 0.0, -0.1], "spread": [0.3, 0.9, 2.1], "learnt_to_ns": UNTIL_NS,
    },
}  # fmt: skip
