"""`tickcast recommend`: which kinds are worth trying on a history, and why, as a table. It fits nothing."""

from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table

from tickcast.batch.bar_history import history_of, read_closed
from tickcast.engine.core.ladder import RUNGS
from tickcast.loop.recommend import Recommendation, Suggestion, measured, recommend
from tickcast.loop.signature import signature_of
from tickcast.plugin import names
from tickcast.settings import Settings
from tickcast.ui.command_line import Doubts, terminal
from tickcast.ui.trajectories import read_trajectories


def command(settings: Settings, data: Path, symbols: list[str] | None) -> int:
    doubts = Doubts()
    closed = read_closed(settings, data, symbols=symbols, warn=doubts)
    signature = signature_of(history_of(closed.table, on_gap=settings.bars.on_gap).closes())
    kinds = [name for name in names("models") if name not in RUNGS]
    show(recommend(signature, read_trajectories(settings), measured(), kinds=kinds), terminal())
    return doubts.exit_code


def show(found: Recommendation, console: Console) -> None:
    """First what the data say, then the kinds, each with its reasons."""
    for line in found.says:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if not found.kinds:
        console.print("no kind is worth trying on what is known", highlight=False)
        return
    right = [Column(name, justify="right", no_wrap=True) for name in ("skill", "us")]
    table = Table(Column("kind", no_wrap=True), *right, "why", box=SIMPLE_HEAD, pad_edge=False)
    for one in found.kinds:
        table.add_row(one.kind, *_figures(one), "; ".join(one.why))
    console.print(table)


def _figures(one: Suggestion) -> Sequence[str]:
    skill = "" if one.skill is None else f"{one.skill:+.2%}"
    return skill, "" if one.cost_us is None else f"{one.cost_us:.1f}"
