"""`tickcast backtest` and the job of that name: the figures of a backtest as a page and on the terminal."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from tickcast.plugin import Report
from tickcast.settings import Settings
from tickcast_desk import backtest_page
from tickcast_desk.backtest import EQUITY, FILES, FITS, BacktestOrder, backtest, job_settings, write_tape
from tickcast_desk.command_line import Doubts, terminal
from tickcast_desk.out_folder import claim
from tickcast_desk.replay import FILES_OF_REPLAY, TOLD_BY, Order
from tickcast_desk.view import Progress
from tickcast_trainer.order import BARS, read_as

FOLDER = "backtest"  # of the results within the job folder
PAGE = "backtest.html"


def run(folder: Path, report: Report) -> dict[str, Any]:
    """The job: `bars.parquet`, and `model` where the folder has one, else the rung that the settings name."""
    order = read_as(folder, lambda fields: msgspec.convert(fields, BacktestOrder))
    settings = job_settings(order, folder)
    tape = folder / "tape.parquet"
    write_tape(folder / BARS, tape, settings)
    out = folder / FOLDER
    found = asyncio.run(backtest(settings, Order(tape, out), order, report, shown=Progress))
    write_page(out, found)
    return {**found, "folder": FOLDER, "status": "stopped" if found["stopped"] else "done"}


async def backtest_and_print(settings: Settings, history: Order, order: BacktestOrder, *, warn: Doubts) -> None:
    """The command."""
    claim(history.out, writes=(*FILES_OF_REPLAY, *FILES, PAGE, FITS), told_by=TOLD_BY)
    found = await backtest(settings, history, order, lambda **_: True, shown=Progress, warn=warn)
    write_page(history.out, found)
    backtest_page.print_backtest(terminal(), found)
    print(f"the report is in {history.out / PAGE}")


def write_page(out: Path, found: dict[str, Any]) -> None:
    (out / PAGE).write_text(backtest_page.page(found, pl.read_parquet(out / EQUITY)), encoding="utf-8")
