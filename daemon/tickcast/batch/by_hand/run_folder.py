"""A search by hand: a job whose folder stays, so that it can be gone on with. It searches nothing itself; what the
child process does, docs/optimize.md and docs/auto.md say.
"""

from collections.abc import Callable
from pathlib import Path

from tickcast.batch.bar_history import write_bars
from tickcast.batch.by_hand.fit import train
from tickcast.batch.out_folder import claim, claim_model, claim_new
from tickcast.errors import BadSettings
from tickcast.io.jobs.folder import BARS, MODEL, ORDER, RESULT, Result
from tickcast.io.jobs.orders import AutoOrder, TuneOrder
from tickcast.io.jobs.past import NO_PAST, Past
from tickcast.io.jobs.prepare import JobInputs, prepare
from tickcast.progress import Shown, unshown
from tickcast.remedies import say_refused
from tickcast.settings import Settings

PAGE = "report.html"


def begin(
    settings: Settings, data: Path, out: Path, *, order: AutoOrder | TuneOrder,
    symbols: list[str] | None = None, past: Past = NO_PAST, shown: Shown = unshown,
    warn: Callable[[str], object] = say_refused,
) -> Result:  # fmt: skip
    """All that it makes lies in `out`, which must not hold a run yet."""
    if (out / ORDER).exists():
        raise BadSettings(f"{out} holds a run", remedy=f"--resume {out}, or another --out")
    claim_new(out)

    def bars(folder: Path) -> None:
        write_bars(settings, data, folder / BARS, symbols=symbols, warn=warn)

    prepare(out, order, JobInputs(bars, past=past))
    return train(out, title=order.job, shown=shown)


def go_on(out: Path, order: AutoOrder | TuneOrder, *, shown: Shown = unshown) -> Result:
    """With what a kill, a person or too little time left; `order` is that in `out`, with other limits perhaps."""
    claim(out, writes=[PAGE], told_by=[ORDER, BARS])
    claim_model(out / MODEL)
    order.write(out)
    (out / RESULT).unlink(missing_ok=True)
    return train(out, title=order.job, shown=shown)
