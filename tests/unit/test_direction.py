"""Down, flat and up: the quantiles that follow from their probabilities, against the plain inverse of a distribution;
what the classes are learnt from; what scores are made of.
"""

from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import torch

from tickcast.batch.train.losses import make_objective
from tickcast.columns import F64
from tickcast.direction import classes_of, counts_of, edges, frequencies
from tickcast.errors import BadData, BadSettings
from tickcast_plugins.models.direction import LEAST_PROBABILITY, PIECES, of_moves, of_walk, probabilities, quantiles
from tickcast_plugins.models.direction_head import DirectionHead
from tickcast_plugins.models.naive_bayes import calibrated
from zookit import LEVELS, net

MANY = [0.001, 0.01, 0.05, 0.2, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 0.95, 0.99, 0.999]
BAND, HORIZON = 0.5, 6


def moves(n: int = 4000, *, seed: int = 0) -> F64:
    """Lopsided, with fat tails."""
    rng = np.random.default_rng(seed)
    return np.cumsum(rng.standard_t(4, (n, HORIZON)) + 0.1, axis=1)


def test_a_move_at_an_edge_is_flat_and_the_edge_grows_as_a_walk_spreads() -> None:
    np.testing.assert_allclose(edges(0.5, 4), [0.5, 0.5 * 2**0.5, 0.5 * 3**0.5, 1.0])
    at = np.array([[-0.51, -0.5, 0.0, 0.5, 0.51]]).T
    assert classes_of(at, 0.5)[:, 0].tolist() == [0, 1, 1, 1, 2]
    assert counts_of(classes_of(at, 0.5)).tolist() == [[1, 3, 1]]
    np.testing.assert_allclose(frequencies(np.array([[1, 3, 1]])), [[2 / 8, 4 / 8, 2 / 8]])


@pytest.mark.parametrize("seed", range(10))
def test_a_quantile_is_the_move_below_which_so_much_probability_lies(seed: int) -> None:
    rng = np.random.default_rng(seed)
    classes = of_moves(moves(300, seed=seed), BAND)
    probs = probabilities(rng.normal(0, 3, (3, HORIZON, 3)))
    found = quantiles(probs, classes, MANY)
    assert (np.diff(found, axis=2) >= 0).all()
    for row, step in np.ndindex(3, HORIZON):
        levels = np.r_[0.0, np.repeat(probs[row, step] / PIECES, PIECES).cumsum()]
        np.testing.assert_allclose(found[row, step], np.interp(MANY, levels, classes.knots[step]), atol=1e-9)


def test_where_the_classes_come_as_often_as_usual_the_quantiles_are_those_of_the_training_part() -> None:
    seen = moves(20_000)
    classes = of_moves(seen, BAND)
    found = quantiles(classes.frequencies[None], classes, LEVELS)[0]
    expected = np.quantile(seen, LEVELS, axis=0).T
    np.testing.assert_allclose(found, expected, rtol=0.03, atol=0.02)
    walk = of_walk(HORIZON, BAND)
    gauss = [NormalDist().inv_cdf(level) for level in LEVELS] * np.sqrt(np.arange(1, HORIZON + 1))[:, None]
    np.testing.assert_allclose(quantiles(walk.frequencies[None], walk, LEVELS)[0], gauss, rtol=0.03, atol=0.02)


def test_a_class_that_hardly_came_has_the_moves_of_a_walk_and_one_that_alone_came_is_refused() -> None:
    seen = np.abs(moves())
    classes, walk = of_moves(seen, BAND), of_walk(HORIZON, BAND)
    np.testing.assert_allclose(classes.knots[:, : PIECES + 1], walk.knots[:, : PIECES + 1])
    assert not np.allclose(classes.knots[:, 2 * PIECES :], walk.knots[:, 2 * PIECES :])
    assert (classes.frequencies[:, 0] < 0.001).all()
    with pytest.raises(BadData, match="ends flat"):
        of_moves(seen * 1e-6, BAND)


