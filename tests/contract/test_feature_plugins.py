"""Every installed feature plugin holds the contract, with its defaults and with other parameters."""

import numpy as np
import pytest

from learntkit import LEARNT
from tickcast import plugin
from tickcast.testing import check_feature

OTHERS = [
    ("lags", {"at": [1, 2, 7, 14], "of": "close"}),
    ("lags", {"n": 3, "of": "volume"}),
    ("log_return", {"period": 5}),
    ("rolling_mean", {"window": 1}),
    ("rolling_mean", {"window": 7, "of": "log_return"}),
    ("rolling_std", {"window": 2, "of": "volume"}),
    ("rolling_min", {"window": 9, "of": "log_return"}),
    ("rolling_max", {"window": 1, "of": "volume"}),
    ("zscore", {"window": 50, "of": "log_return"}),
    ("ew_zscore", {"span": 2, "of": "log_return"}),
    ("ew_zscore", {"span": 3, "of": "volume"}),
    ("ema", {"span": 1}),
    ("ema", {"span": 5, "of": "volume"}),
    ("macd", {"fast": 3, "slow": 6, "signal": 10}),
    ("rsi", {"period": 1}),
    ("atr", {"period": 3}),
    ("bollinger", {"window": 5, "k": 0.5}),
    ("fourier", {"n": 1, "period": "week"}),
    ("spectrum", {"window": 4, "n": 2}),
    ("minmax", {"window": 6, "of": "volume"}),
    ("robust", {"window": 5, "of": "log_return"}),
    ("detrend", {"window": 3}),
    ("density_outlier", {"window": 10, "eps": 0.2, "least": 3}),
    ("mstl", {"window": 30, "periods": [3, 10], "of": "volume"}),
    ("shape", {"window": 5}),
    *LEARNT.items(),
]


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted({*plugin.names("features")} - {*LEARNT}))
def test_a_feature_with_its_defaults_holds_the_contract(kind):
    check_feature(plugin.find("features", kind))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "params"), OTHERS, ids=lambda value: str(value)[:60])
def test_a_feature_with_other_parameters_holds_the_contract(kind, params):
    check_feature(lambda: plugin.find("features", kind)(**params), seed=1)


class Faultless:
    """Close minus open: what each fault below is made from."""

    names = ("body",)
    version = 1
    lookback = 2

    def value(self, bars, at):
        return bars.close[at] - bars.open[at]

    def compute(self, bars, symbol, ordinal, out):
        out[:, 0] = self.value(bars, bars.start[symbol] + (ordinal & bars.wrap))


class ReadsTheNextBar(Faultless):
    def compute(self, bars, symbol, ordinal, out):
        super().compute(bars, symbol, np.maximum(ordinal - 1, 0), out)
        out[:, 0] += bars.close[(bars.start[symbol] + ((ordinal + 1) & bars.wrap)) % len(bars.close)]


class ReadsBeforeItsLookback(Faultless):
    lookback = 1

    def compute(self, bars, symbol, ordinal, out):
        out[:, 0] = bars.close[bars.start[symbol] + (np.maximum(ordinal - 1, 0) & bars.wrap)]


class ForgetsTheRing(Faultless):
    def compute(self, bars, symbol, ordinal, out):
        out[:, 0] = self.value(bars, (bars.start[symbol] + ordinal) % len(bars.close))


class Remembers(Faultless):
    calls = 0

    def compute(self, bars, symbol, ordinal, out):
        super().compute(bars, symbol, ordinal, out)
        self.calls += 1
        out += self.calls


class LooksAtTheBatch(Faultless):
    def compute(self, bars, symbol, ordinal, out):
        super().compute(bars, symbol, ordinal, out)
        out -= out.mean() if len(out) else 0.0


class LeavesRowsOut(Faultless):
    def compute(self, bars, symbol, ordinal, out):
        super().compute(bars, symbol[1:], ordinal[1:], out[1:])


class DividesByVolume(Faultless):
    def value(self, bars, at):
        with np.errstate(divide="ignore"):
            return 1.0 / bars.volume[at]


class ChangesTheBars(Faultless):
    def compute(self, bars, symbol, ordinal, out):
        super().compute(bars, symbol, ordinal, out)
        bars.close[bars.start[symbol] + (ordinal & bars.wrap)] += 1.0


class NamesAChannelTwice(Faultless):
    names = ("body", "body")


class HasNoLookback(Faultless):
    lookback = 0


class HasNoVersion(Faultless):
    version = 0


def test_a_faultless_feature_passes_the_check():
    check_feature(Faultless)


@pytest.mark.parametrize(
    ("faulty", "complaint"),
    [
        (ReadsTheNextBar, "it reads a bar after the row"),
        (ReadsBeforeItsLookback, "it reads a bar before its lookback"),
        (ForgetsTheRing, "in a ring, it gives other values"),
        (Remembers, "called again, it gives other values"),
        (LooksAtTheBatch, "one row at a time, it gives other values"),
        (LeavesRowsOut, "body is not finite or was left out"),
        (DividesByVolume, "body is not finite or was left out"),
        (ChangesTheBars, "it changes its arguments"),
        (NamesAChannelTwice, "a name is there twice"),
        (HasNoLookback, "lookback must be"),
        (HasNoVersion, "version must be"),
    ],
)
def test_the_check_catches_a_feature_that(faulty, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_feature(faulty)
