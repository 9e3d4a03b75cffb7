"""NHITS before any fit: parameters, hierarchy, scale and heads."""

from typing import Any

import numpy as np
import pytest
import torch

from tickcast.errors import BadModel, BadSettings
from tickcast.records import FeatureSpec, ModelCard
from tickcast.testing import walks
from tickcast_plugins.models.naive import Naive
from tickcast_plugins.models.nhits import NHITS, interpolation

LEVELS = [0.05, 0.25, 0.5, 0.75, 0.95]


def card(**over: Any) -> ModelCard:
    base: dict[str, Any] = {
        "name": "n", "kind": "nhits", "version": "", "digest": "", "framework": "onnx", "bars": {},
        "transform": "log_return", "lookback": 24, "horizon": 6, "levels": LEVELS, "features": [],
        "model_params": {"hidden": 8}, "seed": 3,
    }  # fmt: skip
    return ModelCard(**(base | over))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"hiden": 8}, "hiden"),
        ({"hidden": 0}, "hidden"),
        ({"layers": "two"}, "layers"),
        ({"pooling": []}, "pooling"),
        ({"pooling": [0]}, "pooling"),
        ({"pooling": [32]}, "exceeds the lookback"),
        ({"downsample": [1]}, "as long as pooling"),
    ],
)
def test_a_wrong_parameter_is_refused_by_name(params: dict[str, Any], message: str) -> None:
    with pytest.raises(BadSettings, match=message):
        NHITS(card(model_params=params))


def test_levels_without_the_median_are_refused() -> None:
    with pytest.raises(BadSettings, match=r"0\.5"):
        NHITS(card(levels=[0.1, 0.9]))


@pytest.mark.parametrize("transform", ["log_return", "difference"])
def test_unfitted_it_answers_as_the_naive_rung(transform: str) -> None:
    net = NHITS(card(transform=transform))
    naive = Naive(transform, 6, LEVELS, 1)
    inputs = walks(net, rows=5, lookback=24)
    np.testing.assert_allclose(net.predict(inputs), naive.predict(inputs), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("transform", ["log_return", "level"])
def test_a_window_ten_times_as_lively_gets_an_answer_ten_times_as_large(transform: str) -> None:
    net = fuzzed(NHITS(card(transform=transform)))
    inputs = walks(net, rows=4, lookback=24)
    small = net.predict(inputs)
    inputs.past[:] *= 10
    np.testing.assert_allclose(net.predict(inputs), small * 10, rtol=1e-4)


def test_blocks_see_the_window_through_their_pool_and_answer_with_their_knots() -> None:
    net = NHITS(card(model_params={"hidden": 8, "pooling": [8, 2, 1], "downsample": [6, 3, 1]}))
    blocks = list(net.module().body.blocks)
    assert [block.perceptron[0].in_features for block in blocks] == [3, 12, 24]
    assert [block.forecast.out_features for block in blocks] == [5 * 1, 5 * 2, 5 * 6]
    assert [block.explains for block in blocks] == [True, True, False]


def test_a_later_block_sees_what_the_earlier_left_over() -> None:
    net = NHITS(card(model_params={"hidden": 8, "pooling": [1, 1]}))
    first, second = net.module().body.blocks
    seen: list[torch.Tensor] = []
    second.perceptron.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    window = torch.randn(2, 1, 24, generator=torch.Generator().manual_seed(0))
    net.module().body(window, torch.empty(2, 0))
    with torch.no_grad():
        expected = window - first.explain(first(window, torch.empty(2, 0)))
    torch.testing.assert_close(seen[0], expected.flatten(1))


def test_interpolation_draws_straight_lines_through_the_knots() -> None:
    knots = torch.tensor([[0.0, 4.0, 2.0]])
    assert (knots @ interpolation(3, 5)).tolist() == [[0, 2, 4, 3, 2]]
    assert interpolation(1, 3).tolist() == [[1, 1, 1]]
    torch.testing.assert_close(interpolation(4, 4), torch.eye(4))


def test_a_lookback_that_no_pool_divides_drops_the_oldest_bars_from_that_view() -> None:
    net = fuzzed(NHITS(card(lookback=23, model_params={"hidden": 8, "pooling": [4]})))
    inputs = walks(net, rows=3, lookback=23)
    inputs.mask[:] = 1
    before = net.predict(inputs)
    inputs.past[:, 0:2] = np.roll(inputs.past[:, 0:2], 1, axis=1)  # within what falls out: the scale stays
    np.testing.assert_allclose(net.predict(inputs), before, rtol=1e-5)


def test_channels_are_scaled_by_the_given_statistics() -> None:
    features = [
        FeatureSpec(name="a", kind="x", version=1, normalization="zscore"),
        FeatureSpec(name="b", kind="x", version=1, normalization="log"),
    ]
    net = NHITS(card(features=features))
    net.set_channels(np.array([2.0, 1.0]), np.array([4.0, 0.5]))
    others = torch.tensor([[[10.0], [-(np.e - 1)]]])
    found = net.module().scaled(others)
    torch.testing.assert_close(found, torch.tensor([[[2.0], [-4.0]]]))


def test_a_channel_and_the_calendar_reach_the_answer() -> None:
    features = [FeatureSpec(name="a", kind="x", version=1)]
    net = fuzzed(NHITS(card(features=features, future=["time_of_day"])))
    inputs = walks(net, rows=4, lookback=24)
    before = net.predict(inputs)
    inputs.past[:, :, 1] += 1
    middle = net.predict(inputs)
    inputs.future[:] += 1
    after = net.predict(inputs)
    assert not np.allclose(before, middle)
    assert not np.allclose(middle, after)


def test_weights_of_another_shape_are_refused(tmp_path: Any) -> None:
    NHITS(card()).save(tmp_path)
    with pytest.raises(BadModel, match="does not fit"):
        NHITS(card(lookback=32)).load(tmp_path)


def fuzzed(net: NHITS, seed: int = 0) -> NHITS:
    """With weights that make every part matter; unfitted, the forecast heads are zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.module().parameters():
            parameter.uniform_(-0.3, 0.3, generator=generator)
    return net
