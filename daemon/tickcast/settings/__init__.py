"""Every setting, its default and its bounds. Files < environment < command line; unknown keys are refused.

Defaults live here alone: config/default.toml repeats them with comments, and a test compares the two.
"""

import os
import tomllib
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from tickcast.errors import BadSettings
from tickcast.settings import names as setting_names
from tickcast.settings import slots as slot_paths
from tickcast.settings.alerts import AlertSettings
from tickcast.settings.buses import BusSettings, KafkaSettings, MqttSettings, TopicSettings
from tickcast.settings.engine import (
    DriftSettings,
    FeatureSettings,
    ForecastSettings,
    InferenceSettings,
    ModelSettings,
    ScoreSettings,
    UncertaintySettings,
    WindowSettings,
)
from tickcast.settings.schedule import ScheduleSettings
from tickcast.settings.section import YEAR_MS
from tickcast.settings.service import (
    ControlSettings,
    JobSettings,
    LogSettings,
    RegistrySettings,
    RuntimeSettings,
    SnapshotSettings,
    StoreSettings,
)
from tickcast.settings.stream import BarSettings, CodecSettings, QualitySettings, SymbolSettings


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
    drift: DriftSettings = DriftSettings()
    store: StoreSettings = StoreSettings()
    symbols: SymbolSettings = SymbolSettings()
    inference: InferenceSettings = InferenceSettings()
    registry: RegistrySettings = RegistrySettings()
    control: ControlSettings = ControlSettings()
    jobs: JobSettings = JobSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    alerts: AlertSettings = AlertSettings()
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
