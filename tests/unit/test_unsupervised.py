"""What `tickcast learn` learns: planted structure is found, later bars change nothing, too little is refused."""

from itertools import pairwise, product
from math import prod
from pathlib import Path
from statistics import NormalDist

import numpy as np
import polars as pl
import pytest

from tickcast import plugin
from tickcast.batch.learn.hidden_markov import MarkovChain, fit_chain, run_chain
from tickcast.batch.learn.symbol_groups import common_moves, correlations, group_symbols
from tickcast.batch.learn.unsupervised import LearnOrder, learn, scaled, thinned, training_end, windows_until
from tickcast.batch.train.dataset import load_dataset
from tickcast.batch.train.history import BarHistory, read_history
from tickcast.columns import F64
from tickcast.errors import BadData, BadSettings
from trainkit import EVERY_NS, job, series, walk

KINDS = ("pca", "ica", "kmeans", "dbscan", "regime")
LENGTH = 900


def history(folder: Path, frames: list[pl.DataFrame]) -> BarHistory:
    job(folder, frames)
    return read_history(folder, on_gap="carry")


def changing(seed: int, n: int = LENGTH) -> F64:
    """Prices that are calm and wild in turn, 60 bars each."""
    rng = np.random.default_rng(seed)
    spread = np.where(np.arange(n) // 60 % 2, 4e-3, 5e-4)
    return 100 * np.exp(np.cumsum(rng.normal(0, 1, n) * spread))


def two(seed: int = 1) -> list[pl.DataFrame]:
    return [series("A", changing(seed)), series("B", changing(seed + 1, 700), start=200)]


def asked(kind: str, until_ns: int, **ask: object) -> LearnOrder:
    return LearnOrder(**{"kind": kind, "until_ns": until_ns, "number": 2, "window": 16, "most_windows": 300, **ask})  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_bars_after_the_time_change_nothing_that_is_learnt(tmp_path: Path, kind: str) -> None:
    until_ns = 600 * EVERY_NS
    bars = history(tmp_path / "a", two())
    spoilt = [
        frame.with_columns(
            pl.when(pl.col("as_of_ns") > until_ns).then(pl.col(name) * 3 + 1).otherwise(name).alias(name)
            for name in ("open", "high", "low", "close", "volume")
        )
        for frame in two()
    ]
    learnt = learn(bars, asked(kind, until_ns))
    assert learnt.entry["learnt_to_ns"] == until_ns
    assert learn(history(tmp_path / "b", spoilt), asked(kind, until_ns)) == learnt
    cut = [frame.filter(pl.col("as_of_ns") <= until_ns) for frame in two()]
    assert learn(history(tmp_path / "c", cut), asked(kind, until_ns)) == learnt
    later = learn(bars, asked(kind, until_ns + 200 * EVERY_NS))
    assert {**later.entry, "learnt_to_ns": until_ns} != learnt.entry, "it does learn from what it may see"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_entry_builds_a_feature_that_gives_what_was_learnt(tmp_path: Path, kind: str) -> None:
    bars = history(tmp_path, two())
    ask = asked(kind, training_end(bars))
    entry = dict(learn(bars, ask).entry)
    feature = plugin.find("features", entry.pop("kind"))(**entry)
    rows = windows_until(bars, feature.lookback, ask)
    values = np.empty((len(rows), len(feature.names)))
    feature.compute(bars.bars, bars.symbol[rows], bars.ordinal[rows], values)
    if kind in ("pca", "ica"):
        spread = values.std(axis=0)
        assert np.abs(values.mean(axis=0)).max() < 0.1
        assert np.abs(np.corrcoef(values.T)[0, 1]) < 0.05
        assert (spread[0] >= spread[1] * 0.99) if kind == "pca" else spread == pytest.approx([1, 1], abs=0.05)
    elif kind == "regime":
        assert values.sum(axis=1) == pytest.approx(np.ones(len(rows)))
    elif kind == "kmeans":
        assert set(values[:, 0]) == {0.0, 1.0}, "every cluster is met"
    else:
        assert values[:, 0].mean() < 0.03, "what was learnt from is usual"


def test_clusters_are_the_calm_and_the_wild_times(tmp_path: Path) -> None:
    bars = history(tmp_path, two())
    entry = dict(learn(bars, asked("kmeans", 10**18, window=12)).entry)
    feature = plugin.find("features", entry.pop("kind"))(**entry)
    at = np.arange(20, LENGTH)
    inside = at[at % 60 >= 14]  # all of the window is of one kind
    values = np.empty((len(inside), 2))
    feature.compute(bars.bars, np.zeros(len(inside), np.int32), inside, values)
    assert (values[:, 0] == (inside // 60 % 2)).mean() > 0.95


def test_a_window_unlike_all_that_were_learnt_is_an_outlier(tmp_path: Path) -> None:
    close = changing(6)
    close[700:] = close[699] * np.exp(0.05 * np.arange(1, 201))
    bars = history(tmp_path, [series("A", close)])
    entry = dict(learn(bars, asked("dbscan", 700 * EVERY_NS)).entry)
    feature = plugin.find("features", entry.pop("kind"))(**entry)
    at = np.arange(600, LENGTH)
    values = np.empty((len(at), 2))
    feature.compute(bars.bars, np.zeros(len(at), np.int32), at, values)
    assert values[:100, 0].mean() < 0.1
    assert values[116:, 0].all()
    assert (values[:, 0] == (values[:, 1] > 1)).all()


def test_regimes_follow_the_changes_inside_a_window(tmp_path: Path) -> None:
    bars = history(tmp_path, [series("A", changing(3, 3_000))])
    entry = dict(learn(bars, asked("regime", 10**18, window=64, most_windows=200)).entry)
    feature = plugin.find("features", entry.pop("kind"))(**entry)
    at = np.arange(200, 3_000)
    inside = at[(at % 60 >= 10) & (at % 60 < 50)]  # half of the window is of either kind
    values = np.empty((len(inside), 2))
    feature.compute(bars.bars, np.zeros(len(inside), np.int32), inside, values)
    assert ((values[:, 1] > 0.5) == (inside // 60 % 2 == 1)).mean() > 0.95
    stay = np.diag(entry["transition"])
    assert (stay > 0.9).all()


def test_a_mixture_has_no_memory(tmp_path: Path) -> None:
    bars = history(tmp_path, two())
    entry = learn(bars, asked("regime", 10**18, method="mixture")).entry
    assert entry["transition"] == [entry["start"]] * 2


def test_components_of_planted_sources_are_found(tmp_path: Path) -> None:
    """Moves that are one sine wave and little else: two components, sine and cosine, explain nearly all."""
    time = np.arange(LENGTH)
    moves = 1e-3 * np.sin(2 * np.pi * time / 8) + np.random.default_rng(0).normal(0, 1e-5, LENGTH)
    bars = history(tmp_path, [series("A", 100 * np.exp(np.cumsum(moves)))])
    learnt = learn(bars, asked("pca", 10**18))
    assert sum(learnt.figures["explained variance"]) > 0.99
    waves = np.exp(2j * np.pi * np.arange(16) / 8)
    for row in learnt.entry["components"]:
        assert abs(np.array(row) @ waves) == pytest.approx(np.linalg.norm(row) * np.sqrt(8), rel=1e-3)


def paths_likelihood(chain: MarkovChain, values: F64) -> tuple[float, F64, F64]:
    """By summing over every path of states: likelihood, filtered at the end, smoothed at the start."""
    total, last, first = 0.0, np.zeros(len(chain.start)), np.zeros(len(chain.start))
    density = [[NormalDist(m, s).pdf(v) for m, s in zip(chain.mean, chain.spread)] for v in values]
    for path in product(range(len(chain.start)), repeat=len(values)):
        joint = chain.start[path[0]] * prod(chain.transition[a, b] for a, b in pairwise(path))
        joint *= prod(density[t][state] for t, state in enumerate(path))
        total += joint
        last[path[-1]] += joint
        first[path[0]] += joint
    return total, last / total, first / total


def test_one_pass_is_the_sum_over_all_paths() -> None:
    chain = MarkovChain(
        np.array([0.6, 0.3, 0.1]), np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.3, 0.3, 0.4]]),
        np.array([0.0, 0.5, -1.0]), np.array([0.4, 1.0, 2.5]),
    )  # fmt: skip
    values = np.random.default_rng(5).normal(0, 1.5, (4, 6))
    passed = run_chain(chain, values)
    found = [paths_likelihood(chain, row) for row in values]
    assert passed.likelihood == pytest.approx(np.mean([np.log(total) for total, _, _ in found]) / 6)
    for n, (_, last, first) in enumerate(found):
        assert passed.filtered[-1, n] == pytest.approx(last)
        assert passed.smoothed[0, n] == pytest.approx(first)
    assert passed.steps.sum() == pytest.approx(4 * 5)


def test_climbing_finds_the_chain_that_made_the_sequences() -> None:
    rng = np.random.default_rng(8)
    change, spread = np.array([[0.95, 0.05], [0.1, 0.9]]), np.array([0.5, 2.0])
    state = np.zeros((80, 100), np.int64)
    for t in range(1, 100):
        state[:, t] = (rng.random(80) < change[state[:, t - 1], 1]).astype(int)
    values = rng.normal(0, 1, state.shape) * spread[state]
    begin = MarkovChain(
        np.array([0.5, 0.5]), np.array([[0.6, 0.4], [0.4, 0.6]]), np.array([-0.1, 0.1]), np.array([0.8, 1.2])
    )
    found = fit_chain(values, begin)
    assert found.spread == pytest.approx(spread, rel=0.1)
    assert found.transition == pytest.approx(change, abs=0.03)
    assert run_chain(found, values).likelihood > run_chain(begin, values).likelihood


def test_thinned_places_cover_all_others() -> None:
    places = np.random.default_rng(2).normal(0, 1, (400, 4))
    kept = thinned(places, 0.8)
    assert len(kept) < 300
    assert np.linalg.norm(places[:, None] - kept[None], axis=2).min(axis=1).max() <= 0.8


def test_symbols_that_move_together_make_a_group(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    common = rng.normal(0, 1e-3, (2, 600))
    frames = [
        series(f"{'XY'[side]}{number}", 100 * np.exp(np.cumsum(common[side] + rng.normal(0, 3e-4, 600))))
        for side in (0, 1)
        for number in range(2 + side)
    ]
    lone = series("Z", walk(600, seed=9))
    bars = history(tmp_path, [*frames, lone])
    tree = group_symbols(bars, until_ns=10**18, method="hierarchical", count=3, eps=0, least=0, most_times=500)
    assert tree.members == [["Y0", "Y1", "Y2"], ["X0", "X1"], ["Z"]]
    near = group_symbols(bars, until_ns=10**18, method="dbscan", count=0, eps=0.5, least=2, most_times=500)
    assert (near.members, near.figures["in no group"]) == ([["Y0", "Y1", "Y2"], ["X0", "X1"]], 1)
    assert tree.figures["silhouette"] > 0.3


def test_correlations_are_of_moves_at_the_same_time(tmp_path: Path) -> None:
    frames = [series("A", walk(400, seed=1)), series("B", walk(300, seed=2), start=100), series("C", np.full(400, 5.0))]
    moves = common_moves(history(tmp_path, frames), 350 * EVERY_NS, 200)
    assert moves.shape == (200, 3)
    close = walk(400, seed=1)
    assert moves[-1, 0] == pytest.approx(np.log(close[349] / close[348]))
    found = correlations(moves)
    assert found[0, 1] == pytest.approx(np.corrcoef(moves[:, 0], moves[:, 1])[0, 1])
    assert found[2].tolist() == [0, 0, 1]
    half = np.where(np.arange(200)[:, None] < 180, np.nan, moves)
    assert (correlations(half) == np.eye(3)).all(), "too few in common"


def test_an_entry_from_after_the_training_part_is_refused(tmp_path: Path) -> None:
    bars = history(tmp_path / "a", two())
    end = training_end(bars)
    entry = learn(bars, asked("regime", end)).entry
    made = job(tmp_path / "b", two(), features=[entry])
    assert [spec.params["window"] for spec in load_dataset(tmp_path / "b", made).specs] == [16, 16]
    later = learn(bars, asked("regime", end + EVERY_NS)).entry
    made = job(tmp_path / "b", two(), features=[later])
    with pytest.raises(BadData, match=f"'regime' was learnt from bars up to {end + EVERY_NS - end % EVERY_NS}"):
        load_dataset(tmp_path / "b", made)


@pytest.mark.parametrize(
    ("kind", "ask", "says"),
    [
        ("pca", {"window": 890}, "windows of 890 moves end in time"),
        ("pca", {"number": 17}, "pca can be asked for 1 to 16"),
        ("ica", {"number": 0}, "ica can be asked"),
        ("kmeans", {"number": 200}, "kmeans can be asked"),
        ("dbscan", {"least": 400}, "no neighbourhood of 400"),
        ("dbscan", {"eps": 1e-9}, "leave 0 core windows"),
        ("regime", {"number": 5}, "2 to 4 states"),
    ],
)
def test_what_cannot_be_learnt_is_refused(tmp_path: Path, kind: str, ask: dict[str, int], says: str) -> None:
    with pytest.raises((BadData, BadSettings), match=says):
        learn(history(tmp_path, [series("A", changing(1))]), asked(kind, 10**18, **ask))


def test_prices_that_never_move_teach_nothing(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="0 windows ever moved"):
        learn(history(tmp_path, [series("A", np.full(300, 5.0))]), asked("pca", 10**18))
    assert scaled(np.full((60, 4), -2.0)).tolist() == [[-1.0] * 4] * 60
