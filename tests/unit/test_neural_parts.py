"""The torch nets before any fit: parameters, first answers, and what each one's parts do by themselves."""

import math
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import torch

from tickcast.engine.core.windows import rescale
from tickcast.errors import BadSettings
from tickcast.scales import speeds
from tickcast.testing import check_model, walks
from tickcast_plugins.models.deepar import PATHS, draws, order_weights
from tickcast_plugins.models.linear_nets import decomposition
from tickcast_plugins.models.micro import PRESETS, distances, newest_moves, slopes, sums
from tickcast_plugins.models.naive import Naive
from tickcast_plugins.models.nbeats import NBEATSParams, bases
from tickcast_plugins.models.tcn import blocks_to_see
from zookit import LEVELS, SENTIMENT, SMALL, fuzzed, net, specs


@pytest.mark.parametrize("kind", sorted({kind for kind, _ in SMALL.values()}))
def test_an_unknown_parameter_is_refused_and_the_known_ones_are_named(kind: str) -> None:
    with pytest.raises(BadSettings, match=f"{kind}: .*hiden.*parameters: "):
        net(kind, model_params={"hiden": 8})


@pytest.mark.parametrize(
    ("kind", "over", "message"),
    [
        ("lstm", {"model_params": {"layers": 0}}, "layers"),
        ("lstm_attention", {"model_params": {"hidden": 10, "heads": 4}}, "no multiple"),
        ("tft", {"model_params": {"hidden": 10, "heads": 4}}, "no multiple"),
        ("transformer", {"model_params": {"patch": 25}}, "exceeds the lookback"),
        ("nbeats", {"model_params": {"stacks": ["wavelet"]}}, "wavelet"),
        ("tcn", {"model_params": {"channels": [1]}}, "channels"),
        ("deepar", {"horizon": 49}, "exceeds 48"),
        ("micro", {"model_params": {"preset": "sentiment"}}, "news_count, sent_mean, sent_surprise"),
        ("micro", {"model_params": {"layers": [128, 64]}}, "not under 10,000"),
        ("micro", {"horizon": 400}, "not under 10,000"),
    ],
)
def test_what_a_net_cannot_be_is_refused_by_name(kind: str, over: dict[str, Any], message: str) -> None:
    with pytest.raises(BadSettings, match=message):
        net(kind, **over)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("transform", ["log_return", "level"])
