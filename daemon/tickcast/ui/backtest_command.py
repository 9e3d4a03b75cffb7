"""`tickcast backtest` and the job of that name: the figures of a backtest as a page and on the terminal."""

import argparse
import asyncio
from pathlib import Path
from typing import Any

import polars as pl

from tickcast.batch.backtest.backtest import EQUITY, FILES, FITS, backtest, job_settings, write_tape
from tickcast.batch.out_folder import claim
from tickcast.batch.replay import FILES_OF_REPLAY, TOLD_BY, ReplayOrder
from tickcast.errors import BadRequest
from tickcast.io.jobs.folder import BARS
from tickcast.io.jobs.orders import KIND, BacktestOrder
from tickcast.io.jobs.prepare import backtest_order
from tickcast.plugin import Report
from tickcast.settings import Settings
from tickcast.ui.command_line import Doubts, pairs, terminal
from tickcast.ui.pages import backtest_page
from tickcast.ui.view import ProgressBar

FOLDER = "backtest"  # of the results within the job folder
PAGE = "backtest.html"


def run(folder: Path, report: Report) -> dict[str, Any]:
    """The job: `bars.parquet`, and `model` where the folder has one, else the rung that the settings name."""
    order = BacktestOrder.read(folder)
    settings = job_settings(order, folder)
    tape = folder / "tape.parquet"
    write_tape(folder / BARS, tape, settings)
    out = folder / FOLDER
    found = asyncio.run(backtest(settings, ReplayOrder(tape, out), order, report, shown=ProgressBar))
    write_page(out, found)
    return {**found, "folder": FOLDER, "status": "stopped" if found["stopped"] else "done"}


async def command(args: argparse.Namespace, settings: Settings) -> int:
    retrain = None
    if args.retrain_every:
        kind = args.retrain_kind or KIND
        retrain = {"every_bars": args.retrain_every, "kind": kind, "params": pairs(args.param)}
    elif args.param or args.retrain_kind:
        raise BadRequest(
            "--param and --retrain-kind are of the fits of a walk", remedy="say how often: --retrain-every"
        )
    order = backtest_order(
        horizon=args.horizon, fee_bps=args.fee_bps, slippage_bps=args.slippage_bps, trials=args.trials, seed=args.seed,
        retrain=retrain,
    )  # fmt: skip
    if args.model:
        settings = settings.model_copy(update={"model": settings.model.model_copy(update={"default": args.model})})
    history, doubts = ReplayOrder(args.data, args.out, symbols=args.symbols), Doubts()
    claim(history.out, writes=(*FILES_OF_REPLAY, *FILES, PAGE, FITS), told_by=TOLD_BY)
    found = await backtest(settings, history, order, lambda **_: True, shown=ProgressBar, warn=doubts)
    write_page(history.out, found)
    backtest_page.print_backtest(terminal(), found)
    print(f"the report is in {history.out / PAGE}")
    return doubts.exit_code


def write_page(out: Path, found: dict[str, Any]) -> None:
    (out / PAGE).write_text(backtest_page.page(found, pl.read_parquet(out / EQUITY)), encoding="utf-8")