def test_no_class_is_less_likely_than_one_in_a_hundred() -> None:
    sure = probabilities(np.array([[[0.0, 900.0, 0.0]]]))
    np.testing.assert_allclose(sure, [[[LEAST_PROBABILITY, 1 - 2 * LEAST_PROBABILITY, LEAST_PROBABILITY]]])


def test_the_head_of_a_net_answers_as_the_plain_functions_do() -> None:
    head, seen = DirectionHead(HORIZON, MANY, BAND), moves()
    head.learn(seen)
    raw, classes = np.random.default_rng(0).normal(0, 2, (5, 3, HORIZON)), of_moves(seen, BAND)
    probs = head.probs(torch.from_numpy(raw.astype(np.float32)))
    plain = probabilities(raw.transpose(0, 2, 1) + np.log(classes.frequencies))
    np.testing.assert_allclose(probs.numpy(), plain, atol=1e-6)
    np.testing.assert_allclose(head(probs).numpy(), quantiles(plain, classes, MANY), atol=2e-3)
    true = moves(5, seed=9)
    picked = np.take_along_axis(plain, classes_of(true, BAND)[..., None], axis=2)
    lost = head.cross_entropy(probs, torch.from_numpy(true.astype(np.float32)))
    assert lost.item() == pytest.approx(-np.log(picked).mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("kind", "params", "loss", "said"),
    [
        ("nhits", {"head": "direction"}, "quantile", "set loss = cross_entropy"),
        ("nhits", {"head": "direction"}, "directional", "set loss = cross_entropy"),
        ("nhits", {}, "cross_entropy", "set head = direction"),
        ("deepar", {}, "cross_entropy", "set head = direction"),
    ],
)
def test_head_and_loss_must_go_together(kind: str, params: dict[str, Any], loss: str, said: str) -> None:
    with pytest.raises(BadSettings, match=said):
        make_objective(net(kind, model_params=params).module(), loss, LEVELS)


@pytest.mark.parametrize(
    ("kind", "params", "said"),
    [
        ("deepar", {"head": "direction"}, "deepar: it cannot answer in classes"),
        ("nhits", {"head": "sideways"}, "nhits: .*sideways.*parameters: head, band"),
        ("nhits", {"band": 0.3}, "set head = direction"),
        ("nhits", {"head": "direction", "band": 0}, "band"),
        ("naive_bayes", {"band": 11.0}, "band"),
        ("svm", {"penalty": 0}, "penalty"),
    ],
)
def test_a_head_that_cannot_be_is_refused_by_name(kind: str, params: dict[str, Any], said: str) -> None:
    with pytest.raises(BadSettings, match=said):
        net(kind, model_params=params)


def test_a_body_gives_one_number_a_class_and_the_card_says_which_classes() -> None:
    plain, classed = net("micro"), net("micro", model_params={"head": "direction"})
    assert classed.card.labels == ["down", "flat", "up"]
    assert classed.card.model_params == {"head": "direction", "band": 0.5}
    assert plain.card.labels == []
    counts = [sum(p.numel() for p in made.module().parameters()) for made in (plain, classed)]
    assert counts[0] - counts[1] == (8 + 1) * (len(LEVELS) - 3) * 6


def test_calibrated_scores_are_as_sure_as_they_are_right() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(4000, 2))
    likely = 1 / (1 + np.exp(truth[:, 0] - truth[:, 1]))
    known = np.where(rng.random(4000) < likely, 2, 0)  # class 1 never comes
    factor, shift = calibrated(7 * truth + [3.0, -2.0], known, np.array([0, 2]))
    assert factor == pytest.approx(1 / 7, rel=0.15)
    gap = (factor * 3.0 + shift[0]) - (factor * -2.0 + shift[1])
    assert gap == pytest.approx(0.0, abs=0.15)
