"""What combining brings: one, three and five fitted models by every method, and each member alone, on oil temperatures
and loads of transformers and on hourly crypto prices. Prints the tables of docs/ensembles.md and leaves them in
results/ensemble_sizes.json.

    python benchmarks/ensemble_sizes.py

The newest bars of each series, 12 steps ahead, cut as any fit is. Every fit is an ordinary job, in this process.
Members see 72 bars; combinations see 96, of which `skill` takes 24 to look back on.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from accuracy_data import FOLDS, write_bars
from tickcast.job_folder import BARS, MEMBERS
from tickcast.model_folder import read_card
from tickcast.records import ModelCard
from tickcast_trainer import fit
from tickcast_trainer.order import FitOrder, write_order

RESULTS = Path(__file__).parent / "results" / "ensemble_sizes.json"
MEMBER_BARS, COMBINED_BARS, HORIZON = 72, 96, 12
BARS_OF_A_SERIES = 6_000
NET = {"batch_size": 256, "epochs": 4, "windows_per_epoch": 25_600}
MEMBERS_IN_ORDER: dict[str, dict[str, Any]] = {
    "nhits": NET, "ridge": {}, "gradient_boosting": {"model_params": {"trees": 20}}, "nlinear": NET, "theta": {},
}  # fmt: skip
DATA = {"ettm2": "level", "crypto_1h": "log_return"}  # and its transform
SKILL = {"method": "skill", "origins": 6, "stride": 4}
WAYS: dict[str, dict[str, Any]] = {
    "mean": {}, "median": {"method": "median"}, "weighted": {"method": "weighted"}, "stacked": {"method": "stacked"},
    "skill": SKILL, "gated": {},
}  # fmt: skip


class Row(NamedTuple):
    data: str
    members: int
    how: str
    skill: float
    pinball: float
    coverage: float
    parameters: int
    cost_us: float


def run() -> None:
    rows: list[Row] = []
    for data in DATA:
        with tempfile.TemporaryDirectory() as folder:
            rows += measured(Path(folder), data)
    RESULTS.write_text(json.dumps([row._asdict() for row in rows], indent=1) + "\n")
    print("| data | members | how | skill | pinball | covered (90 %) | members' weights | us a forecast |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for row in rows:
        print(
            f"| {row.data} | {row.members} | {row.how} | {row.skill:.4f} | {row.pinball:.4f} | {row.coverage:.3f} | "
            f"{row.parameters:,} | {row.cost_us:.1f} |"
        )


def measured(folder: Path, data: str) -> Iterator[Row]:
    (folder / "bars").mkdir()
    write_bars(folder / "bars", data, FOLDS)
    bars = pl.read_parquet(folder / "bars" / BARS)
    newest = pl.int_range(pl.len()).over("symbol") >= pl.len().over("symbol") - BARS_OF_A_SERIES
    bars.filter(newest).write_parquet(folder / "bars" / BARS)
    models: list[Path] = []
    for kind, fields in MEMBERS_IN_ORDER.items():
        models.append(fitted(folder, kind, [], {"transform": DATA[data], "lookback": MEMBER_BARS, **fields}))
    for size in (3, 5):
        digests = [read_card(model).digest for model in models[:size]]
        for way, params in WAYS.items():
            kind = way if way == "gated" else "ensemble"
            own = {"model_params": {"members": digests, **params}}
            fields = {"transform": DATA[data], "lookback": COMBINED_BARS, **own}
            card = read_card(fitted(folder, kind, models[:size], fields))
            if (size, way) == (5, "mean"):
                yield from (alone(data, one) for one in card.metrics["members"])
            yield row_of(data, size, way, card)


def fitted(folder: Path, kind: str, members: list[Path], fields: dict[str, Any]) -> Path:
    """The model's folder."""
    job = folder / f"{len([*folder.iterdir()])}-{kind}"
    job.mkdir()
    (job / BARS).symlink_to(folder / "bars" / BARS)
    for number, model in enumerate(members):
        shutil.copytree(model, job / MEMBERS / str(number))
    write_order(job, FitOrder(kind=kind, horizon=HORIZON, seed=1, **fields))
    model = job / str(fit.run(job, lambda **_: True)["model"])
    card = read_card(model)
    print(f"{kind}: skill {card.metrics['skill']:.4f}; {card.description}", file=sys.stderr)
    return model


def alone(data: str, member: dict[str, Any]) -> Row:
    figures = member["skill"], member["pinball"], member["coverage"]["0.9"]
    return Row(data, 1, member["name"], *figures, member["parameters"], member["cost_us"])


def row_of(data: str, size: int, way: str, card: ModelCard) -> Row:
    metrics = card.metrics
    figures = metrics["skill"], metrics["pinball"], metrics["coverage"]["0.9"]
    weights = sum(member["parameters"] for member in metrics["members"])
    return Row(data, size, way, *figures, weights, card.cost_us)


if __name__ == "__main__":
    run()
