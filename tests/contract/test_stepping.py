"""Models that step, as the daemon serves them: what they say follows from the ticks, however these come and whoever
restarts; and it is what the sequence says.
"""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from kit import T0, Served, walk
from snapshotkit import KINDS, Running, Turn, differences, small_settings, tape, turns
from stepkit import SMALL, made_for, write_card, write_graphs
from tickcast.columns import F32, I64, Inputs
from tickcast.engine.core.events import Ask
from tickcast.engine.core.ladder import RUNGS
from tickcast.engine.inference.load import open_model
from tickcast.engine.inference.model_folder import STEP_GRAPH, read_card
from tickcast.engine.inference.stepping import StepRunner, turns_of
from tickcast.errors import BadModel, BadStore
from tickcast.io.store import snapshot
from tickcast.questions import Questions
from tickcast.records import Command
from tickcast.settings import Settings
from tickcast.testing import check_model, walks

pytestmark = pytest.mark.slow
LENGTH, BARS, SYMBOLS = 6, 40, 5  # LENGTH is the look-back of snapshotkit's deployments
Folders = Callable[[str], Path]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """By kind: a model folder, made once, for the windows of snapshotkit's deployments; all but gru see a calendar."""
    made: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            card = made_for(small_settings()) | {"future": [] if kind == "gru" else ["time_of_day"]}
            made[kind] = write_card(folder, write_graphs(kind, folder, **card).card)
        return made[kind]

    return get


@pytest.fixture
def deployment(folders: Folders, tmp_path: Path) -> Callable[..., Settings]:
    """Settings of a deployment that serves the folder of gru, whose card then names its bars."""

    def get(**kind: Any) -> Settings:
        kind |= {"runtime__deterministic": True, "model__ladder": '["naive"]'}
        folder = shutil.copytree(folders("gru"), tmp_path / "model", dirs_exist_ok=True)
        write_card(folder, read_card(folder), **made_for(small_settings(**kind)))
        return small_settings(**kind, model__default=folder)

    return get


class Market:
    """Bars of some symbols, and the windows at any of them."""

    def __init__(self, runner: Any, seed: int = 0) -> None:
        self.all = walks(runner, rows=SYMBOLS, lookback=BARS, seed=seed)
        self.calendar = walks(runner, rows=BARS, lookback=2, seed=seed + 1).future

    def at(self, symbol: I64, ordinal: I64) -> Inputs:
        bars = ordinal[:, None] + np.arange(1 - LENGTH, 1)
        rows, one = symbol[:, None], symbol.astype(np.int32)
        return Inputs(
            self.all.past[rows, bars], self.all.mask[rows, bars], self.calendar[ordinal], np.empty((len(one), 0), "f4")
        )

    def follow(self, runner: StepRunner, pairs: list[tuple[int, int]], tile: int = 0) -> F32:
        symbol, ordinal = np.array(pairs).T
        questions = Questions.of(self.at(symbol, ordinal), symbol.astype(np.int32), ordinal, tile=tile)
        return runner.answer(questions).quantiles


def swapped(seed: int) -> list[Turn]:
    """A hostile tape; for some of its turns another model answers."""
    some = [[event for event in turn if not isinstance(event, Command)] for turn in turns(tape(seed, 2500), seed)]
    at = len(some) // 4
    away, back = (Command(id="1", command="use_model", args={"model": name}) for name in ("naive", "n"))
    return [*some[:at], [away], *some[at : at + 5], [back], *some[at + 5 :]]


def opened(folder: Path) -> StepRunner:
    runner = open_model(folder)
    assert isinstance(runner, StepRunner)
    return runner


@pytest.mark.parametrize("kind", SMALL)
def test_the_graphs_agree_and_a_state_that_is_new_says_what_the_sequence_says(folders: Folders, kind: str) -> None:
    runner = opened(folders(kind))
    check_model(lambda _: runner, lookback=LENGTH)
    inputs = walks(runner, rows=50, lookback=LENGTH)
    expected = runner.predict(inputs)
    np.testing.assert_allclose(runner.from_nothing(inputs), expected, atol=1e-5)
    first = runner.answer(Questions.of(inputs, np.arange(50, dtype=np.int32), np.full(50, 30)))
    np.testing.assert_allclose(first.quantiles, expected, atol=1e-5)


