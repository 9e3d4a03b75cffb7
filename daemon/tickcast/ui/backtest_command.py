"""`tickcast backtest` and the job of that name: the figures of a backtest as a page and on the terminal."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from tickcast.batch.backtest.backtest import EQUITY, FILES, FITS, BacktestOrder, backtest, job_settings, write_tape
from tickcast.batch.out_folder import claim
from tickcast.batch.replay import FILES_OF_REPLAY, TOLD_BY, ReplayOrder
from tickcast.batch.train.order import BARS, read_as
from tickcast.plugin import Report
from tickcast.settings import Settings
from tickcast.ui.command_line import Doubts, terminal
from tickcast.ui.pages import backtest_page
from tickcast.ui.view import ProgressBar

FOLDER = "backtest"  # of the results within the job folder
PAGE = "backtest.html"


def run(folder: Path, report: Report) -> dict[str, Any]:
    """The job: `bars.parquet`, and `model` where the folder has one, else the rung that the settings name."""
    order = read_as(folder, lambda fields: msgspec.convert(fields, BacktestOrder))
    settings = job_settings(order, folder)
    tape = folder / "tape.parquet"
    write_tape(folder / BARS, tape, settings)
    out = folder / FOLDER
    found = asyncio.run(backtest(settings, ReplayOrder(tape, out), order, report, shown=ProgressBar))
    write_page(out, found)
    return {**found, "folder": FOLDER, "status": "stopped" if found["stopped"] else "done"}


async def backtest_and_print(settings: Settings, history: ReplayOrder, order: BacktestOrder, *, warn: Doubts) -> None:
    """The command."""
    claim(history.out, writes=(*FILES_OF_REPLAY, *FILES, PAGE, FITS), told_by=TOLD_BY)
    found = await backtest(settings, history, order, lambda **_: True, shown=ProgressBar, warn=warn)
    write_page(history.out, found)
    backtest_page.print_backtest(terminal(), found)
    print(f"the report is in {history.out / PAGE}")


def write_page(out: Path, found: dict[str, Any]) -> None:
    (out / PAGE).write_text(backtest_page.page(found, pl.read_parquet(out / EQUITY)), encoding="utf-8")
