"""Settings of what the engine asks and how it scores: windows, forecasts, models, features, scores, widening."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from tickcast.scales import Scale
from tickcast.settings.section import Natural, Positive, Section

Level = Annotated[float, Field(gt=0.0, lt=1.0)]


class WindowSettings(Section):
    lookback: Positive = 96
    """Bars that a model sees."""
    scale: Scale = "rms"
    """What a window is measured in: the root mean square of its moves, or a forecast of the next one's size."""


class ForecastSettings(Section):
    horizon: Positive = 12
    """Bars ahead, direct for each step."""
    every_bars: Positive = 1
    """Ask a question each so many bars."""
    quantiles: list[Level] = [0.05, 0.25, 0.5, 0.75, 0.95]
    """Levels that are forecast; ascending, the median among them."""
    transform: Literal["log_return", "difference", "level"] = "log_return"
    """What the model works in; log_return refuses prices that are not positive."""
    overload: Literal["process", "conflate", "skip"] = "process"
    """Under load: answer every question, only the newest of each symbol, or none past `deadline_ms`."""
    deadline_ms: Positive = 1000
    """With overload `skip`: a question older than this is counted and not asked."""
    expires_bars: Positive = 1
    """A forecast expires this many bars after its as_of (time bars)."""


class ModelSettings(Section):
    default: str = "naive"
    """A rung (naive, seasonal, holt), a model folder, or `none`: then no questions open."""
    ladder: list[Literal["naive", "seasonal", "holt"]] = ["naive"]
    """Who answers, in this order, for a symbol with too few bars for the default model."""
    season_bars: Positive = 24
    """Length of the season of the seasonal naive rung."""


class FeatureEntry(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    kind: str
    """Name of the feature plugin; the entry's other keys are its parameters."""
    normalization: Literal["none", "zscore", "minmax", "robust", "log"] = "none"
    """How the model scales the channel."""


class FeatureSettings(Section):
    publish: bool = False
    """Publish the feature vector of every forecast.every_bars-th bar."""
    set: list[FeatureEntry] = []
    """`[[features.set]]` entries: kind, its parameters, and how the model scales it."""
    future: list[Literal["time_of_day", "day_of_week"]] = []
    """Calendar of the target bars, known in advance (time bars)."""


class ScoreSettings(Section):
    horizons: list[Positive] = []
    """Scored horizons; empty = 1, 2, 4, 8, ... and the last."""
    window_bars: Positive = 500
    """Label bars in the rolling figures."""
    adapt_every_bars: Positive = 256
    """Settled bars between two adaptation marks, for tick and volume bars."""
    publish_every_s: Annotated[float, Field(gt=0)] = 5.0
    """How often accuracy is published."""
    postmortems_a_day: Natural = 1000
    """Rows of the table `postmortems` for one day of event time, at most: the worst of each stretch; 0 keeps none."""


class UncertaintySettings(Section):
    enabled: bool = True
    """Widen the model's quantiles online until their coverage is true."""
    gamma: Annotated[float, Field(ge=0, le=0.5)] = 0.01
    """Step of the adaptive miss rate of one bar ahead; of h bars ahead it is an h-th."""
    memory_bars: Positive = 500
    """Label bars that the conformal scores of one bar ahead remember; of h bars ahead they remember h times as many."""
    max_widening: Annotated[float, Field(gt=0)] = 20.0
    """Bound on how far a quantile may be moved, in one-bar moves times the root of the step."""


class DriftSettings(Section):
    enabled: bool = True
    """Watch coverage, skill, and with a model that has a reference its inputs, and raise alarms of drift."""
    mean_bars_between_false_alarms: Annotated[int, Field(ge=100, le=10**9)] = 10_000
    """Of each family of a partition, at least, while nothing has changed."""
    cooldown_bars: Natural = 500
    """An alarm goes on for so many bars after the evidence last sufficed."""
    hysteresis: Annotated[float, Field(gt=0, le=1)] = 0.5
    """After that it ends once the evidence is at most this part of what raises it."""


class InferenceSettings(Section):
    bias_correction: bool = False
    """Shift quantiles by what the points of their model were off of late; only where that is surely no chance, and with
    `uncertainty.enabled`."""
    tile: Positive = 2048
    """Questions per call on CPU."""
    core_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """A model that would keep more of a core busy at today's rate of questions is not promoted."""
    shadow_share: Annotated[float, Field(gt=0, le=1)] = 0.25
    """So much of a core one may take that answers beside those that serve; over it, it answers in every n-th block."""
