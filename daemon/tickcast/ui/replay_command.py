"""`tickcast replay`: history through the engine, then its report as a page and on the terminal. It computes nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from tickcast.batch.out_folder import claim
from tickcast.batch.replay import FILES, FILES_OF_REPLAY, TOLD_BY, ReplayOrder, in_folder, replay
from tickcast.errors import BadData
from tickcast.settings import Settings
from tickcast.ui.command_line import terminal
from tickcast.ui.pages.report import print_summary, write_report
from tickcast.ui.view import ProgressBar


async def replay_and_report(
    settings: Settings, order: ReplayOrder, *, warn: Callable[[str], object] = lambda why: None
) -> dict[str, Any]:
    """The command: replay into `order.out`, then write and print the report. `warn` is told where most was refused."""
    claim(order.out, writes=FILES_OF_REPLAY, told_by=TOLD_BY)
    found = await replay(in_folder(settings, order.out), order, shown=ProgressBar)
    frames = {name: _frame(order.out / f"{name}.parquet") for name in FILES}
    report = write_report(order.out, summary=found, **frames)
    print_summary(terminal(), report)
    print(f"the report is in {order.out / 'report.html'}")
    if report["nearly_all_refused"]:
        raise BadData(f"{order.data}: {report['refused']}")
    if report["refused"]:
        warn(f"{order.data}: {report['refused']}")
    return report


def _frame(path: Path) -> pl.DataFrame:
    return pl.read_parquet(path) if path.exists() else pl.DataFrame()