@pytest.mark.parametrize("kind", SMALL)
def test_a_state_that_was_moved_on_bar_by_bar_says_what_one_walk_through_all_its_bars_says(
    folders: Folders, kind: str
) -> None:
    runner = opened(folders(kind))
    market = Market(runner)
    pairs = [(symbol, bar) for bar in range(LENGTH - 1, 30) for symbol in range(SYMBOLS)]
    said = market.follow(runner, pairs)
    future, rows = market.calendar[[29] * SYMBOLS], np.arange(SYMBOLS)
    whole = Inputs(market.all.past[:, :30], market.all.mask[:, :30], future, np.empty((SYMBOLS, 0), np.float32))
    zeros = np.zeros((SYMBOLS, runner.state()["states"].shape[1]), np.float32)
    _, expected = runner._walk(whole, rows, zeros, np.full(SYMBOLS, 30), 0)
    np.testing.assert_allclose(said[-SYMBOLS:], expected, atol=1e-5)
    if kind != "tcn":  # which forgets what its convolutions do not reach
        assert np.abs(said[-SYMBOLS:] - runner.predict(market.at(rows, np.full(SYMBOLS, 29)))).max() > 1e-4


def test_in_tiles_it_says_the_same_bits_however_the_questions_are_cut_and_whether_some_are_left_out(
    folders: Folders,
) -> None:
    rng = np.random.default_rng(1)
    folder, tile = folders("gru"), 8
    pairs = [(symbol, bar) for bar in range(LENGTH - 1, BARS) for symbol in rng.permutation(SYMBOLS).tolist()]
    runner = opened(folder)
    market = Market(runner)
    whole = market.follow(runner, pairs, tile)
    for cuts in ([], [1, 2, 50], sorted(rng.choice(np.arange(1, len(pairs)), 30, replace=False).tolist())):
        other, parts = opened(folder), []
        for a, b in zip([0, *cuts], [*cuts, len(pairs)]):
            parts.append(market.follow(other, pairs[a:b], tile))
        np.testing.assert_array_equal(np.concatenate(parts), whole)
    some = np.array([i for i in range(len(pairs)) if i < SYMBOLS or i % 3])
    np.testing.assert_array_equal(market.follow(opened(folder), [pairs[i] for i in some], tile), whole[some])


def test_a_state_that_stands_elsewhere_begins_anew_at_its_window(folders: Folders) -> None:
    runner = opened(folders("gru"))
    market, tile = Market(runner), 8
    market.follow(runner, [(0, 24), (1, 24), (0, 25), (1, 25)], tile)
    for pairs in ([(0, 25 + LENGTH)], [(0, 28)], [(2, 30)]):  # as far as its window, back, never seen
        fresh = market.follow(opened(folders("gru")), pairs, tile)
        np.testing.assert_array_equal(market.follow(runner, pairs, tile), fresh)
    near = [(1, 24 + LENGTH)]
    assert (market.follow(runner, near, tile) != market.follow(opened(folders("gru")), near, tile)).any()


def test_what_is_no_number_ends_with_the_window_that_holds_it(folders: Folders) -> None:
    runner = opened(folders("gru"))
    market = Market(runner)
    market.all.mask[:] = 1
    market.all.past[0, 15, 1] = np.nan
    said = market.follow(runner, [(symbol, bar) for bar in range(LENGTH - 1, 30) for symbol in range(2)])
    broken = ~np.isfinite(said[::2]).all(axis=(1, 2))
    assert np.flatnonzero(broken).tolist() == [*range(15 - LENGTH + 1, 15 + 1)]
    assert np.isfinite(said[1::2]).all()


def test_its_state_is_taken_up_by_another_and_one_that_does_not_fit_is_refused(folders: Folders) -> None:
    runner, other = opened(folders("gru")), opened(folders("gru"))
    market, tile = Market(runner), 8
    market.follow(runner, [(symbol, bar) for bar in range(LENGTH - 1, 20) for symbol in (0, 3, 4)], tile)
    state = runner.state()
    market.follow(other, [(1, 19)], tile)
    other.set_state({name: array.copy() for name, array in state.items()})
    later = [(symbol, bar) for bar in range(20, 24) for symbol in range(SYMBOLS)]
    said = market.follow(runner, later, tile)
    assert state["symbol"].tolist() == [0, 3, 4]
    np.testing.assert_array_equal(market.follow(other, later, tile), said)
    with pytest.raises(BadStore, match="a step takes"):
        opened(folders("tcn")).set_state(state)


