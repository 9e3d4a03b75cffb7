"""The deployment's feature set: what it builds, refuses, computes and notices."""

import numpy as np
import pytest

from tickcast import plugin
from tickcast.columns import Bars
from tickcast.engine.core.features import FeatureSet
from tickcast.errors import BadOutput, BadSettings
from tickcast.settings.engine import FeatureEntry
from tickcast.testing import history


def entry(kind, **params):
    return FeatureEntry(kind=kind, **params)


def feature_set(*entries, transform="log_return"):
    return FeatureSet(entries, transform)


@pytest.fixture
def bars() -> Bars:
    return history([40, 30], np.random.default_rng(5))


def rows(bars):
    symbol = np.repeat(np.array([0, 1], np.int32), [40, 30])
    ordinal = np.arange(70) - bars.start[symbol]
    return symbol, ordinal


def test_the_target_is_channel_zero_and_the_entries_follow_in_order():
    built = feature_set(entry("macd"), entry("lags", n=2), entry("ema", span=3))
    assert built.names == [
        "target", "macd_12_26_9_line", "macd_12_26_9_signal", "macd_12_26_9_histogram", "lag_1", "lag_2", "ema_3",
    ]  # fmt: skip
    assert [spec.name for spec in built.specs] == built.names[1:]
    assert built.lookback == 208


@pytest.mark.parametrize(("transform", "lookback"), [("log_return", 2), ("difference", 2), ("level", 1)])
def test_without_entries_only_the_target_is_left(transform, lookback, bars):
    built = feature_set(transform=transform)
    assert (built.names, built.specs, built.lookback) == (["target"], [], lookback)
    symbol, ordinal = rows(bars)
    values = built.compute(bars, symbol, ordinal, np.zeros(70, np.int64))
    assert np.isnan(values[:, 0]).sum() == 2 * (lookback - 1)


def test_the_target_channel_is_the_transform_of_the_close(bars):
    symbol, ordinal = np.array([1], np.int32), np.array([7])
    now, before = bars.close[47], bars.close[46]
    first = np.zeros(1, np.int64)
    expected = {"log_return": pytest.approx(np.log(now / before)), "difference": now - before, "level": now}
    for transform, value in expected.items():
        assert feature_set(transform=transform).compute(bars, symbol, ordinal, first)[0, 0] == value


def test_rows_without_their_lookback_are_nan_in_the_columns_of_that_feature_only(bars):
    built = feature_set(entry("rolling_mean", window=5), entry("diff", period=9))
    symbol, ordinal = rows(bars)
    first = np.where(symbol == 0, 3, 0)  # symbol 0 was cold until its bar 3
    values = built.compute(bars, symbol, ordinal, first)
    there = ordinal - first + 1
    np.testing.assert_array_equal(np.isfinite(values), np.stack([there >= 2, there >= 5, there >= 10], axis=1))
    assert values[8, 1] == pytest.approx(bars.close[4:9].mean())
    assert values[45, 1] == pytest.approx(bars.close[41:46].mean())


def test_some_rows_give_the_bits_that_all_rows_give(bars):
    built = feature_set(*(entry(kind) for kind in ("rolling_std", "lags", "bollinger", "volume_ratio")))
    symbol, ordinal = rows(bars)
    first = np.zeros(70, np.int64)
    whole = built.compute(bars, symbol, ordinal, first)
    some = np.array([39, 2, 69, 25])
    np.testing.assert_array_equal(built.compute(bars, symbol[some], ordinal[some], first[some]), whole[some])


def test_no_rows_give_no_values(bars):
    none = np.empty(0, np.int64)
    assert feature_set(entry("rsi")).compute(bars, none.astype(np.int32), none, none).shape == (0, 2)


@pytest.mark.slow
def test_columns_that_may_not_be_written_to_give_the_same_values(bars):
    built = feature_set(entry("zscore", window=6, of="volume"), entry("rsi", period=1))
    symbol, ordinal = rows(bars)
    first = np.zeros(70, np.int64)
    expected = built.compute(bars, symbol, ordinal, first)
    for name in ("close", "volume"):
        getattr(bars, name).flags.writeable = False
    np.testing.assert_array_equal(built.compute(bars, symbol, ordinal, first), expected)


def test_specs_spell_out_every_parameter_and_keep_version_and_scaling():
    (spec,) = feature_set(entry("bollinger", window=9, normalization="robust")).specs
    assert (spec.kind, spec.version, spec.normalization) == ("bollinger", 1, "robust")
    assert spec.params == {"window": 9, "k": 2.0}


