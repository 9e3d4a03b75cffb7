"""Every setting, its default and its bounds. Files < environment < command line; unknown keys are refused.

Defaults live here alone: config/default.toml repeats them with comments, and a test compares the two.
"""

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from tickcast.errors import BadSettings
from tickcast.settings import names as setting_names
from tickcast.settings import slots as slot_paths
from tickcast.settings.buses import (
    YEAR_MS,
    BusSettings,
    KafkaSettings,
    MqttSettings,
    Positive,
    Section,
    Span,
    TopicSettings,
)
from tickcast.settings.work import ControlSettings, JobSettings, LogSettings, RegistrySettings

Level = Annotated[float, Field(gt=0.0, lt=1.0)]


class Fields(Section):
    symbol: str = "symbol"
    """JSON field or column that holds the symbol."""
    ts: str = "ts"
    """Field of the event time; numbers are in `codec.time_unit`, strings are RFC 3339."""
    price: str = "price"
    """Field of the trade price."""
    size: str = "size"
    """Field of the traded size; a feed without one counts 0."""
    bid: str = "bid"
    """Field of the best bid; with `ask` it makes a quote whose price is the mid."""
    ask: str = "ask"
    """Field of the best ask."""
    sequence: str = ""
    """Field of a per-symbol sequence number; mapped, it is what duplicates are recognised by."""
    open: str = "open"
    """Column of a bar file: open."""
    high: str = "high"
    """Column of a bar file: high."""
    low: str = "low"
    """Column of a bar file: low."""
    close: str = "close"
    """Column of a bar file: close."""
    volume: str = "volume"
    """Column of a bar file: volume."""


class CodecTopic(Section):
    kind: Literal["json", "arrow", "packed"] | None = None
    """Codec of this topic."""
    preset: Literal["default", "binance-trade", "binance-bookticker", "coinbase-match", "kraken-trade"] | None = None
    """Preset of this topic."""
    time_unit: Literal["s", "ms", "us", "ns"] | None = None
    """Time unit of this topic."""
    symbol_prefix: str | None = None
    """Symbol prefix of this topic."""
    max_message_bytes: Positive | None = None
    """Longest message of this topic."""
    fields: Fields | None = None
    """Field names of this topic."""


class CodecSettings(Section):
    kind: Literal["json", "arrow", "packed"] = "json"
    """How a message holds ticks: one JSON object, an Arrow IPC stream, or packed fixed-width records."""
    preset: Literal["default", "binance-trade", "binance-bookticker", "coinbase-match", "kraken-trade"] = "default"
    """Shape of the JSON of a known feed; `default` takes the names of `codec.fields`."""
    time_unit: Literal["s", "ms", "us", "ns"] = "ns"
    """Unit of numeric event times."""
    symbol_prefix: str = ""
    """Put before every symbol, so that two venues do not share a name."""
    layout: Literal["long", "wide"] = "long"
    """Shape of a data file: `long` has a symbol column, `wide` has one column per series."""
    max_message_bytes: Positive = 1 << 20
    """Longer messages are refused unread."""
    fields: Fields = Fields()
    topics: dict[str, CodecTopic] = {}
    """`[codec.topics."NAME"]` overrides any codec key for one topic, but `layout`, which is of files."""


class QualitySettings(Section):
    future_ms: Span = 60_000
    """A tick further ahead of its record's broker timestamp is refused; 0 = off."""
    ahead_ms: Span = 60_000
    """A tick further ahead of the daemon's own clock is refused; 0 = off. A replay asks no clock."""
    ancient_ms: Span = 0
    """A tick further behind its record's broker timestamp is refused; 0 = off."""
    max_jump_ms: Span = 0
    """A tick further beyond the watermark waits for another to confirm it; 0 = the larger of 1 h and 100 bars."""
    crossed: Literal["accept", "reject"] = "accept"
    """What happens to a quote whose bid is above its ask; it is counted either way."""
    outlier_sigmas: Annotated[float, Field(ge=0)] = 0.0
    """A tick further from its symbol's last price than this many one-tick moves is refused; 0 = off."""


class BarSettings(Section):
    kind: Literal["time", "tick", "volume"] = "time"
    """What closes a bar."""
    every_ms: Annotated[int, Field(gt=0, le=YEAR_MS)] = 1000
    """Length of a time bar."""
    every_ticks: Positive = 1
    """Ticks in a tick bar; 1 makes each tick a step."""
    every_size: Annotated[float, Field(gt=0)] = 1.0
    """Traded size that closes a volume bar."""
    lateness_ms: Annotated[int, Field(ge=0, le=YEAR_MS)] = 0
    """How long a time bar waits for stragglers; for tick and volume bars, how old a tick may be."""
    idle_ms: Span = 0
    """A partition silent for this long gets a heartbeat that closes its time bars; 0 = off."""
    on_gap: Literal["carry", "join", "cold"] = "carry"
    """What missing time bars become: carried closes, nothing (the next bar is flagged), or a fresh start."""
    calendar: str = "24x7"
    """`24x7`, or a TOML file of trading hours and holidays: closed time makes no bars."""
    adjustments: Path | None = None
    """CSV or Parquet with symbol, ts and factor: splits, applied in live and training alike."""
    history: Path | None = None
    """Ticks or bars that fill windows and store before the first live tick."""


