"""`tickcast fit`: history -> closed bars -> a child process that trains -> a model folder. It trains nothing itself."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq

from tickcast.batch.bar_history import Span, read_closed, within
from tickcast.batch.out_folder import claim_model, install_model
from tickcast.batch.train.order import FitOrder, WarmStart, order_of, write_order
from tickcast.clock import Clock, SystemClock, fresh_id
from tickcast.engine.core.questions import bar_identity
from tickcast.engine.inference.model_folder import copy_plain_files, read_card
from tickcast.errors import BadModel, BadSettings
from tickcast.io.jobs import host
from tickcast.io.jobs.folder import (
    BARS,
    MEMBERS,
    SCRATCH,
    SOURCE,
    START,
    FileSource,
    ProgressLines,
    Result,
    read_result,
)
from tickcast.plugin import names
from tickcast.progress import Shown, steps, unshown
from tickcast.remedies import say_refused
from tickcast.settings import Settings

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
    say: Callable[[str], object] = lambda phase: None,
    shown: Shown = unshown,
    warn: Callable[[str], object] = say_refused,
) -> Result:
    """Train and leave the model in `out`, where a model is replaced only by a finished one, and nothing else ever is.

    `start` is the model folder that the fit begins with; `order.start` says how, else all its weights go on.
    `members` are the model folders that a combination is made of.
    """
    claim_model(out)
    folder = settings.runtime.folder / "jobs" / fresh_id()
    folder.mkdir(parents=True)
    try:
        if start is not None:
            order = msgspec.structs.replace(order, start=order.start or WarmStart(mode="warm"))
            (folder / START).mkdir()
            copy_plain_files(start, folder / START)
        order = _with_members(order, members, folder)
        write_bars(settings, data, folder / BARS, symbols=symbols, warn=warn)
        bars = pq.read_metadata(folder / BARS).num_rows
        say(f"{bars:,} bars read; {order.kind} is trained in a child process, exported, and judged on the hold-out")
        write_order(folder, msgspec.structs.replace(order, created_ns=(clock or SystemClock()).now_ns()))
        result = train(folder, shown=shown)
        install_model(folder / result.model, out)
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


def known_kind(kind: str) -> str:
    """`kind`, before anything is begun for it."""
    if kind not in (known := names("models")):
        raise BadSettings(f"no model named '{kind}'", remedy=f"known: {', '.join(known)}")
    return kind


def make_order(
    settings: Settings, *, kind: str, name: str, split: str, params: dict[str, Any], tags: Sequence[str] = ()
) -> FitOrder:
    """The deployment's settings and the parameters that a person gave: FitOrder's own keys, the rest the model's."""
    forecast = settings.forecast
    order = {
        "kind": kind, "name": name, "tags": [*tags], "split": split, "bars": bar_identity(settings),
        "transform": forecast.transform, "lookback": settings.window.lookback, "horizon": forecast.horizon,
        "levels": forecast.quantiles,
        "features": [entry.model_dump() for entry in settings.features.set], "future": list(settings.features.future),
        "params": params,
    }  # fmt: skip
    try:
        return order_of(order)
    except msgspec.ValidationError as error:
        raise BadSettings(f"the parameters of the fit do not fit: {error}") from None


def gather(folder: Path) -> None:
    """In the child process: the bars of the file that a job was given."""
    source = msgspec.json.decode((folder / SOURCE).read_bytes(), type=FileSource)
    settings, span = Settings(**source.settings), (source.from_ns, source.to_ns)
    write_bars(settings, Path(source.path), folder / BARS, symbols=source.symbols or None, span_ns=span)


def write_bars(
    settings: Settings,
    data: Path,
    path: Path,
    *,
    symbols: list[str] | None,
    span_ns: Span = (None, None),
    warn: Callable[[str], object] = say_refused,
) -> None:
    """Every bar of the span that the data close, sorted by symbol and then in the order of closing."""
    closed = read_closed(settings, data, symbols=symbols, warn=warn)
    pq.write_table(within(closed.table, span_ns, data), path)


def train(
    folder: Path, *, title: str = "fit", shown: Shown = unshown, meanwhile: Callable[[], object] = lambda: None
) -> Result:
    """Run the child process to its end, telling its progress; BadModel where it failed. `meanwhile` is called often.

    The child has a process group of its own, with those that it starts: a Ctrl-C is for this process, which ends them.
    """
    command = [*host.WORKER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0) as child:
        try:
            with steps(shown, title) as tell:
                _follow(child, ProgressLines(folder), tell, meanwhile)
        except BaseException:  # an interrupt must not leave them behind, nor wait for the last epoch
            os.killpg(child.pid, signal.SIGKILL)
            raise
        finally:
            child.wait()
            shutil.rmtree(folder / SCRATCH, ignore_errors=True)
    result = read_result(folder)
    if result is None:
        raise BadModel(f"the training process ended with {child.returncode} and left no result")
    if not result.ok:
        raise BadModel(f"the fit failed ({result.error_code}): {result.error}")
    return result


def _follow(
    child: "subprocess.Popen[bytes]", lines: ProgressLines, tell: Callable[[int, int], None],
    meanwhile: Callable[[], object],
) -> None:  # fmt: skip
    while True:
        ended = child.poll() is not None
        for line in lines.new():
            tell(line["step"], line["steps"])
        if ended:
            return
        meanwhile()
        time.sleep(POLL_S)
