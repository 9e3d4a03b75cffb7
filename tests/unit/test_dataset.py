"""History, splits and windows of a job folder."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tickcast.batch.train.dataset import Dataset, load_dataset
from tickcast.batch.train.draws import draw
from tickcast.batch.train.history import read_history
from tickcast.batch.train.splits import CUTS, PARTS, usable_windows
from tickcast.columns import F64, I64
from tickcast.engine.core import windows
from tickcast.engine.core.features import FeatureSet
from tickcast.errors import BadData, BadSettings
from tickcast.io.jobs.folder import BARS
from tickcast.io.jobs.orders import FitOrder
from trainkit import EVERY_NS, job, series, walk

LOOKBACK, HORIZON = 24, 4


def load(folder: Path, frames: list[pl.DataFrame], **order: Any) -> Dataset:
    made = job(folder, frames, lookback=LOOKBACK, horizon=HORIZON, **order)
    return load_dataset(folder, made)


def two_symbols() -> list[pl.DataFrame]:
    return [series("A", walk(900, seed=1)), series("B", walk(500, seed=2), start=400)]


def test_no_target_crosses_a_cut_and_an_embargo_follows_it(tmp_path: Path) -> None:
    dataset = load(tmp_path, two_symbols())
    as_of, symbol = dataset.history.bars.as_of, dataset.history.symbol
    begin, end = int(as_of.min()), int(as_of.max())
    cuts = [begin + int((end - begin) * share) for share in CUTS]
    edges = [-1, *cuts, end]
    for number, name in enumerate(PARTS):
        rows: I64 = getattr(dataset.parts, name)
        assert (symbol[rows] == symbol[rows + HORIZON]).all()
        assert (as_of[rows + HORIZON] <= edges[number + 1]).all()
        if number:
            assert (as_of[rows] > edges[number] + HORIZON * EVERY_NS - 1).all()
        assert set(symbol[rows]) == {0, 1}, "every symbol is cut at the same event times"
    everything = np.concatenate([getattr(dataset.parts, name) for name in PARTS])
    assert len(np.unique(everything)) == len(everything)


def test_the_cuts_fall_where_the_shares_say(tmp_path: Path) -> None:
    parts = load(tmp_path, [series("A", walk(1001, seed=1))]).parts
    assert parts.edges.tolist() == [[0, 701, 801, 901, 1001]]
    first, last = parts.validation[[0, -1]].tolist()
    assert (first, last) == (701 + HORIZON, 801 - HORIZON - 1)
    assert parts.train[0] == LOOKBACK  # a move needs the bar before the window


def test_usable_windows_are_those_that_a_plain_loop_finds(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    frames = [
        series(s, walk(300, seed=i), mask=rng.random(300) > 0.02, gap=rng.random(300) < 0.01)
        for i, s in enumerate("AB")
    ]
    history = load(tmp_path, frames).history
    found = usable_windows(history, need_bars=30, horizon=HORIZON)
    expected = []
    for row in range(600):
        held = row % 300 - history.first[row] + 1
        targets = slice(row + 1, row + 1 + HORIZON)
        clean = history.bars.mask[targets].all() and not history.gap[targets].any()
        if row % 300 + HORIZON < 300 and history.bars.mask[row] and held >= 30 and clean:
            expected.append(row)
    assert found.tolist() == expected


def test_a_carried_bar_or_a_gap_among_the_targets_voids_a_window(tmp_path: Path) -> None:
    mask, gap = np.ones(900), np.zeros(900)
    mask[100], gap[200] = 0, 1
    parts = load(tmp_path, [series("A", walk(900, seed=1), mask=mask, gap=gap)]).parts
    missing = set(range(LOOKBACK, 300)) - set(parts.train.tolist())
    cold = set(range(200, 200 + LOOKBACK))  # carry: so long a gap leaves the symbol without a window
    assert missing == {96, 97, 98, 99, 100} | {196, 197, 198, 199} | cold


def test_joined_trading_days_keep_their_windows(tmp_path: Path) -> None:
    gap = np.zeros(900)
    gap[200] = 1
    parts = load(tmp_path, [series("A", walk(900, seed=1), gap=gap)], bars={"on_gap": "join"}).parts
    assert set(range(LOOKBACK, 300)) - set(parts.train.tolist()) == {196, 197, 198, 199}


def test_changing_bars_after_a_cut_changes_nothing_before_it(tmp_path: Path) -> None:
    entries = [{"kind": "rolling_std", "window": 8, "normalization": "zscore"}]
    before = load(tmp_path / "a", two_symbols(), features=entries)
    cut = before.parts.edges[:, 1] - before.history.bars.start
    changed = [f.with_columns(pl.when(pl.int_range(pl.len()) < int(c)).then(pl.col(n)).otherwise(pl.col(n) * 3).alias(n)
               for n in ("open", "high", "low", "close")) for f, c in zip(two_symbols(), cut, strict=True)]  # fmt: skip
    after = load(tmp_path / "b", changed, features=entries)
    np.testing.assert_array_equal(before.parts.train, after.parts.train)
    for one, two in zip(before.channel_statistics(), after.channel_statistics(), strict=True):
        np.testing.assert_array_equal(one, two)
    batches = before.batch(before.parts.train), after.batch(after.parts.train)
    np.testing.assert_array_equal(batches[0].inputs.past, batches[1].inputs.past)
    np.testing.assert_array_equal(batches[0].target, batches[1].target)
    held_out = before.batch(before.parts.validation), after.batch(after.parts.validation)
    assert not np.array_equal(held_out[0].inputs.past, held_out[1].inputs.past)


@pytest.mark.parametrize("transform", sorted(windows.TRANSFORMS))
def test_windows_of_history_equal_those_of_the_live_ring_bit_for_bit(tmp_path: Path, transform: str) -> None:
    rng = np.random.default_rng(3)
    mask = (rng.random(900) > 0.1).astype(np.float64)
    entries = [{"kind": "rolling_std", "window": 8}]
    dataset = load(tmp_path, [series("A", walk(900, seed=1), mask=mask)], transform=transform, features=entries)
    rows = dataset.parts.train[::7]
    history = dataset.history
    ring, values = windows.ring(1, 64), np.full((64, 2), np.nan)
    features = FeatureSet(_entries(entries), transform)
    found = {}
    for k in range(len(history)):
        for column in ("open", "high", "low", "close", "volume", "mask", "as_of"):
            getattr(ring, column)[k & ring.wrap] = getattr(history.bars, column)[k]
        zero, at = np.zeros(1, np.int32), np.array([k], np.int64)
        first = np.zeros(1, np.int64)
        values[k & ring.wrap] = features.compute(ring, zero, at, first)
        if k in rows:
            future = np.empty((1, HORIZON, 0), np.float32)
            found[k] = windows.gather_inputs(
                ring, values, zero, at, first, lookback=LOOKBACK, transform=dataset.transform, future=future
            )
    rebuilt = dataset.batch(rows)
    for i, k in enumerate(rows.tolist()):
        inputs, _, scale = found[k]
        assert inputs.past[0].tobytes() == rebuilt.inputs.past[i].tobytes()
        assert inputs.mask[0].tobytes() == rebuilt.inputs.mask[i].tobytes()
        assert scale[0] == rebuilt.scale[i]


def test_targets_are_moves_from_the_anchor(tmp_path: Path) -> None:
    close = walk(900, seed=1)
    rows = np.array([50, 51], np.int64)
    logs = load(tmp_path / "a", [series("A", close)]).batch(rows)
    plain = load(tmp_path / "b", [series("A", close)], transform="level").batch(rows)
    for i, row in enumerate(rows):
        np.testing.assert_allclose(logs.target[i], np.log(close[row + 1 : row + 5] / close[row]), rtol=1e-5)
        np.testing.assert_allclose(plain.target[i], close[row + 1 : row + 5] - close[row], rtol=1e-5)
    assert (plain.inputs.past[:, -1, 0] == 0).all()


def test_the_calendar_of_the_target_bars_is_that_of_their_as_of(tmp_path: Path) -> None:
    dataset = load(tmp_path, [series("A", walk(900, seed=1))], future=["time_of_day"])
    rows = dataset.parts.train[:3]
    expected = windows.calendar_channels(dataset.history.bars.as_of[rows[:, None] + np.arange(1, 5)], ["time_of_day"])
    np.testing.assert_array_equal(dataset.batch(rows).inputs.future, expected)


def test_scalers_are_those_of_the_training_part(tmp_path: Path) -> None:
    kinds = ["none", "zscore", "minmax", "robust", "log"]
    entries = [{"kind": "rolling_std", "window": 4 + i, "normalization": kind} for i, kind in enumerate(kinds)]
    dataset = load(tmp_path, [series("A", walk(900, seed=1))], features=entries)
    center, spread = dataset.channel_statistics()
    train = dataset.values[: dataset.parts.edges[0, 1], 1:]
    columns: list[F64] = [train[np.isfinite(train[:, i]), i] for i in range(5)]
    low, middle, high = np.quantile(columns[3], [0.25, 0.5, 0.75])
    logged = np.log1p(columns[4])
    expected = [(0, 1), (columns[1].mean(), columns[1].std()), (columns[2].min(), np.ptp(columns[2])),
                (middle, high - low), (logged.mean(), logged.std())]  # fmt: skip
    np.testing.assert_allclose(np.stack([center, spread], axis=1), expected, rtol=1e-12)


def test_the_paper_split_of_ettm_has_its_rows_and_standardises_by_the_training_part(tmp_path: Path) -> None:
    close = walk(69_680, seed=1) * np.linspace(1, 2, 69_680)
    dataset = load(tmp_path, [series("A", close)], split="paper", transform="level")
    parts = dataset.parts
    assert parts.edges.tolist() == [[0, 34_560, 34_560 + 8_640, 34_560 + 11_520, 34_560 + 2 * 11_520]]
    assert parts.holdout[[0, -1]].tolist() == [46_080 - 1, 57_600 - HORIZON - 1]
    assert len(parts.holdout) == 11_520 - HORIZON + 1
    train = dataset.history.bars.close[:34_560]
    assert (train.mean(), train.std()) == pytest.approx((0, 1), abs=1e-9)


def test_the_paper_split_of_other_series_goes_by_shares(tmp_path: Path) -> None:
    dataset = load(tmp_path, [series("A", walk(1000, seed=1))], split="paper", transform="level")
    assert dataset.parts.edges.tolist() == [[0, 700, 775, 800, 1000]]


def test_a_validation_part_whose_quarter_holds_no_window_calibrates_as_a_whole(tmp_path: Path) -> None:
    dataset = load(tmp_path, [series("A", walk(150, seed=1))], split="paper", transform="level")
    assert dataset.parts.edges.tolist() == [[0, 105, 120, 120, 150]]
    np.testing.assert_array_equal(dataset.parts.calibration, dataset.parts.validation)
    assert len(dataset.parts.validation) == 15 - HORIZON + 1


def test_draws_depend_on_seed_and_epoch_alone(tmp_path: Path) -> None:
    dataset = load(tmp_path, two_symbols())
    order = job(tmp_path / "o", two_symbols(), windows_per_epoch=200, seed=5)
    np.testing.assert_array_equal(draw(dataset, order, 3), draw(dataset, order, 3))
    assert not np.array_equal(draw(dataset, order, 3), draw(dataset, order, 4))


def test_a_symbol_of_n_windows_is_drawn_by_the_root_of_n(tmp_path: Path) -> None:
    frames = [series("A", walk(8000, seed=1)), series("B", walk(2000, seed=2))]
    dataset = load(tmp_path, frames)
    order = job(tmp_path / "o", frames, windows_per_epoch=4000)
    drawn = np.concatenate([draw(dataset, order, epoch) for epoch in range(5)])
    assert set(drawn) <= set(dataset.parts.train)
    counts = np.bincount(dataset.history.symbol[dataset.parts.train])
    shares = np.bincount(dataset.history.symbol[drawn])
    assert shares[0] / shares[1] == pytest.approx(np.sqrt(counts[0] / counts[1]), rel=0.1)


@pytest.mark.slow
def test_the_digest_is_of_bars_rule_and_features_and_not_of_how_the_file_is_written(tmp_path: Path) -> None:
    entries = [{"kind": "roc"}]
    first = load(tmp_path / "a", two_symbols(), features=entries).digest
    again = load(tmp_path / "b", two_symbols(), features=entries, seed=9, loss="mae")
    assert again.digest == first, "what steers the fit alone is no part of the data"
    pl.concat(two_symbols()).write_parquet(tmp_path / "b" / BARS, compression="gzip", row_group_size=100)
    assert load_dataset(tmp_path / "b", FitOrder.read(tmp_path / "b")).digest == first
    others = {first}
    for name in ("open", "high", "low", "close", "volume"):
        changed = [f.with_columns(pl.when(pl.int_range(pl.len()) == 7).then(101.5).otherwise(name).alias(name))
                   for f in two_symbols()]  # fmt: skip
        others.add(load(tmp_path / "c", changed, features=entries).digest)
    renamed = [f.with_columns(symbol=pl.lit(s)) for f, s in zip(two_symbols(), "AC", strict=True)]
    others.add(load(tmp_path / "c", renamed, features=entries).digest)
    for change in (
        {"features": [{"kind": "roc", "normalization": "zscore"}]}, {"features": []}, {"future": ["time_of_day"]},
        {"transform": "level"}, {"split": "paper"}, {"bars": {"on_gap": "join"}},
    ):  # fmt: skip
        others.add(load(tmp_path / "c", two_symbols(), **({"features": entries} | change)).digest)
    made = job(tmp_path / "d", two_symbols(), features=entries, lookback=LOOKBACK + 1, horizon=HORIZON)
    others.add(load_dataset(tmp_path / "d", made).digest)
    assert len(others) == 1 + 5 + 1 + 6 + 1


def test_too_little_history_says_which_part_stays_empty(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="validation part without a window"):
        load(tmp_path, [series("A", walk(60, seed=1))])


def test_prices_that_the_transform_cannot_take_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="positive"):
        load(tmp_path, [series("A", walk(900, seed=1) - 100)])


def test_a_malformed_feature_entry_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="normalization"):
        load(tmp_path, two_symbols(), features=[{"kind": "rolling_std", "normalization": "sometimes"}])


@pytest.mark.parametrize("what", ["missing", "empty", "rubbish", "unsorted", "column"])
def test_a_bad_file_of_bars_is_refused_by_name(tmp_path: Path, what: str) -> None:
    frame = pl.concat(two_symbols())
    path = tmp_path / BARS
    if what == "rubbish":
        path.write_bytes(b"PAR1 and then nothing")
    elif what != "missing":
        bad = {"empty": frame.clear(), "unsorted": pl.concat([frame, frame]), "column": frame.drop("tie")}[what]
        bad.write_parquet(path)
    with pytest.raises(BadData, match=r"bars\.parquet"):
        read_history(tmp_path, on_gap="carry")


def _entries(raw: list[dict[str, Any]]) -> Any:
    from tickcast.settings.engine import FeatureEntry

    return [FeatureEntry.model_validate(entry) for entry in raw]