class WindowSettings(Section):
    lookback: Positive = 96
    """Bars that a model sees."""


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


class UncertaintySettings(Section):
    enabled: bool = True
    """Widen the model's quantiles online until their coverage is true."""
    gamma: Annotated[float, Field(ge=0, le=0.5)] = 0.01
    """Step of the adaptive miss rate of one bar ahead; of h bars ahead it is an h-th."""
    memory_bars: Positive = 500
    """Label bars that the conformal scores of one bar ahead remember; of h bars ahead they remember h times as many."""
    max_widening: Annotated[float, Field(gt=0)] = 20.0
    """Bound on how far a quantile may be moved, in one-bar moves times the root of the step."""


class StoreSettings(Section):
    path: Path = Path("tickcast.duckdb")
    """The DuckDB file; its lock file and its archive of Parquet stand beside it. `{slot}` in its folder, in
    `store.archive`, `snapshot.folder` and `runtime.folder` becomes the number of the slot."""
    bars: Literal["all", "none"] = "all"
    """Whether closed bars are stored."""
    forecasts: Literal["all", "sample", "none"] = "all"
    """Whether forecasts and scores are stored; `sample` keeps one in `sample_every`."""
    sample_every: Positive = 16
    """With forecasts = sample."""
    unit_ms: Positive = 200
    """A commit unit is closed after this long,"""
    unit_bytes: Positive = 16 << 20
    """or at this size."""
    max_units_behind: Positive = 8
    """Open commit units at which fetching stops."""
    keep_days: Positive = 7
    """Days that stay in the database; older ones move to Parquet."""
    archive: Path | None = None
    """Folder of the Parquet archive; default: `archive` beside the database."""
    memory_bytes: Positive = 256 << 20
    """DuckDB's memory limit; it keeps what it wrote up to this."""
    query_rows: Positive = 10_000
    """Rows that `tickcast query` returns at most."""
    query_timeout_s: Positive = 30
    """Time that one query may take."""


class SymbolSettings(Section):
    limit: Positive = 20_000
    """Symbols that are known at once; when all places are taken, a new symbol gets that of the longest silent one."""
    silent_ms: Span = 3_600_000
    """Silence, in event time, after which a symbol may lose its place to a new one; 0 = never. One that has not closed
    a second bar may lose it after a minute."""
    new_per_minute: Annotated[int, Field(ge=0)] = 1000
    """Places that pass to new symbols within a minute of event time, at most; 0 = none. Places that nobody had yet
    do not count."""
    groups: dict[str, list[str]] = {}
    """Group name -> symbol patterns (`BTC*`); scores and widening are kept per group. The rest is `all`."""


class InferenceSettings(Section):
    tile: Positive = 2048
    """Questions per call on CPU."""
    core_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """A model that would keep more of a core busy at today's rate of questions is not promoted."""


class SnapshotSettings(Section):
    every_s: Positive = 10
    """How often the engine's state is saved, so that a restart goes on from it (Kafka, static slots)."""
    folder: Path | None = None
    """Where; default: `snapshots` beside the store."""


