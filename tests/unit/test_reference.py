"""The reference that a fit leaves: what it holds, from which bars it comes, and how a model folder keeps it."""

import shutil
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file, save_file

from tickcast.batch.train import reference as made
from tickcast.batch.train.dataset import Dataset, load_dataset
from tickcast.batch.train.reference import Rows, block_of, correlation, reference_of, shares_of
from tickcast.columns import Inputs
from tickcast.engine.inference.load import open_model
from tickcast.engine.inference.model_folder import CARD, REFERENCE, file_sha256, read_card
from tickcast.errors import BadModel
from tickcast.records import digest
from tickcast.reference import Reference
from trainkit import job, model_of, series, walk

LEVELS = [0.05, 0.25, 0.5, 0.75, 0.95]
FEATURES = [{"kind": "rsi", "period": 5}, {"kind": "rolling_max", "window": 20}]
WIDTHS = np.array([[-1.6, -0.7, 0.0, 0.7, 1.6]] * 4)
BARS = 2000


def frames(*, sigma: float = 1e-3, later: float = 1.0) -> list[pl.DataFrame]:
    """The last fifth of the prices so many times as high."""
    factor = np.where(np.arange(BARS) < 0.8 * BARS, 1.0, later)
    return [series(symbol, walk(BARS, seed=i, sigma=sigma) * factor) for i, symbol in enumerate("AB")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a model that was fitted on these."""
    path = tmp_path_factory.mktemp("fit") / "job"
    job(path, frames(), kind="ridge", model_params={}, features=FEATURES)
    return model_of(path)


def dataset_of(path: Path, **how: float) -> Dataset:
    return load_dataset(path, job(path, frames(**how), features=FEATURES))


def last_value(inputs: Inputs) -> np.ndarray:
    """Its quantiles, a little too narrow."""
    moves = inputs.past[:, :, 0]
    return np.ascontiguousarray(0.8 * moves.std(axis=1)[:, None, None] * WIDTHS[None], np.float32)


def found_in(dataset: Dataset) -> Reference:
    return reference_of(dataset, last_value, WIDTHS, LEVELS, per_bar=True)


def test_a_fit_leaves_one_that_its_card_covers_and_a_runner_has(folder: Path) -> None:
    card = read_card(folder)
    assert card.artefacts[REFERENCE] == file_sha256(folder / REFERENCE)
    reference = open_model(folder).reference
    assert reference is not None
    assert reference.names() == ["A", "B"]
    assert reference.edges.shape == (3, 33)
    assert all(array.flags.writeable for array in reference.arrays().values())  # kernels are compiled for such
    assert (np.diff(reference.edges, axis=1) >= 0).all()
    assert reference.repeats.tolist() == [0, 0, 1]  # a running maximum stays where it is
    np.testing.assert_allclose(reference.odd[-1, :2], 0.1, atol=0.005)
    np.testing.assert_allclose(reference.far[-1], 0.05, atol=0.005)
    np.testing.assert_allclose(reference.bins.sum(axis=1), 1)
    assert 0.8 < reference.loss[-1] < 1.2


def test_the_values_part_looks_at_the_training_part_alone(tmp_path: Path) -> None:
    one, other = found_in(dataset_of(tmp_path / "a")), found_in(dataset_of(tmp_path / "b", later=3.0))
    for name, array in one.arrays().items():
        if not name.startswith(("loss", "missed")):
            np.testing.assert_array_equal(array, other.arrays()[name], err_msg=name)


def test_a_channel_that_never_had_a_value_is_not_watched_and_leaves_no_distance(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path / "a")
    dataset.values[:, 1] = np.nan
    reference = Reference.of(found_in(dataset).arrays(), channels=3)
    assert (reference.low[1], reference.high[1]) == (-np.inf, np.inf)
    assert reference.distance[0] > 1e300
    assert reference.far[-1] == 0
    assert reference.odd[-1, 0] == pytest.approx(0.1, abs=0.005)


def test_scores_are_even_and_white(tmp_path: Path) -> None:
    """By another way: ranks instead of the sketch."""
    dataset = dataset_of(tmp_path / "a")
    reference = found_in(dataset)
    rows = np.flatnonzero(dataset.parts.is_train(dataset.history))
    values = dataset.values[rows]
    values = values[np.isfinite(values).all(axis=1)]
    for f in range(2):
        at = np.searchsorted(np.sort(values[:, f]), reference.edges[f]) / len(values)
        np.testing.assert_allclose(at, np.linspace(0, 1, 33), atol=0.02)
    np.testing.assert_allclose(reference.low[0], np.quantile(values[:, 0], 0.05), rtol=0.05)


def test_the_level_of_a_series_is_not_watched(tmp_path: Path) -> None:
    dataset = load_dataset(tmp_path, job(tmp_path, frames(), features=FEATURES, transform="level"))
    reference = found_in(dataset)
    assert (reference.low[0], reference.high[0]) == (-np.inf, np.inf)
    assert (reference.low[1], reference.repeats[0]) > (0, 0)
    Reference.of(reference.arrays(), channels=3)


def rows_of(bars: int, symbols: int = 1, *, per_bar: bool = True) -> Rows:
    symbol = np.repeat(np.arange(symbols, dtype=np.int32), bars)
    return Rows.at(symbol, np.tile(np.arange(bars), symbols), symbols=symbols, per_bar=per_bar)


def test_blocks_double_until_they_are_next_to_uncorrelated_or_too_few() -> None:
    rng = np.random.default_rng(0)
    even, slow = rng.random(40_000), np.repeat(rng.random(80), 50)
    block = block_of(rows_of(40_000), even, np.ones(40_000))
    assert block.bars == 20
    assert abs(block.left) < 0.1
    assert block_of(rows_of(4000), slow, np.ones(4000)).bars > 40
    endless = block_of(rows_of(4000), np.arange(4000.0), np.ones(4000))
    assert endless.bars == 320
    assert endless.left > 0.5
    assert correlation(np.ones(10), np.ones(10)) == correlation(np.zeros(0), np.zeros(0)) == 0.0


def test_what_every_symbol_does_for_itself_is_not_lost_among_many() -> None:
    """Together they are even: what each does cancels out, and a season that all have is seen by all."""
    rng = np.random.default_rng(1)
    own = np.repeat(rng.random((50, 80)), 50, axis=1)
    season = np.tile(np.repeat([0.0, 10.0], 20), 100)
    both = (own + season).ravel()
    assert block_of(rows_of(4000, 50), both, np.ones(len(both))).bars > 40
    clumps = np.repeat(rng.random(80), 50)
    alike = (clumps + 3 * rng.random((50, 4000))).ravel()
    assert block_of(rows_of(4000, 50), alike, np.ones(len(alike))).bars > 40


def test_a_share_stands_as_high_as_it_may_well_be() -> None:
    """As far as another history of this length would have it elsewhere."""
    rng = np.random.default_rng(2)
    shares = np.array([
        shares_of(rows_of(2000, 2), np.repeat(rng.random(200) < 0.1, 20), np.ones(4000, np.bool_))[0]
        for _ in range(200)
    ])  # fmt: skip
    error = np.sqrt(0.1 * 0.9 / 100)
    assert shares[:, :2].mean() == pytest.approx(0.1 + error, rel=0.1)
    assert shares[:, 2].mean() == pytest.approx(0.1, rel=0.05)


def test_rows_of_a_moment_are_those_of_an_instant_and_others_stand_alone() -> None:
    symbol, as_of = np.array([0, 0, 1, 1], np.int32), np.array([1, 3, 2, 3])
    together = Rows.at(symbol, as_of, symbols=2, per_bar=True)
    assert (together.moment.tolist(), together.moments) == ([0, 2, 1, 2], 3)
    assert Rows.at(symbol, as_of, symbols=2, per_bar=False).moment.tolist() == [0, 2, 1, 3]
    assert together.place.tolist() == [0, 1, 0, 1]
    assert [part.tolist() for part in together.blocks(2)] == [[0, 0, 1, 1], [0, 1]]
    assert [part.tolist() for part in together.blocks(1)] == [[0, 1, 2, 3], [0, 0, 1, 1]]


def test_a_symbols_own_loss_counts_by_how_many_labels_it_has() -> None:
    symbol = np.repeat(np.array([0, 1], np.int32), [50, 20_000])
    beside = np.ones(len(symbol))
    ratios = made._ratios(np.where(symbol == 0, 3.0, 1.0) * beside, beside, symbol, 3)
    assert 1.0 < ratios[0] < 1.2  # of fifty labels nobody can tell
    assert ratios[1] == pytest.approx(1.0, abs=0.01)
    assert ratios[2] == pytest.approx(ratios[3])  # nothing is known of it


def test_a_folder_of_before_has_none_and_serves(folder: Path, tmp_path: Path) -> None:
    before = changed(folder, tmp_path / "before")
    assert open_model(before).reference is None


@pytest.mark.parametrize("how", ["torn", "fewer channels", "more in it"])
def test_one_that_does_not_fit_its_model_is_refused_by_its_name(folder: Path, tmp_path: Path, how: str) -> None:
    arrays = load_file(folder / REFERENCE)
    bytes_of = (folder / REFERENCE).read_bytes()
    if how == "fewer channels":
        arrays["low"] = arrays["low"][:-1]
    if how == "more in it":
        arrays["extra"] = np.zeros(1)
    save_file(arrays, tmp_path / REFERENCE)
    if how == "torn":
        (tmp_path / REFERENCE).write_bytes(bytes_of[: len(bytes_of) // 2])
    with pytest.raises(BadModel, match=REFERENCE):
        open_model(changed(folder, tmp_path / "model", tmp_path / REFERENCE))


def changed(folder: Path, to: Path, reference: Path | None = None) -> Path:
    """A copy with another reference or none, and a card that says so."""
    shutil.copytree(folder, to)
    (to / REFERENCE).unlink()
    card = read_card(folder)
    artefacts = {name: sha for name, sha in card.artefacts.items() if name != REFERENCE}
    if reference is not None:
        shutil.copy(reference, to / REFERENCE)
        artefacts[REFERENCE] = file_sha256(to / REFERENCE)
    card = msgspec.structs.replace(card, artefacts=artefacts)
    (to / CARD).write_bytes(msgspec.json.encode(msgspec.structs.replace(card, digest=digest(card))))
    return to