def test_rows_are_taken_in_turns_that_hold_no_symbol_twice() -> None:
    symbol = np.array([3, 1, 3, 3, 0, 1], np.int32)
    assert [turn.tolist() for turn in turns_of(symbol)] == [[0, 1, 4], [2, 5], [3]]
    assert not [*turns_of(symbol[:0])]


def test_a_folder_whose_step_is_no_step_is_refused(folders: Folders, tmp_path: Path) -> None:
    folder = shutil.copytree(folders("gru"), tmp_path / "m")
    card = opened(folder).card
    shutil.copy(folder / "model.onnx", folder / STEP_GRAPH)
    with pytest.raises(BadModel, match="damaged"):
        open_model(folder)
    write_card(folder, card)
    with pytest.raises(BadModel, match="no step of a state"):
        open_model(folder)
    graph = onnx.load(folders("gru") / STEP_GRAPH)
    weights = max(graph.graph.initializer, key=lambda tensor: math.prod(tensor.dims))
    weights.CopyFrom(onnx.numpy_helper.from_array(2 * onnx.numpy_helper.to_array(weights), weights.name))
    onnx.save(graph, folder / STEP_GRAPH)
    write_card(folder, card)
    with pytest.raises(BadModel, match="moves away from its fit"):
        open_model(folder)


@pytest.mark.parametrize("kind", [KINDS[0], KINDS[3], KINDS[4]])
def test_a_run_cut_anywhere_says_bit_by_bit_what_one_says_that_was_not(
    deployment: Callable[..., Settings], kind: dict[str, object], tmp_path: Path
) -> None:
    options, some = deployment(**kind), swapped(4)
    whole, parts, at = Running(options).take(some), Running(options), 0
    for cut in (len(some) // 3, len(some) // 2):
        before, at = parts.take(some[at:cut]), cut
        snapshot.write(tmp_path, before.engine.snapshot(), options)
        found = snapshot.newest_valid(tmp_path, options, not_beyond=before.engine.positions)
        assert found.state is not None, found.refused
        parts = Running(options)
        parts.engine.resume(found.state)
        parts.outcomes = before.outcomes
    parts.take(some[at:])
    assert not [*differences(whole.outcomes, parts.outcomes)]
    rungs = np.concatenate([f.model for outcome in whole.outcomes for f in outcome.forecasts])
    assert (rungs == 0).sum() > 100


def test_that_comparison_sees_a_state_that_was_lost(
    deployment: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    options, some = deployment(**KINDS[0]), swapped(4)
    whole, first = Running(options).take(some), Running(options).take(some[: len(some) // 2])
    monkeypatch.setattr(StepRunner, "set_state", lambda *_: None)
    second = Running(options)
    second.engine.resume(first.engine.snapshot())
    second.take(some[len(some) // 2 :])
    assert [*differences(whole.outcomes[len(some) // 2 :], second.outcomes)]


def test_any_chunking_gives_the_same_bits_and_answers_beside_the_ticks_leave_no_trace(
    deployment: Callable[..., Settings],
) -> None:
    options = deployment(**KINDS[0])
    ticks = walk(1500, 6, seed=3)

    def served(chunk: int) -> Served:
        return Served(options, ticks, chunk=chunk, runners=[opened(Path(options.model.default))])

    whole = served(len(ticks))
    assert (whole.forecasts.rung == RUNGS.index("model")).sum() > 100
    expected = dict(zip(whole.ids(), whole.forecasts.quantiles.tolist()))
    for chunk in (3, 400):
        other = served(chunk)
        assert dict(zip(other.ids(), other.forecasts.quantiles.tolist())) == expected
    one, two = served(400), served(400)
    asked = two.engine.turn([Ask(("S1", "S2"))], T0).answers
    assert asked[0].refused is None
    runner: Any = two.engine.ladder.runners[0]  # type: ignore[union-attr]
    state = one.engine.ladder.runners[0].state()  # type: ignore[union-attr]
    assert not [*differences(runner.state(), state)]
