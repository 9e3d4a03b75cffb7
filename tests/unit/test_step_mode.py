"""Nets in step mode, before any export: bar by bar they say what the sequence says, whatever is masked."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stepkit import stepped
from tickcast.columns import F32, Inputs
from tickcast.errors import BadSettings
from tickcast.testing import check_model, walks
from zookit import net, specs

KINDS = pytest.mark.parametrize("kind", ["gru", "lstm", "tcn"])
GIVEN: dict[str, Any] = {"features": specs("a", "b"), "future": ["time_of_day"], "lookback": 30}


def by_steps(model: Any, inputs: Inputs) -> tuple[list[torch.Tensor], F32]:
    """The states after each bar, the first of them before any, and what is said after the last bar."""
    module = model.module().eval()
    past, mask, future, static = (
        torch.from_numpy(part) for part in (inputs.past, inputs.mask, inputs.future, inputs.static)
    )
    states, said = [torch.zeros(len(inputs), module.state_width)], torch.empty(0)
    with torch.inference_mode():
        for bar in range(past.shape[1]):
            state, said = module.step(states[-1], past[:, bar], mask[:, bar], future, static)
            states.append(state)
    return states, said.numpy()


@KINDS
@pytest.mark.parametrize("masked", [False, True])
def test_stepping_through_a_window_equals_the_sequence(kind: str, masked: bool) -> None:
    model = stepped(kind, **GIVEN)
    inputs = walks(model, rows=40, lookback=30)
    if masked:
        inputs.mask[1:5, -3:] = 0
        inputs.mask[5] = 0
    else:
        inputs.mask[:] = 1
    _, said = by_steps(model, inputs)
    expected = model.predict(inputs)
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(said, expected, atol=1e-5)


@KINDS
def test_a_bar_under_mask_0_leaves_the_state_as_it_is_whatever_it_holds(kind: str) -> None:
    model = stepped(kind, **GIVEN)
    inputs = walks(model, rows=4, lookback=30)
    inputs.mask[:, 10], inputs.mask[:, 11] = 0, 1
    inputs.past[:, 10] = np.nan
    states, _ = by_steps(model, inputs)
    assert torch.equal(states[10], states[11])
    assert (states[11] != states[12]).any(dim=1).all()


@KINDS
def test_a_net_in_step_mode_keeps_the_contract(kind: str, tmp_path: Path) -> None:
    check_model(lambda seed: stepped(kind, seed=seed, **GIVEN), lookback=30, folder=tmp_path)


@KINDS
def test_a_window_ten_times_as_lively_gets_an_answer_ten_times_as_large(kind: str) -> None:
    model = stepped(kind)
    inputs = walks(model, rows=4, lookback=24)
    small = model.predict(inputs)
    inputs.past[:] *= 10
    np.testing.assert_allclose(model.predict(inputs), small * 10, rtol=1e-3, atol=1e-3)


def test_the_unit_is_the_weighted_mean_square_of_the_moves_so_far() -> None:
    model = stepped("gru", lookback=9)
    inputs = walks(model, rows=3, lookback=9)
    keep, (states, _) = 1 - 2 / 10, by_steps(model, inputs)
    squares, weight = np.zeros(3), np.zeros(3)
    for bar in range(9):
        real = inputs.mask[:, bar] > 0
        squares = np.where(real, keep * squares + (1 - keep) * inputs.past[:, bar, 0].astype(float) ** 2, squares)
        weight = np.where(real, keep * weight + (1 - keep), weight)
    np.testing.assert_allclose(states[-1][:, :2].numpy(), np.stack([squares, weight], axis=1), rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "over", "message"),
    [
        ("gru", {"transform": "level"}, "a level is none.*difference"),
        ("tcn", {"model_params": {"mode": "step", "head": "direction"}}, "cannot answer in classes"),
        ("lstm", {"model_params": {"mode": "steps"}}, "mode"),
        ("lstm_attention", {"model_params": {"mode": "step"}}, "mode"),
    ],
)
def test_what_has_no_steps_is_refused(kind: str, over: dict[str, Any], message: str) -> None:
    with pytest.raises(BadSettings, match=message):
        partial(net, kind, model_params={"mode": "step"})(**over)
