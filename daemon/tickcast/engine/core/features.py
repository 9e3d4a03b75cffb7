"""The deployment's features: plugins built from settings, asked for the bars just closed. It knows no feature by name.

Channel 0 is the target's own; the others follow in the order of the settings.
"""

import hashlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from tickcast import plugin
from tickcast.columns import F64, I32, I64, Bars
from tickcast.engine.core import windows
from tickcast.errors import BadOutput, BadSettings, TickcastError
from tickcast.records import FeatureSpec
from tickcast.settings.engine import FeatureEntry

TARGET = "target"
OnFailure = Callable[[str, BadOutput], None]


@dataclass(frozen=True, slots=True)
class _Part:
    """One entry of the settings: its plugin and the columns that it fills."""

    kind: str
    feature: plugin.Feature
    columns: slice


class FeatureSet:
    """All channels of a deployment. `specs` describe those after the first, with every parameter spelled out."""

    def __init__(self, entries: Sequence[FeatureEntry], transform: str) -> None:
        self._transform = windows.TRANSFORMS[transform]
        self._target_lookback = windows.target_lookback(self._transform)
        self.names: list[str] = [TARGET]
        self.specs: list[FeatureSpec] = []
        self.lookback = self._target_lookback
        self._parts: list[_Part] = []
        for entry in entries:
            self._add(entry)
        described = msgspec.json.encode([transform, self.specs], order="sorted")
        self.digest = hashlib.sha256(described).hexdigest()

    def _add(self, entry: FeatureEntry) -> None:
        feature, params = _build(entry)
        together = [*self.names, *feature.names]
        if repeated := sorted({name for name in feature.names if together.count(name) > 1}):
            raise BadSettings(
                f"features.set: '{entry.kind}' gives a channel that is there already: {', '.join(repeated)}",
                remedy="remove one of the entries, or change its parameters",
            )
        columns = slice(len(self.names), len(self.names) + len(feature.names))
        self._parts.append(_Part(entry.kind, feature, columns))
        self.names += feature.names
        self.lookback = max(self.lookback, feature.lookback)
        scaling, version = entry.normalization, feature.version
        self.specs += [
            FeatureSpec(name=name, kind=entry.kind, version=version, params=params, normalization=scaling)
            for name in feature.names
        ]

    def compute(self, bars: Bars, symbol: I32, ordinal: I64, first: I64, *, on_failure: OnFailure | None = None) -> F64:
        """All channels [n, F] of the bars `ordinal`; NaN where a symbol, oldest bar `first`, lacks a lookback.

        What a plugin fails to give is raised as BadOutput, or told to `on_failure` and left NaN.
        """
        values = np.full((len(symbol), len(self.names)), np.nan)
        bars_there = ordinal - first + 1
        rows = _warm(bars_there, self._target_lookback)
        target = np.empty(len(symbol[rows]))
        windows.target_channel(bars, symbol[rows], ordinal[rows], self._transform, target)
        values[rows, 0] = target
        for part in self._parts:
            rows = _warm(bars_there, part.feature.lookback)
            try:
                values[rows, part.columns] = _ask(part, bars, symbol[rows], ordinal[rows])
            except BadOutput as failure:
                if on_failure is None:
                    raise
                on_failure(part.kind, failure)
        return values


def _warm(bars_there: I64, lookback: int) -> I64 | slice:
    """The rows that have their lookback; nearly always all of them, and then nothing is copied."""
    enough = bars_there >= lookback
    return slice(None) if enough.all() else np.flatnonzero(enough)


def _ask(part: _Part, bars: Bars, symbol: I32, ordinal: I64) -> F64:
    """The plugin's values, checked: what it gives unasked, wrongly or not at all must not reach a model."""
    out = np.full((len(symbol), len(part.feature.names)), np.nan)
    try:
        part.feature.compute(bars, symbol, ordinal, out)
    except Exception as error:  # a foreign plugin may raise anything
        raise BadOutput(f"the feature '{part.kind}' failed: {error!r}") from error
    finite = np.isfinite(out)
    if not finite.all():
        name = part.feature.names[int(finite.all(axis=0).argmin())]
        raise BadOutput(f"the feature '{part.kind}' gave a value of {name} that is not finite")
    return out


def _build(entry: FeatureEntry) -> tuple[plugin.Feature, dict[str, Any]]:
    """The plugin of one entry, and its parameters with the defaults spelled out, as a model's card keeps them."""
    given = dict(entry.model_extra or {})
    factory = plugin.find("features", entry.kind)
    signature = inspect.signature(factory)
    known = list(signature.parameters)
    try:
        bound = signature.bind(**given)
    except TypeError as error:
        raise BadSettings(
            f"features.set: '{entry.kind}' {error}", remedy=f"its parameters: {', '.join(known) or 'none'}"
        ) from None
    bound.apply_defaults()
    try:
        feature: plugin.Feature = factory(**given)
        params = msgspec.json.decode(msgspec.json.encode(bound.arguments, order="sorted"))
    except TickcastError as error:
        raise BadSettings(f"features.set: '{entry.kind}': {error}") from error
    except Exception as error:  # a foreign plugin may raise anything
        raise BadSettings(f"features.set: '{entry.kind}' cannot be built: {error!r}") from error
    return feature, params
