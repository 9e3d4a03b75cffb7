"""What tests of drift share: bars of known closes, a rung that has a reference of them, ticks that make such bars."""

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from kit import T0, Served, Tick, rung
from tickcast.batch.train.history import BarHistory
from tickcast.batch.train.reference import describe
from tickcast.columns import F64, Bars
from tickcast.engine.core.features import FeatureSet
from tickcast.engine.core.windows import UNWRAPPED
from tickcast.plugin import Runner
from tickcast.questions import Answers, Questions
from tickcast.records import Drift
from tickcast.reference import Reference
from tickcast.settings import Settings

EVERY_NS = 10**9
OF_LABELS: dict[str, Any] = {
    **{name: np.array([20.0]) for name in ("missed_block", "loss_block")},
    **{name: np.zeros(1) for name in ("missed_left", "loss_left")}, "loss_width": np.array([0.2]),
}  # fmt: skip
Closes = Mapping[str, F64]


def history_of(closes: Closes) -> BarHistory:
    """One bar a second of each symbol, all at the same instants."""
    names, flat = [*closes], np.concatenate([*closes.values()])
    lengths = np.array([len(close) for close in closes.values()])
    start = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
    symbol = np.repeat(np.arange(len(names), dtype=np.int32), lengths)
    as_of = T0 + (np.arange(len(flat)) - start[symbol] + 1) * EVERY_NS
    bars = Bars(
        open=flat, high=flat, low=flat, close=flat, volume=np.ones(len(flat)), mask=np.ones(len(flat), np.uint8),
        as_of=as_of, start=start, wrap=UNWRAPPED,
    )  # fmt: skip
    first = np.zeros(len(flat), np.int64)
    return BarHistory(names, bars, np.zeros(len(flat), np.uint8), symbol, first, start + lengths, "")


def values_of(history: BarHistory, s: Settings) -> F64:
    features = FeatureSet(s.features.set, s.forecast.transform)
    return features.compute(history.bars, history.symbol, history.ordinal, history.first)


def reference_of(closes: Closes, s: Settings) -> Reference:
    """As a fit on these leaves it, but for what labels say."""
    history = history_of(closes)
    rows = np.arange(len(history))
    of_values = describe(history, values_of(history, s), rows, watch_target=True, per_bar=s.bars.kind == "time")
    names = np.frombuffer(bytearray(msgspec.json.encode(history.names)), np.uint8)
    return Reference(symbols=names, loss=np.ones(len(closes) + 1), **OF_LABELS, **of_values)


class Referred(Runner):
    """Last value, with a card of its own and a reference."""

    def __init__(self, reference: Reference | None, s: Settings, *, digest: str = "referred") -> None:
        self._naive = rung("naive", s)
        self.card = msgspec.structs.replace(self._naive.card, name=digest, kind="referred", digest=digest)
        self.reference = reference

    def answer(self, questions: Questions) -> Answers:
        return self._naive.answer(questions)


def ticks_of(closes: Closes) -> list[Tick]:
    """A tick at the middle of every second for each symbol, in the order of time."""
    return [
        (name, T0 + t * EVERY_NS + EVERY_NS // 2, float(close[t]), 1.0)
        for t in range(max(map(len, closes.values())))
        for name, close in closes.items()
    ]


def walks(bars: int, symbols: int, *, seed: int, sigma: float | F64 = 1e-3) -> dict[str, F64]:
    rng = np.random.default_rng(seed)
    return {f"S{k}": 100 * np.exp(np.cumsum(rng.normal(0, sigma, bars))) for k in range(symbols)}


def alarms(served: Served) -> list[Drift]:
    return [drift for outcome in served.outcomes for drift in outcome.drift]


def report(served: Served) -> list[Drift]:
    """Every family that was evaluated, as it is."""
    watch = served.engine.drift
    return [] if watch._ladder is None else watch._records(watch._seen.detectors.alarm["watched"] > 0)
