"""`tickcast replay --loop`: the loop over history, then its page and a table on the terminal. It computes nothing."""

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tickcast.batch.loop_replay.loop_replay import (
    ARMS,
    CHUNK,
    FIRST_BARS,
    FITS,
    JOB_BARS,
    JSON,
    TRIALS,
    LoopOrder,
    replay_loop,
)
from tickcast.batch.out_folder import claim
from tickcast.batch.replay import ReplayOrder
from tickcast.errors import BadRequest
from tickcast.settings import Settings
from tickcast.ui.command_line import terminal
from tickcast.ui.pages import loop_page
from tickcast.ui.view import ProgressBar

PAGE = "loop.html"


async def loop_and_report(
    args: argparse.Namespace, settings: Settings, history: ReplayOrder, *, warn: Callable[[str], object]
) -> dict[str, Any]:
    if history.speed:
        raise BadRequest("--loop goes as fast as it can", remedy="leave --speed out")
    claim(history.out, writes=(JSON, PAGE, ARMS, FITS))
    order = LoopOrder(
        replace(history, chunk=args.chunk or CHUNK), first_bars=args.first_bars or FIRST_BARS,
        job_bars=JOB_BARS if args.job_bars is None else args.job_bars, trials=args.trials or TRIALS,
    )  # fmt: skip
    found = await replay_loop(settings, order, shown=ProgressBar)
    (history.out / PAGE).write_text(loop_page.page(found), encoding="utf-8")
    loop_page.print_loop(terminal(), found)
    print(f"the report is in {history.out / PAGE}")
    if found["refused"]:
        warn(f"{history.data}: {found['refused']}")
    return found
