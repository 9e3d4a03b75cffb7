"""Kinds that forecast how widely prices will move, not where to: last value is the point, and the quantiles are those
of the moves over the spread that was forecast, as they lay in the training part. The spread of h bars is a function of
means of the window's squared moves at several speeds, in units of the slowest, so one model serves every symbol.

EWMA is one mean. HAR is a regression of the logarithm of what the next h bars realised, with an hour's season; on the
bars' own ranges instead of their moves it is `realised_range`.
"""

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import numpy as np
from msgspec import Meta

from tickcast.columns import F32, F64
from tickcast.errors import BadSettings
from tickcast.figures import pinball
from tickcast.plugin import Parameter, Report
from tickcast.records import ModelCard
from tickcast_plugins.models.classical import Arrays, RowModel, RowSample
from tickcast_plugins.models.onnx_graph import Graph
from tickcast_plugins.models.spread_terms import SLOTS, SpreadTerms, keep_of

STEP = "step.onnx"
TRUST = (np.inf, 3_000.0, 1_000.0, 300.0, 100.0)  # moves that what all have in common is worth, beside a symbol's own
STOOD_STILL = 0.02  # of a usual move: what a bar without one counts as, for its logarithm
PENALTY = 1e-4  # of a squared weight, per window
DAYS, WEEKS = 6, 3  # harmonics of the season

Span = Annotated[int, Meta(ge=1, le=4096)]
Spans = Annotated[list[Span], Meta(min_length=1, max_length=16)]


class VolatilityParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`model_params` of a card."""

    spans: Spans = msgspec.field(default_factory=lambda: [2, 8, 24, 72, 168])
    rows: Annotated[int, Meta(ge=100, le=1_000_000)] = 100_000
    per_symbol: bool = True  # each symbol's spread may be somewhat wider or narrower than the others'
    mode: Literal["window", "step"] = "window"


class OneSpeedParams(VolatilityParams, frozen=True, forbid_unknown_fields=True):
    """`model_params` of a card. Of the spans the validation part chooses one."""

    spans: Spans = msgspec.field(default_factory=lambda: [6, 12, 24, 34, 48, 68])


class RangeParams(VolatilityParams, frozen=True, forbid_unknown_fields=True):
    """`model_params` of a card."""

    of: Literal["parkinson", "garman_klass"] = "parkinson"  # the feature that it reads


class Volatility(RowModel):
    """A spread for each step, times quantiles that hold for every window."""

    params_type = VolatilityParams
    space: ClassVar = {"rows": Parameter("int", 20_000, 200_000, log=True)}  # its fit finds the rest itself
    reads_channels = False
    falls = False  # whether falls tell more than rises

    def __init__(self, card: ModelCard) -> None:
        super().__init__(card)
        if self.params.mode == "step" and card.transform == "level":
            raise BadSettings(
                f"{self.kind}: a step reads moves, and a level is none",
                remedy="set forecast.transform = difference: it forecasts the same moves; or mode = window",
            )

    @abstractmethod
    def estimate(self, train: RowSample, report: Report) -> Arrays:
        """The arrays that `spread` reads."""

    @abstractmethod
    def spread(self, x: F32) -> F64:
        """[N, H]: of the moves after the rows `x`."""

    @abstractmethod
    def spread_nodes(self, g: Graph, x: str) -> str:
        """As `spread`, in the graph."""

    @property
    def channel(self) -> int:
        """What the means are of."""
        return 0

    @property
    def calendar(self) -> str:
        """Whose hours have a season."""
        return ""

    def fit(self, dataset: Any, report: Report) -> None:
        names = dataset.history.names if self.params.per_symbol and len(dataset.history.names) > 1 else []
        self.card = msgspec.structs.replace(self.card, symbols=names)
        dataset.place(names)
        super().fit(dataset, report)
        if names:
            self.note(f"{self.arrays['trust'][0]:g} moves of a symbol weigh as much as what all have in common")

    def learn(self, train: RowSample, validation: RowSample, report: Report) -> Arrays:
        self.arrays |= {"own": np.zeros((len(self.card.symbols) + 1, self.card.horizon))}
        self.arrays |= self.estimate(train, report)
        self.arrays["widths"] = self.widths(train)
        return self.shrunk(train, validation) if self.card.symbols else self.arrays

    def shrunk(self, train: RowSample, validation: RowSample) -> Arrays:
        """With each symbol's own part of the spread, as far as the validation part trusts it."""
        own, least, best = self.own(train), np.inf, Arrays()
        for trust in TRUST:
            self.arrays |= {"own": own(trust), "trust": np.array([trust])}
            self.arrays["widths"] = self.widths(train)
            if (loss := self.loss(validation)) < least:
                least, best = loss, {**self.arrays}
        return best

    def own(self, train: RowSample) -> Callable[[float], F64]:
        """Logarithms [symbols + 1, H] of how much further a symbol's moves go than its spread, shrunk as if so many
        moves had gone just as far; of overlapping ones, h count as one.
        """
        size = np.abs(train.y) / self.spreads(train.x)
        places, symbols = self.layout().places(train.x), len(self.card.symbols) + 1
        sums = np.stack([np.bincount(places, step, minlength=symbols) for step in size.T], axis=1)
        counts = np.bincount(places, minlength=symbols)[:, None]
        logs = np.where(counts > 0, np.log(np.maximum(sums, 1e-12) / np.maximum(counts, 1) / size.mean(axis=0)), 0.0)
        alone = counts / np.arange(1, self.card.horizon + 1)
        return lambda trust: logs * (alone / (alone + trust) if np.isfinite(trust) else 0.0)

    def loss(self, part: RowSample) -> float:
        """Mean pinball loss, every step in its own random walk's unit."""
        said = self.spreads(part.x)[:, :, None] * self.arrays["widths"]
        by_step = pinball(np.array(self.card.levels), said, part.y).mean(axis=0)
        return float((by_step / np.sqrt(np.arange(1, len(by_step) + 1))).mean())

    def spreads(self, x: F32) -> F64:
        """[N, H]: with what is a symbol's own."""
        spread: F64 = self.spread(x) * np.exp(self.arrays["own"][self.layout().places(x)])
        return spread

    def widths(self, train: RowSample) -> F32:
        """[H, Q]: quantiles of moves over their spreads; the median is last value."""
        found = np.quantile(train.y / self.spreads(train.x), self.card.levels, axis=0).T
        median = self.card.levels.index(0.5)
        widths: F32 = (found - found[:, median : median + 1]).astype(np.float32)
        return widths

    def quantiles(self, x: F32) -> F32:
        found: F32 = self.spreads(x).astype(np.float32)[:, :, None] * self.arrays["widths"]
        return found

    def answer_nodes(self, g: Graph, x: str) -> tuple[str, str]:
        return self.scaled_nodes(g, x, g.constant([1.0]))

    def scaled_nodes(self, g: Graph, x: str, scale: str) -> tuple[str, str]:
        """The spread is multiplied, which has one number where the quantiles have as many as there are levels."""
        spread = g.add("Mul", self.spread_nodes(g, x), scale)
        if self.card.symbols:
            place = g.add("Gather", g.cast("static", np.int64), g.constant(0, np.int64), axis=1)
            spread = g.add("Mul", spread, g.add("Gather", g.constant(np.exp(self.arrays["own"])), place, axis=0))
        spread = g.add("Unsqueeze", spread, g.constant([2], np.int64))
        return g.add("Mul", spread, g.constant(self.arrays["widths"])), ""

    def fits(self, arrays: Arrays) -> bool:
        horizon = self.card.horizon
        wanted = {"widths": (horizon, len(self.card.levels)), "own": (len(self.card.symbols) + 1, horizon)}
        return all(name in arrays and arrays[name].shape == shape for name, shape in wanted.items())

    def save(self, folder: Path) -> None:
        super().save(folder)
        if self.params.mode == "step":
            g, terms = Graph(), self.layout()
            after, x, scale = terms.step_nodes(g)
            quantiles, _ = self.scaled_nodes(g, x, scale)
            (folder / STEP).write_bytes(g.step(self.card, terms.state, after, quantiles))

    def layout(self) -> SpreadTerms:
        keep = self.arrays.get("keep", keep_of(self.params.spans, self.card.lookback))
        return SpreadTerms(self.card, keep, self.channel, self.falls, self.calendar)


