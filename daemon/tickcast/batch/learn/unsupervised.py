"""Learns the numbers of features that need some: components, centres, core windows, regimes. From bars up to a time.

What it gives is an entry of `[[features.set]]`: plain numbers, which training, replay and serving then all read. The
windows that it learns from are made by the feature plugins themselves.
"""

import warnings
from typing import Any, Literal, NamedTuple

import numpy as np
from sklearn.cluster import DBSCAN, KMeans
from sklearn.decomposition import PCA, FastICA
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import silhouette_score
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NearestNeighbors

from tickcast.batch.learn.hidden_markov import LEAST_SPREAD, MarkovChain, fit_chain, probabilities, run_chain
from tickcast.batch.train.history import BarHistory
from tickcast.batch.train.splits import CUTS
from tickcast.columns import F64, I64
from tickcast.errors import BadData, BadSettings
from tickcast.plugin import Feature, find

MOST_WINDOWS = {"pca": 20_000, "ica": 20_000, "kmeans": 20_000, "dbscan": 2_000, "regime": 2_000}
LEAST_WINDOWS = 50
MOST_CORES = 500
DIGITS, CORE_DIGITS = 7, 4  # that an entry shows, and that are therefore all there is
JUDGED = 2_000  # windows that a silhouette is taken over
FAR = 0.98  # of the windows have a neighbourhood this dense, where nobody says how near is near
STAY = 0.9  # what the climb to a chain begins with


class LearnOrder(NamedTuple):
    """What is to be learnt."""

    kind: Literal["pca", "ica", "kmeans", "dbscan", "regime"]
    until_ns: int  # no bar that ended later is read
    number: int = 3  # components, clusters or states
    window: int = 48
    most_windows: int = 0  # 0 = MOST_WINDOWS
    eps: float = 0.0  # dbscan: how near is near; 0 = by the windows themselves
    least: int = 10  # dbscan: windows near a core one
    method: str = "hmm"  # regime: hmm or mixture
    seed: int = 0


class Learnt(NamedTuple):
    entry: dict[str, Any]  # of `[[features.set]]`
    figures: dict[str, Any]  # how well it describes what it was learnt from


def training_end(history: BarHistory) -> int:
    """Where `tickcast fit` will end the training part of this history."""
    begin, end = int(history.bars.as_of.min()), int(history.bars.as_of.max())
    return begin + int((end - begin) * CUTS[0])


def learn(history: BarHistory, ask: LearnOrder) -> Learnt:
    """Learn what is asked; the same history until then and the same ask give the same numbers."""
    teach = {"pca": _pca, "ica": _ica, "kmeans": _kmeans, "dbscan": _dbscan, "regime": _regime}[ask.kind]
    maker = "shape" if ask.kind in ("kmeans", "dbscan") else "lags"
    plugin: Feature = find("features", maker)(**{"window" if maker == "shape" else "n": ask.window})
    rows = windows_until(history, plugin.lookback, ask)
    values = np.empty((len(rows), len(plugin.names)))
    plugin.compute(history.bars, history.symbol[rows], history.ordinal[rows], values)
    params, figures = teach(values if maker == "shape" else scaled(values[:, ::-1]), ask)
    entry = {"kind": ask.kind, **params, "learnt_to_ns": int(history.bars.as_of[rows].max())}
    return Learnt(entry, {"windows": len(rows), **figures})


def windows_until(history: BarHistory, lookback: int, ask: LearnOrder) -> I64:
    """Rows of real bars with their lookback, evenly spaced over all that ended until then."""
    bars = history.bars
    there = history.ordinal - history.first + 1 >= lookback
    rows = np.flatnonzero(there & (bars.mask == 1) & (bars.as_of <= ask.until_ns))
    if len(rows) < LEAST_WINDOWS:
        raise BadData(
            f"{len(rows)} windows of {ask.window} moves end in time, {LEAST_WINDOWS} are needed",
            remedy="give more history, a later --until or a shorter --window",
        )
    most = ask.most_windows or MOST_WINDOWS[ask.kind]
    found: I64 = rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(np.int64)]
    return found


def scaled(moves: F64) -> F64:
    """Windows in units of their root mean square, as features see them; those that never moved left out."""
    size = np.sqrt((moves**2).mean(axis=1, keepdims=True))
    moved = size[:, 0] > 0
    if moved.sum() < LEAST_WINDOWS:
        raise BadData(f"{int(moved.sum())} windows ever moved, {LEAST_WINDOWS} are needed")
    found: F64 = moves[moved] / size[moved]
    return found


def plain(values: Any, digits: int = DIGITS) -> Any:
    """Numbers as an entry shows them."""
    if np.ndim(values):
        return [plain(value, digits) for value in values]
    return float(f"{float(values):.{digits}g}")


def _pca(windows: F64, ask: LearnOrder) -> tuple[dict[str, Any], dict[str, Any]]:
    _refuse_more_than(ask, min(windows.shape))
    found = PCA(ask.number, svd_solver="full").fit(windows)
    params = {"components": plain(found.components_), "mean": plain(found.mean_)}
    return params, {"explained variance": found.explained_variance_ratio_.tolist()}


