"""Settings of commands, jobs, the registry and the log. `settings.py` holds the tree."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from tickcast.settings.buses import Positive, Section


class LogSettings(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe event that is logged."""
    format: Literal["auto", "json", "console"] = "auto"
    """`auto` = console on a terminal, JSON elsewhere."""


class ControlSettings(Section):
    keys_file: Path | None = None
    """TOML file of the keys that may give commands; without one no command is taken."""
    secrets_folder: Path | None = None
    """Where the secrets lie that the keys file names; without one beside it."""
    data_folder: Path | None = None
    """Where the files lie that commands name and `export` writes; without one no command touches a file."""
    max_bytes: Positive = 1 << 20
    """A longer envelope is refused unread."""
    max_age_s: Positive = 300
    """An envelope whose timestamp is further from now than this is stale."""
    per_minute: Positive = 120
    """Commands of one key in a minute; more are refused."""
    timeout_s: Positive = 30
    """How long a command may take that is not a job."""


class JobSettings(Section):
    workers: Positive = 1
    """Jobs that run at once, and processes that try out parameters."""
    queue: Positive = 16
    """Jobs that wait; more are refused."""
    wall_s: Positive = 3600
    """Time that one job may take,"""
    cpu_s: Positive = 7200
    """processor time of each of its processes,"""
    memory_bytes: Positive = 12 << 30
    """and address space of each: libraries reserve far more than they use."""
    disk_bytes: Positive = 16 << 30
    """What the folder of a job may take on disk, with what was put into it; each file may be as large at most."""
    silence_s: Positive = 300
    """A job that neither reports nor uses processor time for this long is taken to hang and is ended."""
    keep: Annotated[int, Field(ge=0)] = 20
    """Folders of ended jobs that stay, to resume or look into them."""


class RegistrySettings(Section):
    folder: Path | None = None
    """Where models are kept by their SHA-256; default: `artefacts` beside the store."""
    loaded_models: Positive = 8
    """Models that stay loaded,"""
    loaded_bytes: Positive = 2 << 30
    """and the bytes of their files."""
    keep_versions: Positive = 10
    """Versions of a name that stay; one that served, serves or may be rolled back to always does."""
