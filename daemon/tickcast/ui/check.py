"""What `tickcast check` shows: each setting with its origin, and what the settings will cost. It changes nothing."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from tickcast.errors import BadSettings
from tickcast.loop.build import unreachable_rungs
from tickcast.settings import Origins, Settings
from tickcast.ui.command_line import terminal
from tickcast.ui.footprint import state_bytes
from tickcast.ui.store_size import estimate_bytes_per_day

DEFAULT = "default"
SECRET_NAME = re.compile(r"(^|_)(password|secret|token|key)$")
URL_PASSWORD = re.compile(r"(?<=://)([^:/@]*):[^@/]+@")


def explain(settings: Settings, origins: Origins) -> list[tuple[str, Any, str]]:
    """Every setting as (dotted name, value, origin), in the order of the code; secrets are masked."""
    return [(name, _masked(name, value), _origin(name, origins)) for name, value in _flat(settings, "")]


def refuse_too_large(settings: Settings, *, state_bytes: int) -> None:
    """Raise where the engine's state would not fit into `runtime.memory_bytes`."""
    if state_bytes > settings.runtime.memory_bytes:
        raise BadSettings(
            f"these settings need {readable(state_bytes)} of state, "
            f"runtime.memory_bytes allows {readable(settings.runtime.memory_bytes)}",
            remedy="lower symbols.limit, window.lookback, forecast.horizon or score.horizons, or raise the bound",
        )


def print_check(settings: Settings, origins: Origins, *, changed: bool) -> None:
    """The whole of `tickcast check`, on standard output."""
    render(settings, origins, state_bytes=state_bytes(settings), console=terminal(), changed=changed)


def render(settings: Settings, origins: Origins, *, state_bytes: int, console: Console, changed: bool = False) -> None:
    """Print all settings, or those that somebody changed, and the estimates; then refuse what would not fit."""
    table = Table("setting", "value", "origin", box=None, pad_edge=False)
    for name, value, origin in explain(settings, origins):
        if not changed or origin != DEFAULT:
            table.add_row(name, str(value), origin, style="" if origin == DEFAULT else "bold")
    console.print(table)
    console.print(f"\nstate in memory: {readable(state_bytes)} of {readable(settings.runtime.memory_bytes)} allowed")
    console.print(f"written per day: {_per_day(settings)}")
    if rungs := unreachable_rungs(settings):
        console.print(
            f"never asked: {', '.join(rungs)} (in model.default, then model.ladder, one before needs no more bars)"
        )
    refuse_too_large(settings, state_bytes=state_bytes)


def readable(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _per_day(settings: Settings) -> str:
    day = estimate_bytes_per_day(settings, settings.symbols.limit)
    parts = ", ".join(f"{name} {readable(value)}" for name, value in day._asdict().items())
    pace = "" if settings.bars.kind == "time" else " that close a bar each second"
    return f"about {readable(day.total)} with {settings.symbols.limit:,} symbols{pace} ({parts})"


def _flat(section: BaseModel, prefix: str) -> Iterator[tuple[str, Any]]:
    for key in type(section).model_fields:
        name, value = prefix + key, getattr(section, key)
        if isinstance(value, BaseModel):
            yield from _flat(value, name + ".")
        elif isinstance(value, Mapping) and any(isinstance(inner, BaseModel) for inner in value.values()):
            for inner_key, inner in value.items():
                yield from _flat(inner, f"{name}.{inner_key}.")
        else:
            yield name, _plain(value)


def _plain(value: Any) -> Any:
    """A list of tables as plain tables, with the keys that plugins added."""
    if isinstance(value, list):
        return [item.model_dump() if isinstance(item, BaseModel) else item for item in value]
    return value


def _masked(name: str, value: Any) -> Any:
    if SECRET_NAME.search(name) and value:
        return "***"
    return URL_PASSWORD.sub(r"\1:***@", value) if isinstance(value, str) else value


def _origin(name: str, origins: Origins) -> str:
    """Where the value came from: its own key, or the table above it that was given as a whole."""
    while name:
        if name in origins:
            return origins[name]
        name = name.rpartition(".")[0]
    return DEFAULT
