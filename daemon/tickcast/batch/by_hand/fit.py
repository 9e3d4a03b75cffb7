"""`tickcast fit`: history -> closed bars -> a child process that trains -> a model folder. It trains nothing itself."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pyarrow.parquet as pq

from tickcast.batch.bar_history import write_bars
from tickcast.batch.out_folder import claim_model, install_model
from tickcast.clock import Clock, SystemClock, fresh_id
from tickcast.engine.inference.model_folder import read_card
from tickcast.io.jobs import host
from tickcast.io.jobs.folder import BARS, MEMBERS, START, Result
from tickcast.io.jobs.orders import FitOrder, Order, WarmStart
from tickcast.io.jobs.prepare import JobInputs, prepare
from tickcast.progress import Shown, steps, unshown
from tickcast.remedies import say_refused
from tickcast.settings import Settings


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
    models = {f"{MEMBERS}/{number}": member for number, member in enumerate(members)}
    if members:
        named = {**order.model_params, "members": [read_card(member).digest for member in members]}
        order = msgspec.structs.replace(order, model_params=named)
    if start is not None:
        order = msgspec.structs.replace(order, start=order.start or WarmStart(mode="warm"))
        models[START] = start
    order = msgspec.structs.replace(order, created_ns=(clock or SystemClock()).now_ns())

    def bars(folder: Path) -> None:
        write_bars(settings, data, folder / BARS, symbols=symbols, warn=warn)
        count = pq.read_metadata(folder / BARS).num_rows
        say(f"{count:,} bars read; {order.kind} is trained in a child process, exported, and judged on the hold-out")

    with job_folder(settings, order, bars, models) as folder:
        result = train(folder, shown=shown)
        install_model(folder / result.model, out)
    return result


@contextmanager
def job_folder(
    settings: Settings, order: Order, bars: Callable[[Path], object], models: Mapping[str, Path] = {}
) -> Iterator[Path]:
    """A filled folder of a job, for as long as the block takes."""
    folder = settings.runtime.folder / "jobs" / fresh_id()
    try:
        prepare(folder, order, JobInputs(bars, models))
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def train(
    folder: Path, *, title: str = "fit", shown: Shown = unshown, meanwhile: Callable[[], object] = lambda: None
) -> Result:
    """Run the child process to its end, showing its progress; BadModel where it failed. `meanwhile` is called often."""
    with steps(shown, title) as tell:
        return host.wait_for(folder, tell, meanwhile=meanwhile)