def test_the_digest_is_the_same_for_the_same_set_and_another_for_another():
    plain = feature_set(entry("ema", span=19), entry("lags", at=[1, 2])).digest
    assert feature_set(entry("ema"), entry("lags", at=(1, 2))).digest == plain
    assert len(plain) == 64
    others = [
        feature_set(entry("lags", at=[1, 2]), entry("ema", span=19)),
        feature_set(entry("ema", span=20), entry("lags", at=[1, 2])),
        feature_set(entry("ema", span=19, normalization="zscore"), entry("lags", at=[1, 2])),
        feature_set(entry("ema", span=19), entry("lags", at=[1, 2]), transform="level"),
    ]
    assert len({plain, *(other.digest for other in others)}) == 5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (entry("rsj"), "no feature named 'rsj' .*rsi"),
        (entry("rsi", periods=14), "'rsi' got an unexpected keyword argument 'periods' .*its parameters: period"),
        (entry("rsi", period=0), "'rsi': period must be a whole number from 1"),
        (entry("rolling_mean", window=7.0), "window must be a whole number"),
        (entry("rolling_mean", window=True), "window must be a whole number"),
        (entry("rolling_mean", window="7"), "window must be a whole number"),
        (entry("rolling_mean", window=10_001), "from 1 to 10000, not 10001"),
        (entry("rolling_std", window=1), "from 2 to"),
        (entry("rolling_std", of="price"), "of must be one of close, log_return, volume, not 'price'"),
        (entry("bollinger", k=0), "k must be a number above 0"),
        (entry("bollinger", k=float("nan")), "k must be a number above 0"),
        (entry("macd", fast=26, slow=12), "fast must be a whole number from 1 to 11"),
        (entry("lags", n=3, at=[1]), "n or at, not both"),
        (entry("lags", at=[]), "one number of bars or more, each once"),
        (entry("lags", at=[2, 2]), "one number of bars or more, each once"),
        (entry("lags", at=[0]), "at must be a whole number from 1"),
        (entry("lags", at=3), "at must be a list of"),
        (entry("fourier", period="month"), "period must be one of day, week"),
        (entry("spectrum", window=8, n=5), "n must be a whole number from 1 to 4"),
        (entry("density_outlier", window=10, least=11), "least must be a whole number from 2 to 10"),
        (entry("robust", window=1_001), "from 4 to 1000"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.kind,
)
def test_a_bad_entry_is_refused_by_name(wrong, message):
    with pytest.raises(BadSettings, match=message):
        feature_set(wrong)


@pytest.mark.parametrize(
    "entries", [(entry("lags", n=3), entry("lags", at=[2])), (entry("rsi"), entry("rsi", period=14))]
)
def test_a_channel_that_is_there_twice_is_refused(entries):
    with pytest.raises(BadSettings, match="there already: (lag_2|rsi_14)"):
        feature_set(*entries)


class Foreign:
    """A plugin of someone else's, with whatever fault."""

    version = 1
    lookback = 3
    names = ("mine",)

    def __init__(self, fault="none"):
        self.fault = fault
        if fault == "constructor":
            raise KeyError("weights")

    def compute(self, bars, symbol, ordinal, out):
        if self.fault == "raises":
            raise ZeroDivisionError("by volume")
        out[:, 0] = np.inf if self.fault == "infinite" else 1.0
        if self.fault == "leaves out":
            out[0, 0] = np.nan


@pytest.fixture
def foreign(monkeypatch):
    found = plugin.find
    monkeypatch.setattr(plugin, "find", lambda group, name: Foreign if name == "foreign" else found(group, name))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("raises", "'foreign' failed: ZeroDivisionError"),
        ("infinite", "'foreign' gave a value of mine that is not finite"),
        ("leaves out", "'foreign' gave a value of mine that is not finite"),
    ],
)
@pytest.mark.usefixtures("foreign")
def test_a_plugin_that_fails_is_named(fault, message, bars):
    symbol, ordinal = rows(bars)
    with pytest.raises(BadOutput, match=message):
        feature_set(entry("foreign", fault=fault)).compute(bars, symbol, ordinal, np.zeros(70, np.int64))


@pytest.mark.usefixtures("foreign")
def test_a_plugin_that_cannot_be_built_is_named():
    with pytest.raises(BadSettings, match="'foreign' cannot be built: KeyError"):
        feature_set(entry("foreign", fault="constructor"))


@pytest.mark.usefixtures("foreign")
def test_a_plugin_without_warm_rows_is_not_blamed_for_them(bars):
    built = feature_set(entry("foreign", fault="infinite"))
    none = np.zeros(1, np.int64)
    assert np.isnan(built.compute(bars, none.astype(np.int32), none, none)).all()
