"""Each kind of feature gives what its definition gives, on random walks and on real bars."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from feature_oracle import ORACLE, Past
from hypothesis import given, settings
from hypothesis import strategies as st

from learntkit import LEARNT
from tickcast import plugin
from tickcast.engine.core.windows import UNWRAPPED
from tickcast.testing import as_ring, history

CASES = [
    ("lags", {"at": [1, 2, 7, 14]}),
    ("lags", {"at": [3, 1], "of": "close"}),
    ("log_return", {"period": 1}),
    ("log_return", {"period": 6}),
    ("roc", {"period": 10}),
    ("diff", {"period": 2}),
    ("rolling_mean", {"window": 24}),
    ("rolling_mean", {"window": 7, "of": "volume"}),
    ("rolling_std", {"window": 24}),
    ("rolling_std", {"window": 7, "of": "log_return"}),
    ("rolling_min", {"window": 12}),
    ("rolling_max", {"window": 12, "of": "log_return"}),
    ("zscore", {"window": 24}),
    ("zscore", {"window": 30, "of": "volume"}),
    ("ew_zscore", {"span": 19}),
    ("ew_zscore", {"span": 5, "of": "log_return"}),
    ("minmax", {"window": 14}),
    ("robust", {"window": 24}),
    ("robust", {"window": 9, "of": "log_return"}),
    ("ema", {"span": 19}),
    ("ema", {"span": 5, "of": "log_return"}),
    ("macd", {"fast": 12, "slow": 26, "signal": 9}),
    ("macd", {"fast": 2, "slow": 5, "signal": 8}),
    ("rsi", {"period": 14}),
    ("atr", {"period": 14}),
    ("parkinson", {}),
    ("garman_klass", {}),
    ("bollinger", {"window": 20, "k": 2.0}),
    ("realised_volatility", {"window": 24}),
    ("volatility_regime", {"fast": 3, "slow": 12}),
    ("volume_ratio", {"window": 24}),
    ("fourier", {"n": 5, "period": "day"}),
    ("fourier", {"n": 3, "period": "week"}),
    ("spectrum", {"window": 32, "n": 5}),
    ("detrend", {"window": 24}),
    ("iqr_outlier", {"window": 48, "k": 1.5}),
    ("density_outlier", {"window": 48, "eps": 1.0, "least": 5}),
    ("anomaly_score", {"window": 48}),
    ("mstl", {"window": 21, "periods": [5]}),
    ("mstl", {"window": 18, "periods": [6, 3], "of": "volume"}),
    ("shape", {"window": 9}),
    *LEARNT.items(),
]
MARGIN = 15  # rows that are compared


def past_of(bars, symbol, ordinal):
    begin = bars.start[symbol]
    columns = (bars.open, bars.high, bars.low, bars.close, bars.volume, bars.as_of)
    return Past(*(column[begin : begin + ordinal + 1].tolist() for column in columns))


def compare(kind, params, bars, ordinals, source=None):
    """The plugin on `source` (the bars, or rings of them) against the oracle; scale-free features to 1e-9."""
    feature = plugin.find("features", kind)(**params)
    assert set(params) <= set(ORACLE[kind].__code__.co_varnames)
    out = np.empty((len(ordinals), len(feature.names)))
    feature.compute(source or bars, np.zeros(len(ordinals), np.int32), ordinals, out)
    expected = np.array([ORACLE[kind](past_of(bars, 0, k), **params) for k in ordinals.tolist()])
    in_prices = kind in ("macd", "detrend", "diff", "rolling_std", "atr", "mstl")
    tolerance = 1e-12 * float(np.abs(bars.close).max()) if in_prices else 1e-12
    np.testing.assert_allclose(out, expected, rtol=1e-9, atol=tolerance)


def test_every_kind_has_an_oracle_and_a_case():
    assert set(plugin.names("features")) == set(ORACLE) == {kind for kind, _ in CASES}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "params"), CASES, ids=lambda value: str(value)[:60])
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32), move=st.sampled_from([0.0, 1e-5, 0.001, 0.05, 0.5]))
def test_on_random_walks_a_feature_is_what_its_definition_says(kind, params, seed, move):
    lookback = plugin.find("features", kind)(**params).lookback
    length = 1 << (lookback + 8).bit_length()
    bars = history([length + MARGIN], np.random.default_rng(seed), move=move)
    ordinals = np.arange(length + MARGIN - 5, length + MARGIN)
    compare(kind, params, bars, ordinals)
    compare(kind, params, bars, ordinals, as_ring(bars, np.array([length + MARGIN]), length))


@pytest.mark.parametrize(("kind", "params"), CASES, ids=lambda value: str(value)[:60])
@settings(max_examples=8, deadline=None)
@given(steps=st.lists(st.sampled_from([0.0, 0.0, 1.0, -1.0, 7.0]), min_size=230, max_size=260))
def test_on_prices_with_many_equal_moves_a_feature_is_what_its_definition_says(kind, params, steps):
    lookback = plugin.find("features", kind)(**params).lookback
    bars = history([len(steps)], np.random.default_rng(3))
    close = 2000.0 + np.cumsum(steps)
    bars = bars._replace(open=close, high=close + 1.0, low=close - 1.0, close=close)
    compare(kind, params, bars, np.arange(max(lookback, len(steps) - 4) - 1, len(steps)))


@pytest.fixture(scope="module")
def btc(shared_data):
    table = pq.read_table(shared_data / "bars" / "btc_perp_1m_202201.parquet").slice(0, 20_000)
    columns = [np.array(table.column(name).to_numpy()) for name in ("open", "high", "low", "close", "volume")]
    as_of = (1_640_991_660 + 60 * np.arange(table.num_rows)) * 10**9
    return history([1], np.random.default_rng(0))._replace(
        **dict(zip(("open", "high", "low", "close", "volume"), columns)),
        mask=np.ones(table.num_rows, np.uint8), as_of=as_of, wrap=UNWRAPPED,
    )  # fmt: skip


@pytest.mark.parametrize(("kind", "params"), CASES, ids=lambda value: str(value)[:60])
def test_on_real_bars_a_feature_is_what_its_definition_says(kind, params, btc):
    compare(kind, params, btc, np.arange(300, len(btc.close), 1_507))
