"""Data files -> closed bars, by the engine's own folding. What loading, training and filling windows all use."""

from collections.abc import Iterator
from pathlib import Path

from tickcast.app.wiring import Serving, build
from tickcast.core.events import Outcome
from tickcast.edges.tape import Tape
from tickcast.errors import BadData
from tickcast.settings import Settings


def bars_only(settings: Settings) -> Settings:
    """The same deployment without models: it folds and asks nothing."""
    return settings.model_copy(
        update={
            "model": settings.model.model_copy(update={"default": "none"}),
            "features": settings.features.model_copy(update={"publish": False}),
        }
    )


def closed_bars(
    settings: Settings, path: Path, *, symbols: list[str] | None = None
) -> "Iterator[tuple[Serving, Outcome]]":
    """One outcome per chunk of the file or folder; the serving names the symbols and counts what was refused."""
    tape = Tape(path, settings, symbols=symbols)
    serving = build(bars_only(tape.settings))
    found = False
    for raw in tape:
        outcome = serving.engine.turn([raw], 0)
        found |= bool(outcome.bars)
        yield serving, outcome
    if not found:
        reasons = serving.engine.folder.counts()
        raise BadData(
            f"{path} closes no bar: {int(reasons.sum())} ticks were read, {int(reasons[0])} accepted",
            remedy="compare bars.* with the spacing of the data, and codec.* with its columns",
        )
