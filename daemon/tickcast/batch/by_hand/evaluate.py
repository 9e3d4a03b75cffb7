"""Test data -> closed bars -> the job's own judging of a model -> its figures as a file. It computes nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from tickcast.batch.bar_history import write_bars
from tickcast.batch.by_hand.fit import job_folder
from tickcast.batch.judge import judge
from tickcast.batch.out_folder import claim
from tickcast.engine.core.questions import bar_identity
from tickcast.engine.inference.model_folder import read_card
from tickcast.errors import BadModel
from tickcast.io.jobs.folder import BARS, MODEL
from tickcast.io.jobs.orders import EvaluateOrder
from tickcast.progress import Shown, steps, unshown
from tickcast.remedies import say_refused
from tickcast.settings import Settings

FILE, PAGE = "evaluate.json", "evaluate.html"


def evaluate(
    settings: Settings, model: Path, data: Path, out: Path, *,
    order: EvaluateOrder, symbols: list[str] | None = None, shown: Shown = unshown,
    warn: Callable[[str], object] = say_refused,
) -> dict[str, Any]:  # fmt: skip
    """Judge the model on the data and leave `evaluate.json` in `out`, where its page goes, too."""
    claim(out, writes=[FILE, PAGE])
    card = read_card(model)
    if card.bars != bar_identity(settings):
        raise BadModel(
            f"the model in {model} was made for bars = {card.bars}, these settings make {bar_identity(settings)}",
            remedy="give the settings that it was fitted with",
        )

    def bars(folder: Path) -> None:
        write_bars(settings, data, folder / BARS, symbols=symbols, warn=warn)

    with job_folder(settings, order, bars, {MODEL: model}) as folder, steps(shown, "evaluate") as tell:
        found = judge.run(folder, lambda *, step, steps, **figures: tell(step, steps) is None)
    (out / FILE).write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2))
    return found
