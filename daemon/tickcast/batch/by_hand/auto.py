"""History -> a child process that looks for a model worth having -> a folder with what it tried and, where there is
one, the candidate. It searches nothing itself; docs/auto.md says what the child does.
"""

from collections.abc import Callable
from pathlib import Path

from tickcast.batch.bar_history import write_bars
from tickcast.batch.by_hand.fit import train
from tickcast.batch.out_folder import claim, claim_model, claim_new
from tickcast.errors import BadSettings
from tickcast.io.jobs.folder import BARS, MODEL, ORDER, RESULT, Result
from tickcast.io.jobs.orders import AutoOrder
from tickcast.io.jobs.past import NO_PAST, Past
from tickcast.io.jobs.prepare import JobInputs, prepare
from tickcast.progress import Shown, unshown
from tickcast.remedies import say_refused
from tickcast.settings import Settings

PAGE = "report.html"


def auto(
    settings: Settings, data: Path, out: Path, *,
    order: AutoOrder, symbols: list[str] | None = None, past: Past = NO_PAST, shown: Shown = unshown,
    warn: Callable[[str], object] = say_refused,
) -> Result:  # fmt: skip
    """All that it makes lies in `out`, which must not hold another run yet."""
    if (out / ORDER).exists():
        raise BadSettings(f"{out} holds a run", remedy=f"--resume {out}, or another --out")
    claim_new(out)

    def bars(folder: Path) -> None:
        write_bars(settings, data, folder / BARS, symbols=symbols, warn=warn)

    prepare(out, order, JobInputs(bars, past=past))
    return train(out, title="auto", shown=shown)


def resume(out: Path, *, shown: Shown = unshown) -> Result:
    """Go on with what was stopped or killed, with the whole budget once more for what is left."""
    AutoOrder.read(out)
    claim(out, writes=[PAGE], told_by=[ORDER, BARS])
    claim_model(out / MODEL)
    (out / RESULT).unlink(missing_ok=True)
    return train(out, title="auto", shown=shown)
