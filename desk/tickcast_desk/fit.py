"""`tickcast fit`: history -> closed bars -> a child process that trains -> a model folder. It trains nothing itself."""

import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq

from tickcast.clock import Clock, SystemClock, fresh_id
from tickcast.core.questions import bar_identity
from tickcast.errors import BadModel, BadSettings
from tickcast.job_folder import BARS, MEMBERS, SOURCE, START, ProgressLines, Result, Source, read_result
from tickcast.model_folder import copy_plain_files, read_card
from tickcast.settings import Settings
from tickcast_desk.bar_history import read_closed
from tickcast_desk.view import Progress
from tickcast_trainer.order import FitOrder, Start, order_of, write_order

POLL_S = 0.2


def fit(
    settings: Settings,
    data: Path,
    out: Path,
    *,
    order: FitOrder,
    symbols: list[str] | None = None,
    start: Path | None = None,
    members: Sequence[Path] = (),
    clock: Clock | None = None,
) -> Result:
    """Train and leave the model in `out`, which is replaced only by a finished one.

    `start` is the model folder that the fit begins with; `order.start` says how, else all its weights go on.
    `members` are the model folders that a combination is made of.
    """
    folder = settings.runtime.folder / "jobs" / fresh_id()
    folder.mkdir(parents=True)
    try:
        if start is not None:
            order = msgspec.structs.replace(order, start=order.start or Start(mode="warm"))
            (folder / START).mkdir()
            copy_plain_files(start, folder / START)
        order = _with_members(order, members, folder)
        write_bars(settings, data, folder / BARS, symbols=symbols)
        write_order(folder, msgspec.structs.replace(order, created_ns=(clock or SystemClock()).now_ns()))
        result = train(folder)
        _install(folder / result.model, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return result


def _with_members(order: FitOrder, members: Sequence[Path], folder: Path) -> FitOrder:
    """The order names them by digest; the child holds what it finds in the folder to that."""
    copies = [folder / MEMBERS / str(number) for number in range(len(members))]
    for member, copy in zip(members, copies, strict=True):
        copy.mkdir(parents=True)
        copy_plain_files(member, copy)
    digests = [read_card(copy).digest for copy in copies]
    named = {**order.model_params, "members": digests} if members else order.model_params
    return msgspec.structs.replace(order, model_params=named)


def make_order(settings: Settings, *, kind: str, name: str, split: str, params: dict[str, Any]) -> FitOrder:
    """The deployment's settings and the parameters that a person gave: FitOrder's own keys, the rest the model's."""
    forecast = settings.forecast
    order = {
        "kind": kind, "name": name, "split": split, "bars": bar_identity(settings), "transform": forecast.transform,
        "lookback": settings.window.lookback, "horizon": forecast.horizon, "levels": forecast.quantiles,
        "features": [entry.model_dump() for entry in settings.features.set], "future": list(settings.features.future),
        "params": params,
    }  # fmt: skip
    try:
        return order_of(order)
    except msgspec.ValidationError as error:
        raise BadSettings(f"the parameters of the fit do not fit: {error}") from None


def gather(folder: Path) -> None:
    """In the child process: the bars of the file that a job was given."""
    source = msgspec.json.decode((folder / SOURCE).read_bytes(), type=Source)
    write_bars(Settings(**source.settings), Path(source.path), folder / BARS, symbols=source.symbols or None)


def write_bars(settings: Settings, data: Path, path: Path, *, symbols: list[str] | None) -> None:
    """Every bar that the data close, sorted by symbol and then in the order of closing."""
    pq.write_table(read_closed(settings, data, symbols=symbols).table, path)


def train(folder: Path, *, title: str = "fit") -> Result:
    """Run the child process to its end, showing its progress; BadModel where it failed."""
    command = [sys.executable, "-m", "tickcast_trainer.worker", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as child:
        try:
            _follow(child, ProgressLines(folder), title)
        except BaseException:  # an interrupt must not leave the child behind, nor wait for its last epoch
            child.kill()
            raise
    result = read_result(folder)
    if result is None:
        raise BadModel(f"the training process ended with {child.returncode} and left no result")
    if not result.ok:
        raise BadModel(f"the fit failed ({result.error_code}): {result.error}")
    return result


def _follow(child: "subprocess.Popen[bytes]", lines: ProgressLines, title: str) -> None:
    shown = 0
    progress: Progress | None = None
    while True:
        ended = child.poll() is not None
        for line in lines.new():
            if progress is None:
                progress = Progress(line["steps"], title)
                progress.__enter__()
            progress.advance(line["step"] - shown)
            shown = line["step"]
        if ended:
            break
        time.sleep(POLL_S)
    if progress is not None:
        progress.__exit__(None, None, None)


def _install(model: Path, out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    old = out.with_name(out.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    shutil.copytree(model, out)
    shutil.rmtree(old, ignore_errors=True)
