"""Windows as an index over columns of bars: gathered per batch by the kernel that serves, never materialised."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numba import njit
from pydantic import ValidationError

from tickcast.batch.train.history import BarHistory, read_history
from tickcast.batch.train.members import Member, open_members, refuse_foreknowledge
from tickcast.batch.train.splits import OF_NEWS, TO_THE_END, SplitRows, split
from tickcast.columns import F32, F64, I64, Inputs
from tickcast.engine.core import windows
from tickcast.engine.core.features import FeatureSet
from tickcast.errors import BadData, BadSettings
from tickcast.io.jobs.orders import FitOrder
from tickcast.loop.signature import Signature, signature_of
from tickcast.records import FeatureSpec
from tickcast.scales import speeds
from tickcast.settings.engine import FeatureEntry


class Batch(NamedTuple):
    """Questions with their answers."""

    inputs: Inputs
    target: F32  # [B, H]: the move from the anchor, as a Runner gives it
    scale: F64  # [B]: the window's one-bar move, as `window.scale` has it


class Channels(NamedTuple):
    """What a model sees of every bar: feature values, laid out as the bars, and what they are."""

    values: F64  # [rows, F]; NaN where a feature's lookback is not there
    specs: list[FeatureSpec]  # of the channels after the first
    lookback: int  # bars that the longest-sighted channel reads


class Dataset:
    """The history of one order, with its feature values, its parts, and the members of a combination."""

    def __init__(
        self,
        history: BarHistory,
        channels: "Channels",
        parts: SplitRows,
        order: FitOrder,
        members: Sequence[Member] = (),
    ) -> None:
        self.history, self.parts, self.members = history, parts, members
        self._channels, self._order = channels, order
        self.values, self.specs = channels.values, channels.specs
        self.need_bars = need_bars(order, channels.lookback)
        self.lookback, self.horizon = order.lookback, order.horizon
        self.transform = windows.TRANSFORMS[order.transform]
        self.future_names = order.future
        self._places = np.empty((len(history.names), 0), np.float32)
        self._speeds = speeds(order.scale, order.lookback)
        self._ordinal = history.ordinal
        self._rule = _index_rule(order, self.need_bars, parts)

    def without_holdout(self) -> "Dataset":
        """The same bars with all other parts moved to their end: no figure can come of it."""
        of = self._order
        parts = split(
            self.history, kind=of.split, need_bars=self.need_bars, horizon=of.horizon, cuts=TO_THE_END,
            cut_from_ns=self.parts.cut_from_ns,
        )  # fmt: skip
        return Dataset(self.history, self._channels, parts, of, self.members)

    @property
    def digest(self) -> str:
        """SHA-256 over the bars, the rule that makes windows and parts of them, and the features with their versions.

        Equal digests mean equal windows with equal answers in equal parts.
        """
        said = {"bars": self.history.digest, "rule": self._rule, "features": self.specs, "future": self.future_names}
        return hashlib.sha256(msgspec.json.encode(said, order="sorted")).hexdigest()

    def batch(self, rows: I64) -> Batch:
        """The windows whose anchors are `rows`, just as live windows are gathered."""
        history = self.history
        target = np.empty((len(rows), self.horizon))
        _targets(history.bars.close, rows, self.transform, target)
        steps = rows[:, None] + np.arange(1, self.horizon + 1)
        inputs, _, scale = windows.gather_inputs(
            history.bars, self.values, history.symbol[rows], self._ordinal[rows], history.first[rows],
            lookback=self.lookback, transform=self.transform,
            future=windows.calendar_channels(history.bars.as_of[steps], self.future_names), speeds=self._speeds,
        )  # fmt: skip
        inputs = replace(inputs, static=self._places[history.symbol[rows]])
        return Batch(inputs, target.astype(np.float32), scale)

    def place(self, symbols: Sequence[str]) -> None:
        """From now on windows say where in this list their symbol is, as `Inputs.static` has it; empty = nothing."""
        known = {name: place for place, name in enumerate(symbols, 1)}
        places = [[known.get(name, 0)] if symbols else [] for name in self.history.names]
        self._places = np.array(places, np.float32).reshape(len(places), -1)

    def channel_statistics(self) -> tuple[F64, F64]:
        """Centre and spread [F - 1] of the channels after the first, over real bars of the training part."""
        usable = self.parts.is_train(self.history) & (self.history.bars.mask == 1)
        found = [_statistics(self.values[usable, 1 + i], spec.normalization) for i, spec in enumerate(self.specs)]
        both = np.array(found, np.float64).reshape(-1, 2)
        return both[:, 0], both[:, 1]

    def training_windows(self) -> tuple[I64, I64]:
        """Old ones, which the model saw that the fit begins with, where these are told apart; and news."""
        rows, seen_to_ns = self.parts.train, self.parts.cut_from_ns
        if not seen_to_ns:
            return rows[:0], rows
        is_old = self.history.bars.as_of[rows] <= seen_to_ns
        return rows[is_old], rows[~is_old]

    def told(self) -> dict[str, object]:
        """What the store keeps of it."""
        as_of = self.history.bars.as_of
        rule = {**self._rule, "features": self.specs, "future": self.future_names}
        return {
            "hash": self.digest, "rule": msgspec.to_builtins(rule), "symbols": len(self.history.names),
            "bars": len(self.history), "from_ns": int(as_of.min()), "to_ns": int(as_of.max()),
            "signature": msgspec.to_builtins(self.signature()),
        }  # fmt: skip

    def signature(self) -> Signature:
        """Of the training part: what is chosen by it may not know of the others."""
        return signature_of(self.history.closes().rows(self.parts.is_train(self.history)))

    def span_used(self) -> tuple[int, int]:
        """First and last event time of the bars that steered the fit: all parts before the hold-out."""
        as_of = self.history.bars.as_of
        used = np.arange(len(as_of)) < self.parts.edges[self.history.symbol, 3]
        return int(as_of.min()), int(as_of[used].max())


def _index_rule(order: FitOrder, need: int, parts: SplitRows) -> dict[str, object]:
    news = {name: ns for name in ("news_after_ns", "cut_from_ns") if (ns := getattr(parts, name))}
    return {
        "split": order.split, "cuts": parts.cuts, "transform": order.transform, "lookback": order.lookback,
        "need_bars": need, "horizon": order.horizon, "on_gap": _on_gap(order), **news,
    }  # fmt: skip


def _on_gap(order: FitOrder) -> str:
    return str(order.bars.get("on_gap", "carry"))


def need_bars(order: FitOrder, lookback: int) -> int:
    """Bars a symbol must have for a window whose every channel has its own lookback."""
    return order.lookback + lookback - 1


@njit(cache=True, nogil=True)
def _targets(close, rows, transform, out):  # type: ignore[no-untyped-def]
    for i in range(len(rows)):
        anchor = close[rows[i]]
        for h in range(out.shape[1]):
            price = close[rows[i] + 1 + h]
            out[i, h] = np.log(price / anchor) if transform == 0 else price - anchor


def _statistics(values: F64, normalization: str) -> tuple[float, float]:
    values = values[np.isfinite(values)]
    if normalization == "none" or not len(values):
        return 0.0, 1.0
    if normalization == "minmax":
        center, spread = values.min(), np.ptp(values)
    elif normalization == "robust":
        low, center, high = np.quantile(values, [0.25, 0.5, 0.75])
        spread = high - low
    else:
        values = np.sign(values) * np.log1p(np.abs(values)) if normalization == "log" else values
        center, spread = values.mean(), values.std()
    return float(center), float(spread) if spread > 0 else 1.0


def load_dataset(folder: Path, order: FitOrder, *, seen_to_ns: int = 0) -> Dataset:
    """Read the bars of a job folder, cut them into parts, and compute the deployment's features over them. The model
    that the fit begins with has seen bars up to `seen_to_ns`; what is told apart from them is cut by itself.
    """
    history = read_history(folder, on_gap=_on_gap(order))
    _check_prices(history.bars.close, order.transform)
    features = FeatureSet(_entries(order), order.transform)
    need = need_bars(order, features.lookback)
    parts = _parts(history, order, need, seen_to_ns)
    _refuse_look_ahead(features.specs, int(history.bars.as_of[parts.is_train(history)].max()))
    if order.split == "paper":
        history = standardised(history, parts)
    members = open_members(folder, order, features.specs)
    refuse_foreknowledge(members, int(history.bars.as_of[parts.holdout].min()))
    values = features.compute(history.bars, history.symbol, history.ordinal, history.first)
    return Dataset(history, Channels(values, features.specs, features.lookback), parts, order, members)


def _parts(history: BarHistory, order: FitOrder, need: int, seen_to_ns: int) -> SplitRows:
    own: dict[str, Any] = {"kind": order.split, "need_bars": need, "horizon": order.horizon, "seen_to_ns": seen_to_ns}
    if not order.tells_news:
        return split(history, **own)
    begin, end = int(history.bars.as_of.min()), int(history.bars.as_of.max())
    if begin < seen_to_ns < end:
        parts = split(history, cuts=OF_NEWS, cut_from_ns=seen_to_ns, **own)
        if (history.bars.as_of[parts.train] > seen_to_ns).any():
            return parts
    raise BadData(
        "start: the bars must hold some that the model saw which the fit begins with, and news",
        remedy="give all bars up to the newest, and a model that was fitted on a part of them",
    )


def _entries(order: FitOrder) -> list[FeatureEntry]:
    try:
        return [FeatureEntry.model_validate(entry) for entry in order.features]
    except ValidationError as error:
        raise BadSettings(f"the order's features are malformed: {error}") from None


def _refuse_look_ahead(specs: list[FeatureSpec], trained_to_ns: int) -> None:
    """A feature that was learnt from later parts would let the model see what those parts are to judge it by."""
    for spec in specs:
        if (learnt_to_ns := int(spec.params.get("learnt_to_ns", 0))) > trained_to_ns:
            raise BadData(
                f"the feature '{spec.kind}' was learnt from bars up to {learnt_to_ns} ns since 1970, "
                f"the training part ends at {trained_to_ns}",
                remedy="learn it from this history: `tickcast learn` stops where the training part ends",
            )


def _check_prices(close: F64, transform: str) -> None:
    if not np.isfinite(close).all():
        raise BadData("a close is not finite")
    if transform == "log_return" and not (close > 0).all():
        raise BadData("log_return needs positive prices", remedy="set forecast.transform = difference or level")


def standardised(history: BarHistory, parts: SplitRows) -> BarHistory:
    """Each series by mean and standard deviation of its training part, as the literature's figures are given."""
    close, begins, ends = history.bars.close, parts.edges[:, 0], parts.edges[:, 1]
    mean = np.array([close[a:b].mean() for a, b in zip(begins, ends, strict=True)])
    deviation = np.array([close[a:b].std() for a, b in zip(begins, ends, strict=True)])
    return history.with_prices(mean, np.where(deviation > 0, deviation, 1.0))
