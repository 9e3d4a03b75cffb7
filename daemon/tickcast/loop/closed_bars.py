"""Data files -> closed bars, by the engine's own folding. What loading, training and filling windows all use."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tickcast import remedies
from tickcast.columns import I64
from tickcast.engine.core.events import Outcome
from tickcast.errors import BadData, Reason
from tickcast.io.tape.tape import Tape
from tickcast.loop.build import Serving, build
from tickcast.settings import Settings

MS = 10**6
MOST, NEARLY_ALL = 0.5, 0.9  # of the ticks: where nearly all are refused a setting is wrong, not the data


class MostRefused(NamedTuple):
    """Of a history of which most was refused."""

    why: str  # with the remedy
    nearly_all: bool  # nothing is made of the rest


def bars_only(settings: Settings) -> Settings:
    """The same deployment without models: it folds and asks nothing."""
    model = settings.model.model_copy(update={"default": "none"})
    features = settings.features.model_copy(update={"publish": False})
    return settings.model_copy(update={"model": model, "features": features})


def closed_bars(
    settings: Settings,
    path: Path,
    *,
    symbols: list[str] | None = None,
    any_spacing: bool = False,
    warn: Callable[[str], object] = lambda why: None,
) -> "Iterator[tuple[Serving, Outcome]]":
    """One outcome per chunk of the file or folder; the serving names the symbols and counts what was refused.

    BadData, in the end, where hardly anything was accepted or no bar closed; at once where the spacing does not fit.
    `warn` is told, in the end, where most was refused.
    """
    tape = Tape(path, settings, symbols=symbols)
    if not any_spacing:
        refuse_spacing(tape, path)
    serving = build(bars_only(tape.settings))
    found = False
    for raw in tape:
        outcome = serving.engine.turn([raw], 0)
        while True:
            found |= bool(outcome.bars)
            yield serving, outcome
            if not outcome.left:
                break
            serving.engine.pass_places()  # nobody needs the outcome any more
            outcome = serving.engine.turn(outcome.left, 0)
    counts = serving.engine.builder.counts()
    refused = refusal(tape.settings, counts, tape.first_time)
    if refused is not None and refused.nearly_all:
        raise BadData(f"{path}: {refused.why}")
    if not found:
        raise BadData(
            f"{path} closes no bar: {int(counts.sum())} ticks were read, {int(counts[0])} accepted",
            remedy="compare bars.* with the spacing of the data, and codec.* with its columns",
        )
    if refused is not None:
        warn(f"{path}: {refused.why}")


def refuse_spacing(tape: Tape, path: Path) -> None:
    """BadData where the data come at even steps that `bars.every_ms` would cut up: most bars would be made up."""
    bars, step_ns = tape.settings.bars, tape.interval_ns
    if bars.kind != "time" or not step_ns or bars.every_ms * MS % step_ns == 0:
        return
    if tape.kind == "ticks" and (step_ns < bars.every_ms * MS or bars.on_gap != "carry"):
        return
    raise BadData(
        f"{path} holds {'bars' if tape.kind == 'bars' else 'a price'} each {_spell(step_ns)}, and bars.every_ms is "
        f"{bars.every_ms}: bars that nobody traded in would be made up",
        remedy=f"--set bars.every_ms={step_ns // MS}" if step_ns % MS == 0 else "set bars.every_ms to a multiple of it",
    )


def refusal(settings: Settings, counts: I64, first_time: str) -> MostRefused | None:
    """Where most ticks of a history were refused; those outside the hours of a calendar were meant to be left out."""
    reasons = {Reason(i).name.lower(): int(n) for i, n in enumerate(counts) if n and i != Reason.MARKET_CLOSED}
    bad, of = remedies.refused(reasons)
    if bad <= MOST * of:
        return None
    seen = dict.fromkeys(("wrong_unit", "bad_time"), first_time)
    return MostRefused(remedies.sentence(reasons, settings, seen), bad > NEARLY_ALL * of)


def _spell(step_ns: int) -> str:
    """Such as 1 h or 250 ms."""
    units = {"d": 86_400 * 10**9, "h": 3600 * 10**9, "min": 60 * 10**9, "s": 10**9, "ms": MS, "us": 1000, "ns": 1}
    name, unit = next((name, unit) for name, unit in units.items() if step_ns % unit == 0)
    return f"{step_ns // unit:,} {name}"