def _ica(windows: F64, ask: LearnOrder) -> tuple[dict[str, Any], dict[str, Any]]:
    """The least Gaussian component first, each with its largest weight above 0: neither is given by the method."""
    _refuse_more_than(ask, min(windows.shape))
    found = FastICA(ask.number, whiten="unit-variance", random_state=ask.seed, max_iter=1_000, tol=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # said by a figure
        found.fit(windows)
    rows = found.components_
    sources = (windows - found.mean_) @ rows.T
    kurtosis = (sources**4).mean(axis=0) / (sources**2).mean(axis=0) ** 2 - 3
    order = np.argsort(-np.abs(kurtosis), kind="stable")
    rows = rows[order]
    largest = rows[np.arange(len(rows)), np.abs(rows).argmax(axis=1)]
    params = {"components": plain(rows * np.sign(largest)[:, None]), "mean": plain(found.mean_)}
    return params, {"excess kurtosis": kurtosis[order].tolist(), "converged": bool(found.n_iter_ < found.max_iter)}


def _kmeans(shapes: F64, ask: LearnOrder) -> tuple[dict[str, Any], dict[str, Any]]:
    """The calmest cluster first."""
    _refuse_more_than(ask, len(shapes) // 2)
    mean, spread, places = _standardised(shapes)
    found = KMeans(ask.number, n_init=10, random_state=ask.seed).fit(places)
    order = np.argsort(found.cluster_centers_[:, 0], kind="stable")
    params = {"window": ask.window, "centers": plain(found.cluster_centers_[order]), "mean": mean, "spread": spread}
    return params, {"occupancy": _shares(np.argsort(order)[found.labels_]), **_silhouette(places, found.labels_, ask)}


def _dbscan(shapes: F64, ask: LearnOrder) -> tuple[dict[str, Any], dict[str, Any]]:
    """Core windows, thinned: each lies within eps / 2 of one that is kept, and reach makes up for it."""
    mean, spread, places = _standardised(shapes)
    eps = ask.eps or _usual_distance(places, ask.least)
    found = DBSCAN(eps=eps, min_samples=ask.least).fit(places)
    cores = thinned(places[found.core_sample_indices_], eps / 2)
    if not 0 < len(cores) <= MOST_CORES:
        raise BadData(
            f"eps {eps:g} and least {ask.least} leave {len(cores)} core windows; 1 to {MOST_CORES} make a feature",
            remedy="give another --eps or --least",
        )
    params = {
        "window": ask.window, "cores": plain(cores, CORE_DIGITS), "reach": plain(1.5 * eps), "mean": mean,
        "spread": spread,
    }  # fmt: skip
    outliers = float((found.labels_ < 0).mean())
    return params, {"eps": plain(eps), "clusters": int(found.labels_.max() + 1), "outliers": outliers}


def _regime(windows: F64, ask: LearnOrder) -> tuple[dict[str, Any], dict[str, Any]]:
    """The calmest state first. A mixture is a chain without memory."""
    if not 2 <= ask.number <= 4:
        raise BadSettings(f"a regime has 2 to 4 states, not {ask.number}", remedy="give --k")
    mixed = GaussianMixture(ask.number, n_init=3, reg_covar=LEAST_SPREAD**2, random_state=ask.seed)
    mixed.fit(windows.reshape(-1, 1)[:: max(1, windows.size // 50_000)])
    order = np.argsort(mixed.covariances_[:, 0, 0], kind="stable")
    weights = probabilities(mixed.weights_[order])
    stay = 0.0 if ask.method == "mixture" else STAY
    transition = probabilities(stay * np.eye(ask.number) + (1 - stay) * weights)
    chain = MarkovChain(weights, transition, mixed.means_[order, 0], np.sqrt(mixed.covariances_[order, 0, 0]))
    if ask.method != "mixture":
        chain = _calmest_first(fit_chain(windows, chain))
    passed = run_chain(chain, windows)
    params = {"window": ask.window, **{name: plain(value) for name, value in chain._asdict().items()}}
    return params, {
        "occupancy": passed.filtered.mean(axis=(0, 1)).tolist(),
        "bars in a state": (1 / (1 - np.diag(chain.transition))).tolist(),
        "log-likelihood a bar": passed.likelihood,
        "of one Gaussian": float(-0.5 * np.log(2 * np.pi * windows.var()) - 0.5),
    }


def _calmest_first(chain: MarkovChain) -> MarkovChain:
    order = np.argsort(chain.spread, kind="stable")
    return MarkovChain(
        chain.start[order], chain.transition[np.ix_(order, order)], chain.mean[order], chain.spread[order]
    )


def _refuse_more_than(ask: LearnOrder, most: int) -> None:
    if not 1 <= ask.number <= most:
        raise BadSettings(f"{ask.kind} can be asked for 1 to {most} here, not {ask.number}", remedy="give another --k")


def _standardised(shapes: F64) -> tuple[list[float], list[float], F64]:
    """Mean and spread as an entry shows them, and the windows in their units."""
    deviation = shapes.std(axis=0)
    mean, spread = plain(shapes.mean(axis=0)), plain(np.where(deviation > 1e-9, deviation, 1.0))
    return mean, spread, (shapes - np.array(mean)) / np.array(spread)


def _usual_distance(places: F64, least: int) -> float:
    """So near lie the nearest `least` windows to most of them."""
    if least > len(places):
        raise BadData(f"{len(places)} windows are no neighbourhood of {least}", remedy="give a smaller --least")
    far, _ = NearestNeighbors(n_neighbors=least).fit(places).kneighbors(places)
    return float(np.quantile(far[:, -1], FAR))


def thinned(places: F64, within: float) -> F64:
    """Some of the places, such that each lies within that distance of one of them."""
    kept: list[F64] = []
    left = places
    while len(left):
        kept.append(left[0])
        left = left[np.linalg.norm(left - left[0], axis=1) > within]
    return np.array(kept).reshape(-1, places.shape[1])


def _silhouette(places: F64, labels: Any, ask: LearnOrder) -> dict[str, Any]:
    if not 1 < ask.number < len(places):
        return {}
    return {"silhouette": float(silhouette_score(places, labels, sample_size=min(JUDGED, len(places)),
                                                 random_state=ask.seed))}  # fmt: skip


def _shares(labels: Any) -> list[float]:
    found: list[float] = (np.bincount(labels) / len(labels)).tolist()
    return found