def test_unfitted_it_answers_last_value_as_wide_as_a_walk(name: str, transform: str) -> None:
    kind, params = SMALL[name]
    made = net(kind, model_params=params, transform=transform)
    inputs = walks(made, rows=5, lookback=24)
    naive = Naive("log_return", 6, LEVELS, 1)
    found, expected = made.predict(inputs), naive.predict(inputs)
    np.testing.assert_allclose(found[:, :, 2], 0, atol=1e-5)
    if transform == "log_return":
        apart = 0.25 if kind == "deepar" else 1e-5  # 64 paths are no normal distribution
        np.testing.assert_allclose(found, expected, rtol=apart, atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_a_window_ten_times_as_lively_gets_an_answer_ten_times_as_large(name: str) -> None:
    kind, params = SMALL[name]
    made = fuzzed(kind, model_params=params, transform="level")
    inputs = walks(made, rows=4, lookback=24)
    small = made.predict(inputs)
    inputs.past[:] *= 10
    np.testing.assert_allclose(made.predict(inputs), small * 10, rtol=1e-3, atol=1e-3)


def test_a_trend_block_answers_with_a_polynomial_and_a_seasonal_one_with_waves() -> None:
    params = NBEATSParams(degree=2, harmonics=2)
    past, ahead = bases("trend", params, 8, 6)
    assert (past.shape, ahead.shape) == ((3, 8), (3, 6))
    np.testing.assert_allclose(np.diff(ahead, n=3, axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(past[1], np.arange(7, -1, -1) / 8)
    past, ahead = bases("seasonality", params, 12, 6)
    assert len(past) == len(ahead) == 2 * (1 + len([1.0, 1.5, 2.0, 2.5]))
    np.testing.assert_allclose(past[:, :6], past[:, 6:] * np.tile([1, 1, -1, 1, -1], 2)[:, None], atol=1e-12)
    np.testing.assert_allclose(ahead[1], np.cos(2 * np.pi * np.arange(6) / 6), atol=1e-12)


def test_dlinear_splits_the_path_to_the_anchor_into_a_moving_average_and_the_rest() -> None:
    moves = np.array([1.0, 2.0, -4.0, 3.0, 1.0])
    path = np.array([-2.0, 0.0, -4.0, -1.0, 0.0])  # where the price was, seen from the last close
    trend, rest = decomposition(5, 3, is_level=False)
    smoothed = np.array([-4 / 3, -2.0, -5 / 3, -5 / 3, -1 / 3])
    np.testing.assert_allclose(moves @ trend * math.sqrt(5), smoothed)
    np.testing.assert_allclose(moves @ rest * math.sqrt(5), path - smoothed)
    levels = decomposition(5, 3, is_level=True)
    np.testing.assert_allclose(path @ levels[0], moves @ trend)


@pytest.mark.parametrize(("lookback", "kernel", "blocks"), [(1, 3, 1), (5, 3, 1), (6, 3, 2), (13, 3, 2), (96, 3, 5)])
def test_as_many_tcn_blocks_as_see_the_window(lookback: int, kernel: int, blocks: int) -> None:
    assert blocks_to_see(lookback, kernel) == blocks


def test_the_oldest_bar_reaches_a_tcn_of_default_depth_and_not_a_shallow_one() -> None:
    window = torch.randn(1, 1, 30, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for channels, reached in (([], True), ([8, 8], False)):
        body = fuzzed("tcn", lookback=30, model_params={"hidden": 8, "channels": channels}).module().body
        (slope,) = torch.autograd.grad(body(window, torch.empty(1, 0)).sum(), window)
        assert bool(slope[0, 0, 0] != 0) is reached


def test_no_step_of_a_tft_or_a_deepar_sees_the_calendar_of_a_later_bar() -> None:
    for kind in ("tft", "deepar"):
        made = fuzzed(kind, future=["time_of_day"], model_params={"hidden": 8})
        inputs = walks(made, rows=3, lookback=24)
        before = made.predict(inputs)
        inputs.future[:, 4:] += 1
        after = made.predict(inputs)
        np.testing.assert_array_equal(after[:, :4], before[:, :4])
        assert not np.allclose(after[:, 4], before[:, 4])


def test_every_step_of_deepar_deals_the_same_draws_mirrored() -> None:
    dealt = draws(12, seed=5)
    assert dealt.shape == (12, PATHS)
    np.testing.assert_array_equal(np.sort(dealt, axis=1), np.tile(np.sort(dealt[0]), (12, 1)))
    np.testing.assert_array_equal(dealt[:, : PATHS // 2], -dealt[:, PATHS // 2 :])
    assert dealt.std() == pytest.approx(1, abs=0.03)
    assert not np.array_equal(dealt[0], dealt[1])
    assert not np.array_equal(draws(12, seed=6), dealt)


def test_the_paths_of_deepar_are_spread_as_a_normal_walk_at_every_step() -> None:
    walked = np.cumsum(draws(48, seed=5), axis=0) / np.sqrt(np.arange(1, 49))[:, None]
    found = np.quantile(walked, LEVELS, axis=1, method="hazen").T
    expected = [NormalDist().inv_cdf(level) for level in LEVELS]
    np.testing.assert_allclose(found, np.tile(expected, (48, 1)), atol=0.2)  # 64 free draws: off by 0.5 and more


def test_deepar_reads_quantiles_from_its_sorted_paths() -> None:
    paths = np.random.default_rng(0).normal(size=(7, PATHS))
    levels = [0.001, 0.05, 0.25, 0.5, 0.9, 0.999]
    found = np.sort(paths, axis=1) @ order_weights(levels)
    np.testing.assert_allclose(found, np.quantile(paths, levels, axis=1, method="hazen").T, atol=1e-6)


def test_deepar_says_how_likely_the_truth_was() -> None:
    made = net("deepar")
    inputs = walks(made, rows=4, lookback=24)
    parts = [torch.from_numpy(part) for part in (inputs.past, inputs.mask, inputs.future, inputs.static)]
    target = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    scale = made.module().seen(*parts)[2]
    moves = torch.diff(target / scale, dim=1, prepend=torch.zeros(4, 1))
    gaussian = torch.distributions.Normal(0.0, 1.01)  # unfitted: a walk
    expected = -gaussian.log_prob(moves).mean(dim=1) - math.log(2 * math.pi) / 2
    torch.testing.assert_close(made.module().nll(*parts, target), expected)


def test_deepar_refuses_widths_that_are_not_of_its_paths() -> None:
    with pytest.raises(BadSettings, match="loss = quantile"):
        net("deepar").set_gaps(np.ones((6, 4)))


def test_views_of_micro_networks_are_sums_slopes_distances_and_moves() -> None:
    moves = np.array([1.0, -2.0, 4.0, 3.0])
    closes = np.array([0.0, 1.0, -1.0, 3.0, 6.0])
    np.testing.assert_allclose(moves @ sums(4), [3, 7 / math.sqrt(2), 5 / math.sqrt(3), 6 / 2])
    for column, n in enumerate((2, 3, 4)):
        variance = np.arange(1, n) * np.arange(n - 1, 0, -1) / 2 if n > 1 else 0  # of a slope's weights, by parts
        slope = np.polyfit(np.arange(n), closes[-n:], 1)[0] * np.var(np.arange(n)) * n
        assert moves @ slopes(4)[:, column] == pytest.approx(slope / np.linalg.norm(variance))
        distance = closes[-1] - closes[-n:].mean()
        assert moves @ distances(4)[:, column] == pytest.approx(distance / np.linalg.norm(np.arange(1, n) / n))
    assert (moves @ newest_moves(4)).tolist() == moves.tolist()


def test_a_sentiment_network_with_its_features_sees_them() -> None:
    made = fuzzed("micro", features=specs("other", *SENTIMENT), model_params={"preset": "sentiment"})
    inputs = walks(made, rows=2, lookback=24)
    before = made.predict(inputs)
    inputs.past[:, -1, 2] += 1
    assert not np.allclose(made.predict(inputs), before)


def test_the_layers_of_a_request_are_those_of_the_network() -> None:
    made = net("micro", model_params={"preset": "reversal", "layers": [5, 7]})
    widths = [layer.out_features for layer in made.module().body.perceptron if hasattr(layer, "out_features")]
    assert widths == [5, 7]
    assert sum(p.numel() for p in made.module().parameters()) == (12 + 1) * 5 + (5 + 1) * 7 + (7 + 1) * 5 * 6


def test_the_guide_names_every_parameter_and_the_true_number_of_weights() -> None:
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    guide, _, _ = page.partition("<!-- accuracy: begin -->")
    for kind in {kind for kind, _ in SMALL.values()} - {"nhits"}:
        made = net(kind, lookback=96, horizon=12)
        (row,) = [line for line in guide.splitlines() if line.startswith(f"| `{kind}` |")]
        assert row.endswith(f"| {sum(p.numel() for p in made.module().parameters()):,} |"), kind
        assert not [name for name in made.params.__struct_fields__ if f"`{name}` (" not in row], kind
    assert not [name for name in PRESETS if f"| `{name}` |" not in guide]


@pytest.mark.parametrize("transform", ["log_return", "level"])
@pytest.mark.parametrize("scale", ["rms", "ewma", "har"])
def test_a_net_divides_by_the_scale_that_the_gather_gives(scale: str, transform: str) -> None:
    made = net("nlinear", scale=scale, transform=transform)
    inputs = walks(made, rows=40, lookback=24)
    expected = np.empty(40)
    if scale == "rms":
        own, mask = inputs.past[:, :, 0].astype(np.float64), inputs.mask
        if transform == "level":
            own, mask = np.diff(own, axis=1), mask[:, 1:] * mask[:, :-1]
        expected = np.sqrt((own**2 * mask).sum(axis=1) / mask.sum(axis=1))
    else:
        rescale(inputs.past, inputs.mask, transform == "level", *speeds(scale, 24), expected)
    parts = [torch.from_numpy(part) for part in (inputs.past, inputs.mask, inputs.future, inputs.static)]
    np.testing.assert_allclose(made.module().seen(*parts)[2][:, 0], expected, rtol=1e-5)


def test_a_net_in_units_of_a_forecast_keeps_the_contract_and_says_so_on_its_card() -> None:
    check_model(lambda seed: fuzzed("nlinear", scale="har", seed=seed), lookback=24)
    assert net("nlinear", scale="har").card.scale == "har"
    with pytest.raises(BadSettings, match="a scale of its own"):
        net("gru", scale="ewma", model_params={"mode": "step"})
