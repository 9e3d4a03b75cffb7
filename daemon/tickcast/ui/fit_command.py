"""`tickcast fit`: what it takes as an order, and its result in words. It trains nothing."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from tickcast.batch.by_hand.fit import fit
from tickcast.errors import BadSettings
from tickcast.figures import CONFIDENCE
from tickcast.io.jobs.folder import Result
from tickcast.io.jobs.prepare import fit_order, known_kind
from tickcast.settings import Settings
from tickcast.ui.command_line import Doubts, pairs
from tickcast.ui.pages.verdict import beside_last_value
from tickcast.ui.view import ProgressBar

FEW_WINDOWS = 1000  # of a hold-out


def command(args: argparse.Namespace, settings: Settings) -> int:
    params = pairs(args.param)
    if args.method:
        params["method"] = args.method
    if args.mode and args.start is None:
        raise BadSettings("--mode says how a fit begins with a model", remedy="name its folder with --start")
    if args.mode:
        params["start"] = {"mode": args.mode}
    order = fit_order(
        settings, kind=known_kind(args.model), name=args.name, params=params, split=args.split, tags=args.tags
    )
    doubts = Doubts()
    result = fit(
        settings, args.data, args.out, order=order, symbols=args.symbols, start=args.start, shown=ProgressBar,
        members=[Path(folder) for folder in args.members], say=lambda text: print(text, file=sys.stderr), warn=doubts,
    )  # fmt: skip
    print(*told(result), sep="\n")
    print(f"the model is in {args.out}; serve it with --set model.default={args.out}")
    print(f"how sure that skill is: tickcast evaluate --model {args.out} --data LATER_DATA")
    return doubts.exit_code


def told(result: Result) -> Iterator[str]:
    """What a person wants to know first, line by line."""
    held = result.metrics
    band, inside = max(held["coverage"].items())
    said = beside_last_value(
        held["skill"], held.get("skill_low"), held.get("skill_high"), moments=held.get("moments", 0),
        confidence=CONFIDENCE,
    )  # fmt: skip
    yield f"{result.status}; on the hold-out, {held['windows']:,} windows: {said[:1].lower()}{said[1:]}"
    yield f"  {inside:.1%} of truths lie in the {float(band):.0%} band"
    if held["windows"] < FEW_WINDOWS:
        yield f"  few windows: below {FEW_WINDOWS:,}, chance alone moves such a skill by percents; fit on more history"
    if "judged" in held:
        yield "  these figures are of the same fit before the hold-out; the model was fitted once more, on all bars"
    for advice in held["fit"].get("advice", []):
        yield f"  {advice['code'].replace('_', ' ')}: {advice['text']}"