class OneSpeed(Volatility):
    """One mean beside the slowest: the fit is tried at every speed, and the validation part chooses."""

    params_type = OneSpeedParams

    def learn(self, train: RowSample, validation: RowSample, report: Report) -> Arrays:
        terms, least, best = self.layout(), np.inf, Arrays()
        for speed in range(len(terms.keep) - 1):
            own, other = (part._replace(x=part.x[:, terms.columns(speed)]) for part in (train, validation))
            self.arrays["keep"] = terms.keep[[speed, -1]]
            self.arrays |= super().learn(own, other, report)
            loss = self.loss(other)
            report(step=speed + 1, steps=len(terms.keep) - 1, validation_loss=loss)
            if loss < least:
                least, best = loss, {**self.arrays}
        self.note(f"a mean over {2 / (1 - best['keep'][0]) - 1:.0f} bars{self.told(best)}")
        return best

    def told(self, arrays: Arrays) -> str:
        """What else a reader of the card is told."""
        return ""


class EwmaVol(OneSpeed):
    """The mean itself."""

    kind = "ewma_vol"

    def estimate(self, train: RowSample, report: Report) -> Arrays:
        return {}

    def spread(self, x: F32) -> F64:
        return np.repeat(np.exp(x[:, :1].astype(np.float64)), self.card.horizon, axis=1)

    def spread_nodes(self, g: Graph, x: str) -> str:
        return g.add("Exp", g.add("Mul", x, g.constant(np.ones(self.card.horizon))))


class Har(Volatility):
    """The logarithm of what the next h bars realise, from those of the means and the hour of the week."""

    kind = "har"

    @property
    def calendar(self) -> str:
        """The longer season, where the window has a calendar."""
        return next((name for name in SLOTS if name in self.card.future), "")

    def estimate(self, train: RowSample, report: Report) -> Arrays:
        terms = self.layout()
        season = seasons(SLOTS.get(self.calendar, 1))
        design = np.concatenate([train.x[:, : terms.width], season[terms.hours(train.x)]], axis=1)
        penalty = np.full(design.shape[1], PENALTY * len(design))
        penalty[terms.width] = 0.0  # of the constant
        gram = design.T @ design + np.diag(penalty)
        found = np.linalg.solve(gram, design.T @ realised(train.y))
        self.note(f"{len(penalty)} weights a step, season of {len(season)} hours")
        return {"weights": found[: terms.width], "season": season @ found[terms.width :]}

    def spread(self, x: F32) -> F64:
        terms = self.layout()
        logs = x[:, : terms.width].astype(np.float64) @ self.arrays["weights"]
        spread: F64 = np.exp(logs + self.arrays["season"][terms.hours(x)])
        return spread

    def spread_nodes(self, g: Graph, x: str) -> str:
        logs, season = g.add("MatMul", x, g.constant(self.arrays["weights"])), g.constant(self.arrays["season"])
        if self.calendar:
            season = g.add("Gather", season, self.layout().hour_node(g), axis=0)
        return g.add("Exp", g.add("Add", logs, season))


class RealisedRange(Har):
    """As HAR, from how far every bar reached instead of how far it went."""

    kind = "realised_range"
    params_type = RangeParams

    def __init__(self, card: ModelCard) -> None:
        super().__init__(card)
        if card.transform != "log_return" or self.params.of not in [spec.kind for spec in card.features]:
            raise BadSettings(
                f"{self.kind}: it reads the feature '{self.params.of}', in log returns",
                remedy=f'add {{kind = "{self.params.of}"}} to features.set; forecast.transform is log_return',
            )

    @property
    def channel(self) -> int:
        return 1 + [spec.kind for spec in self.card.features].index(self.params.of)


def realised(y: F64) -> F64:
    """[N, H]: half the logarithm of the mean squared one-bar move up to each step, of moves [N, H] from the anchor."""
    squares = np.diff(y, axis=1, prepend=0.0) ** 2
    means = squares.cumsum(axis=1) / np.arange(1, y.shape[1] + 1)
    found: F64 = 0.5 * np.log(means + STOOD_STILL**2)
    return found


def seasons(hours: int) -> F64:
    """[hours, K]: a constant, and harmonics of the day, of the week, and their products."""
    of_week = hours > 24
    days = [day * (7 if of_week else 1) for day in range(1, DAYS + 1)] if hours > 1 else []
    weeks = range(1, WEEKS + 1) if of_week else range(0)
    beats = {*days, *weeks, *(abs(day + sign * week) for day in days for week in weeks for sign in (1, -1))}
    phase = 2 * np.pi * (np.arange(hours)[:, None] + 0.5) / hours * np.array(sorted(beats), np.float64)
    return np.concatenate([np.ones((hours, 1)), np.sin(phase), np.cos(phase)], axis=1)