class RuntimeSettings(Section):
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where models run: `auto` takes the CPU, and so far no model runs elsewhere, so `cuda` is refused."""
    deterministic: bool = False
    """Bit-equal outputs whatever the chunks: one batch per closing tick and partition, padded; slower."""
    memory_bytes: Positive = 8 << 30
    """`check` refuses settings whose state would be larger."""
    max_wait_s: Positive = 300
    """How long a waiting state (store unreachable) may last before the daemon exits."""
    heartbeat_s: Annotated[float, Field(gt=0)] = 30.0
    """How often a line of log says how the daemon does, and warns where most ticks were refused or late."""
    turn_limit_s: Annotated[float, Field(ge=0.1, le=86_400)] = 60.0
    """A turn of the engine that takes longer ends the process; the next starts find the message that does it."""
    folder: Path = Path(".tickcast")
    """Where the query socket, job folders and the note of the last turn live."""
    drain_s: Positive = 30
    """Time that a drain may take."""


class Settings(BaseSettings):
    """The whole tree. Build it with `load`, which turns every mistake into one readable refusal."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix="TICKCAST_", env_nested_delimiter="__", use_attribute_docstrings=True
    )

    bus: BusSettings = BusSettings()
    topics: TopicSettings = TopicSettings()
    kafka: KafkaSettings = KafkaSettings()
    mqtt: MqttSettings = MqttSettings()
    codec: CodecSettings = CodecSettings()
    quality: QualitySettings = QualitySettings()
    bars: BarSettings = BarSettings()
    window: WindowSettings = WindowSettings()
    forecast: ForecastSettings = ForecastSettings()
    model: ModelSettings = ModelSettings()
    features: FeatureSettings = FeatureSettings()
    score: ScoreSettings = ScoreSettings()
    uncertainty: UncertaintySettings = UncertaintySettings()
    store: StoreSettings = StoreSettings()
    symbols: SymbolSettings = SymbolSettings()
    inference: InferenceSettings = InferenceSettings()
    registry: RegistrySettings = RegistrySettings()
    control: ControlSettings = ControlSettings()
    jobs: JobSettings = JobSettings()
    snapshot: SnapshotSettings = SnapshotSettings()
    runtime: RuntimeSettings = RuntimeSettings()
    log: LogSettings = LogSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)  # `load` merges the layers itself, to know where each value came from

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        levels = self.forecast.quantiles
        if sorted(set(levels)) != levels or 0.5 not in levels:
            raise ValueError("forecast.quantiles must be ascending, without repeats, and hold 0.5")
        if any(h > self.forecast.horizon for h in self.score.horizons):
            raise ValueError("score.horizons may not reach beyond forecast.horizon")
        furthest_ms = self.bars.every_ms * max(self.forecast.horizon, self.forecast.expires_bars)
        if self.bars.kind == "time" and furthest_ms > 100 * YEAR_MS:
            raise ValueError("forecast.horizon and forecast.expires_bars may not reach beyond 100 years of bars")
        if self.features.future and self.bars.kind != "time":
            raise ValueError("features.future needs bars.kind = time: other bars have no known target time")
        if self.bars.calendar != "24x7" and self.bars.kind != "time":
            raise ValueError("bars.calendar needs bars.kind = time")
        if self.runtime.device == "cuda":
            raise ValueError("runtime.device cuda: no model runs on a GPU here; set auto or cpu")
        if self.control.keys_file is not None and self.bus.kind == "mqtt":
            raise ValueError("control.keys_file needs bus.kind = kafka: MQTT carries no commands")
        slot_paths.refuse_shared(self)
        return self

    def scored_horizons(self) -> list[int]:
        horizon = self.forecast.horizon
        if self.score.horizons:
            return sorted(set(self.score.horizons))
        return sorted({h for h in (1 << k for k in range(20)) if h < horizon} | {horizon})


Origins = dict[str, str]  # "section.key" -> where its value came from


def load(
    files: list[Path] | None = None, overrides: dict[str, str] | None = None, environ: dict[str, str] | None = None
) -> tuple[Settings, Origins]:
    """Merge files, environment and `section.key = value` overrides, later ones winning, and validate the whole."""
    merged: dict[str, Any] = {}
    origins: Origins = {}
    for file in files or []:
        _merge(merged, _read(file), origins, str(file))
    environment = dict(os.environ if environ is None else environ)
    _merge(merged, _from_environment(environment), origins, "environment")
    for dotted, text in (overrides or {}).items():
        _merge(merged, _nested(dotted.split("."), parse(text)), origins, "command line")
    wrong = setting_names.misspelt(environment, Settings)
    try:
        settings = slot_paths.of_its_slot(Settings(**merged))
    except ValidationError as error:
        wrong = [*setting_names.explain(error, origins, Settings), *wrong]
    if wrong:
        raise BadSettings("; ".join(wrong), remedy="`tickcast check` prints every setting")
    return settings, origins


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except OSError as error:
        raise BadSettings(f"cannot read the settings file {file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSettings(f"{file} is not valid TOML: {error}") from None


def _from_environment(environ: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, text in environ.items():
        if name.upper().startswith("TICKCAST_") and "__" in name:
            path = name[len("TICKCAST_") :].lower().split("__")
            _merge(found, _nested(path, parse(text)), {}, "")
    return found


def parse(text: str) -> Any:
    """A TOML value where it is one, else the text itself: `--set bars.kind=tick` needs no quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _nested(path: list[str], value: Any) -> dict[str, Any]:
    for key in reversed(path):
        value = {key: value}
    return value  # type: ignore[no-any-return]


def _merge(into: dict[str, Any], layer: dict[str, Any], origins: Origins, origin: str, prefix: str = "") -> None:
    for key, value in layer.items():
        dotted = prefix + key
        if isinstance(value, dict) and isinstance(into.get(key, {}), dict):
            _merge(into.setdefault(key, {}), value, origins, origin, dotted + ".")
        else:
            into[key] = value
            origins[dotted] = origin
