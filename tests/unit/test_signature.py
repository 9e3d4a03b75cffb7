"""What a history is like: the same under other names, units and orders, and told for histories of any kind."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from tickcast.columns import F64
from tickcast.loop.signature import (
    ALIKE,
    MOST_BARS,
    STILL,
    Closes,
    Signature,
    distance,
    read_signature,
    signature_of,
)

SECOND, HOUR = 10**9, 3600 * 10**9
N, SYMBOLS = 3000, 5


def closes(series: list[F64], *, step_ns: int = SECOND, real: float = 1.0, joined: float = 1.0) -> Closes:
    """Every series begins at the same moment; shares of the bars are real, and joined to the one before."""
    draw = np.random.default_rng(9)
    close = np.concatenate(series)
    symbol = np.repeat(np.arange(len(series), dtype=np.int32), [len(one) for one in series])
    as_of = np.concatenate([(1 + np.arange(len(one), dtype=np.int64)) * step_ns for one in series])
    is_real, is_joined = draw.random(len(close)) < real, draw.random(len(close)) < joined
    return Closes(symbol, as_of, close, is_real, is_joined)


def moving(moves: F64) -> list[F64]:
    return [100 * np.exp(np.cumsum(own)) for own in moves]


def noise(*, seed: int = 0, symbols: int = SYMBOLS, n: int = N) -> F64:
    found: F64 = np.random.default_rng(seed).normal(0, 1e-3, (symbols, n))
    return found


def turning(moves: F64, phi: float) -> F64:
    found = moves.copy()
    for i in range(1, found.shape[1]):
        found[:, i] += phi * found[:, i - 1]
    return found


def told(moves: F64, **of: Any) -> Signature:
    return signature_of(closes(moving(moves), **of))


def test_a_random_walk_has_no_memory_and_is_near_another_one() -> None:
    found, other = told(noise()), told(noise(seed=1))
    assert (found.symbols, found.bars) == (pytest.approx(np.log10(SYMBOLS)), pytest.approx(np.log10(N)))
    assert (found.interval, found.spread) == (0, pytest.approx(-3, abs=0.03))
    memory = (found.turning, found.memory, found.clustering, found.together, found.tails, found.unevenness)
    assert np.abs(memory).max() < 0.05
    assert found.persistence == pytest.approx(0.5, abs=0.02)
    assert distance(found, other) < STILL / 2


def test_what_a_market_does_shows_where_it_is_told() -> None:
    draw = np.random.default_rng(3)
    wild = np.exp(np.repeat(draw.normal(0, 1, (SYMBOLS, N // 20)), 20, axis=1))
    common = draw.normal(0, 1e-3, N)
    assert told(turning(noise(), -0.4)).turning == pytest.approx(-0.4, abs=0.05)
    assert told(turning(noise(), -0.4)).persistence < 0.45 < 0.55 < told(turning(noise(), 0.4)).persistence
    assert told(noise() * wild).clustering > 0.2
    assert told(noise() * wild).tails > 0.1
    assert told(noise() + common).together == pytest.approx(0.5, abs=0.1)
    uneven = told(noise() * np.logspace(0, 2, SYMBOLS)[:, None]).unevenness
    assert uneven == pytest.approx(2 * 0.8, abs=0.1)  # a tenth from each end
    hours = 1 + 4 * (np.arange(N) % 24 == 9)
    assert told(noise() * hours, step_ns=HOUR).season_of_size > 0.2 > told(noise(), step_ns=HOUR).season_of_size
    lifted = noise() + 2e-3 * (np.arange(N) % 24 == 9)
    assert told(lifted, step_ns=HOUR).season > 0.05 > told(noise(), step_ns=HOUR).season
    weekdays = noise() + 2e-3 * (np.arange(N) % 7 == 1)
    assert told(weekdays, step_ns=24 * HOUR).season > 0.05
    assert told(noise(), real=0.8).gaps == pytest.approx(0.2, abs=0.02)
    assert told(noise(), joined=0.9).gaps == pytest.approx(0.1, abs=0.02)


def test_names_order_and_units_are_not_in_it() -> None:
    series = moving(noise() * np.logspace(0, 1, SYMBOLS)[:, None])
    found = msgspec.structs.astuple(signature_of(closes(series)))
    backwards = msgspec.structs.astuple(signature_of(closes(series[::-1])))
    scaled = [one * 10.0 ** (place - 2) for place, one in enumerate(series)]
    assert backwards == pytest.approx(found)
    assert msgspec.structs.astuple(signature_of(closes(scaled))) == pytest.approx(found)


def test_it_is_that_of_a_slow_way_symbol_by_symbol() -> None:
    moves = turning(noise(), 0.3)
    series = moving(moves)

    def own(one: F64) -> float:
        z = np.diff(np.log(one))
        low, middle, high = np.quantile(z, [0.25, 0.5, 0.75], method="lower")
        z = np.clip((z - middle) / ((high - low) / 1.349), -8, 8)
        z = z - z.mean()
        return float((z[1:] * z[:-1]).mean() / (z * z).mean())

    assert signature_of(closes(series)).turning == pytest.approx(np.median([own(one) for one in series]), abs=1e-9)


@pytest.mark.parametrize(
    "series",
    [
        [np.ones(1)], [np.ones(200)], [np.ones(1), np.full(400, 7.0)], [np.full(300, np.nan)], [np.zeros(300)],
        [np.linspace(-1, 1, 500)], [np.geomspace(1e-300, 1e300, 400)], [np.where(np.arange(300) == 150, 1e9, 1.0)],
        [np.repeat([1.0, 2.0], 100), np.ones(2)], [np.where(np.arange(600) % 50 == 0, np.inf, 3.0)],
    ],
)  # fmt: skip
def test_any_history_has_one_and_all_of_it_is_finite(series: list[F64]) -> None:
    found = signature_of(closes(series))
    assert np.isfinite(msgspec.structs.astuple(found)).all()
    assert read_signature(msgspec.to_builtins(found)) == found


def test_prices_that_are_not_positive_are_taken_as_differences() -> None:
    level = np.cumsum(noise(), axis=1)
    found = signature_of(closes([*(one - one.mean() for one in level)]))
    assert abs(found.turning) < 0.05
    assert found.persistence == pytest.approx(0.5, abs=0.03)


def test_one_wild_bar_and_one_odd_symbol_change_little() -> None:
    series = moving(noise(symbols=9))
    wild = [one.copy() for one in series]
    wild[0][N // 2] *= 1e6
    wild[3] = np.ones(N)
    assert distance(signature_of(closes(series)), signature_of(closes(wild))) < STILL / 4


def test_of_a_long_history_the_newest_bars_tell() -> None:
    then, now = turning(noise(symbols=1, n=MOST_BARS), 0.5), noise(symbols=1, n=MOST_BARS)
    found = signature_of(closes(moving(np.concatenate([then, now], axis=1))))
    assert abs(found.turning) < 0.05
    assert found.bars == pytest.approx(np.log10(MOST_BARS))


def test_markets_that_behave_otherwise_are_far_apart_and_halves_of_one_are_not() -> None:
    one = turning(noise(n=2 * N), -0.4)
    first, second, other = told(one[:, :N]), told(one[:, N:]), told(turning(noise(seed=2), 0.4))
    assert distance(first, second) < STILL
    assert distance(first, other) > ALIKE
    assert distance(first, first) == 0
    assert distance(first, other) == distance(other, first)


def test_what_is_no_signature_is_none() -> None:
    fields = msgspec.to_builtins(told(noise(n=100)))
    assert read_signature(fields) is not None
    assert read_signature({**fields, "tails": float("nan")}) is None
    assert read_signature({**fields, "mood": 1.0}) is None
    assert read_signature({name: value for name, value in fields.items() if name != "tails"}) is None
    assert read_signature("calm") is None


def test_real_markets_are_as_far_apart_as_the_page_says(shared_data: Path) -> None:
    path = shared_data / "bars" / "crypto_binance_1h_27sym_2023_202509.parquet"
    frame = pl.read_parquet(path, columns=["symbol", "timestamp", "close"]).sort("symbol", "timestamp")
    hour = frame["timestamp"].rank("dense").to_numpy()

    def of(part: pl.Series) -> Signature:
        one = frame.filter(part)
        _, symbol = np.unique(one["symbol"].cast(pl.String).to_numpy(), return_inverse=True)
        ends = one["timestamp"].dt.replace_time_zone(None).dt.cast_time_unit("ns").to_physical().to_numpy()
        whole = np.ones(len(one), np.bool_)
        return signature_of(
            Closes(symbol.astype(np.int32), ends, one["close"].cast(pl.Float64).to_numpy(), whole, whole)
        )

    first, last, names = (of(pl.Series(hour <= hour.max() / 4)), of(pl.Series(hour > hour.max() * 3 / 4)),
                          sorted(frame["symbol"].unique().cast(pl.String)))  # fmt: skip
    five, alone = (of(frame["symbol"].cast(pl.String).is_in(some)) for some in (names[:5], names[3:4]))
    assert round(distance(first, last), 1) in (0.2, 0.3)
    assert round(distance(first, five), 1) == 0.3 < STILL
    assert STILL < round(distance(first, alone), 1) == 0.6 < ALIKE
