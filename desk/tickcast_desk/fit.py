"""`tickcast fit`: history -> closed bars -> a child process that trains -> a model folder. It trains nothing itself."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from tickcast.app.history import closed_bars
from tickcast.clock import Clock, SystemClock, fresh_id
from tickcast.core.questions import bar_identity
from tickcast.errors import BadModel, BadSettings
from tickcast.settings import Settings
from tickcast_desk.frames import bar_table
from tickcast_desk.view import Progress
from tickcast_trainer.order import BARS, FitOrder, write_order
from tickcast_trainer.worker import PROGRESS, RESULT, Result

POLL_S = 0.2


def fit(
    settings: Settings,
    data: Path,
    out: Path,
    *,
    order: FitOrder,
    symbols: list[str] | None = None,
    clock: Clock | None = None,
) -> Result:
    """Train and leave the model in `out`, which is replaced only by a finished one."""
    folder = settings.runtime.folder / "jobs" / fresh_id()
    folder.mkdir(parents=True)
    try:
        write_bars(settings, data, folder / BARS, symbols=symbols)
        write_order(folder, msgspec.structs.replace(order, created_ns=(clock or SystemClock()).now_ns()))
        result = train(folder)
        _install(folder / result.model, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return result


def make_order(settings: Settings, *, kind: str, name: str, split: str, params: dict[str, Any]) -> FitOrder:
    """The deployment's settings and the parameters that a person gave: FitOrder's own keys, the rest the model's."""
    known = set(FitOrder.__struct_fields__)
    forecast = settings.forecast
    order = {
        "kind": kind, "name": name, "split": split, "bars": bar_identity(settings), "transform": forecast.transform,
        "lookback": settings.window.lookback, "horizon": forecast.horizon, "levels": forecast.quantiles,
        "features": [entry.model_dump() for entry in settings.features.set], "future": list(settings.features.future),
        "model_params": {key: value for key, value in params.items() if key not in known},
        **{key: value for key, value in params.items() if key in known},
    }  # fmt: skip
    try:
        return msgspec.convert(order, FitOrder)
    except msgspec.ValidationError as error:
        raise BadSettings(f"the parameters of the fit do not fit: {error}") from None


def write_bars(settings: Settings, data: Path, path: Path, *, symbols: list[str] | None) -> None:
    """Every bar that the data close, sorted by symbol and then in the order of closing."""
    tables = [
        bar_table(bars, serving)
        for serving, outcome in closed_bars(settings, data, symbols=symbols)
        for bars in outcome.bars
    ]
    table = pa.concat_tables(tables).sort_by([("symbol", "ascending"), ("ordinal", "ascending")])
    pq.write_table(table, path)


def train(folder: Path) -> Result:
    """Run the child process to its end, showing its progress; BadModel where it failed."""
    command = [sys.executable, "-m", "tickcast_trainer.worker", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as child:
        try:
            _follow(child, folder / PROGRESS)
        except BaseException:  # an interrupt must not leave the child behind; it is raised on
            child.terminate()
            raise
    try:
        result = msgspec.json.decode((folder / RESULT).read_bytes(), type=Result)
    except OSError:
        raise BadModel(f"the training process ended with {child.returncode} and left no result") from None
    if not result.ok:
        raise BadModel(f"the fit failed ({result.error_code}): {result.error}")
    return result


def _follow(child: "subprocess.Popen[bytes]", path: Path) -> None:
    shown = 0
    progress: Progress | None = None
    while True:
        ended = child.poll() is not None
        for line in _new_lines(path, shown):
            step = line["step"]
            if progress is None:
                progress = Progress(line["steps"], "fit")
                progress.__enter__()
            progress.advance(step - shown)
            shown = step
        if ended:
            break
        time.sleep(POLL_S)
    if progress is not None:
        progress.__exit__(None, None, None)


def _new_lines(path: Path, after: int) -> Iterator[dict[str, Any]]:
    """Progress beyond step `after`; a line that is still being written waits for the next look."""
    with suppress(OSError), path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                entry = msgspec.json.decode(line)
                if entry["step"] > after:
                    yield entry


def _install(model: Path, out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    old = out.with_name(out.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    shutil.copytree(model, out)
    shutil.rmtree(old, ignore_errors=True)
