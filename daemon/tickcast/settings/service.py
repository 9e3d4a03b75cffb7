"""Settings of the service: store, snapshots, registry, commands, jobs, the running process, the log."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from tickcast.settings.section import Positive, Section


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
    past_searches: Annotated[int, Field(ge=0, le=100)] = 5
    """A search begins with what so many past searches of the most similar data found; 0 = with its defaults alone."""
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
