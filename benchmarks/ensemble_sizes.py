"""What combining brings: one, three and five fitted models by every method, and each member alone, on oil temperatures
and loads of transformers and on hourly crypto prices. Prints the tables of docs/ensembles.md and leaves them in
results/ensemble_sizes.json.

    python benchmarks/ensemble_sizes.py

The newest bars of each series, 12 steps ahead, cut as any fit is. Every fit is an ordinary job, in this process.
Members see 72 bars; combinations see 96, of which `skill` takes 24 to look back on. Prices are also traded on what
follows the fit, by the job `backtest` with its own costs; oil temperatures have no price.
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
from tickcast.batch.backtest import backtest
from tickcast.batch.train import fit
from tickcast.engine.inference.model_folder import read_card
from tickcast.io.jobs.folder import BARS, MEMBERS
from tickcast.io.jobs.orders import FitOrder
from tickcast.records import ModelCard

RESULTS = Path(__file__).parent / "results" / "ensemble_sizes.json"
MEMBER_BARS, COMBINED_BARS, HORIZON = 72, 96, 12
BARS_OF_A_SERIES = 6_000
NET = {"batch_size": 256, "epochs": 4, "windows_per_epoch": 25_600}
MEMBERS_IN_ORDER: dict[str, dict[str, Any]] = {
    "nhits": NET, "ridge": {}, "gradient_boosting": {"model_params": {"trees": 20}}, "nlinear": NET, "theta": {},
}  # fmt: skip
DATA = {"ettm2": "level", "crypto_1h": "log_return"}  # and its transform
TRADED: dict[str, dict[str, Any]] = {  # and its bars
    "crypto_1h": {"kind": "time", "every_ms": 3_600_000, "on_gap": "carry", "calendar": "24x7"},
}
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
    directional: float | None  # hits among the labels that moved, 12 steps ahead and nearer
    sharpe: float | None  # a year, after costs, with the ends of its 90 % interval
    sharpe_low: float | None
    sharpe_high: float | None


UNTRADED: dict[str, float | None] = dict.fromkeys(Row._fields[-4:])


def run() -> None:
    rows: list[Row] = []
    for data in DATA:
        with tempfile.TemporaryDirectory() as folder:
            rows += measured(Path(folder), data)
    RESULTS.write_text(json.dumps([row._asdict() for row in rows], indent=1) + "\n")
    print("| data | members | how | skill | pinball | covered (90 %) | weights | us a forecast | hits | Sharpe |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for row in rows:
        traded = "" if row.sharpe is None else f"{row.sharpe:.2f} [{row.sharpe_low:.2f}, {row.sharpe_high:.2f}]"
        hits = "" if row.directional is None else f"{row.directional:.3f}"
        print(
            f"| {row.data} | {row.members} | {row.how} | {row.skill:.4f} | {row.pinball:.4f} | {row.coverage:.3f} | "
            f"{row.parameters:,} | {row.cost_us:.1f} | {hits} | {traded} |"
        )


def measured(folder: Path, data: str) -> Iterator[Row]:
    (folder / "bars").mkdir()
    write_bars(folder / "bars", data, FOLDS)
    bars = pl.read_parquet(folder / "bars" / BARS)
    newest = pl.int_range(pl.len()).over("symbol") >= pl.len().over("symbol") - BARS_OF_A_SERIES
    bars.filter(newest).write_parquet(folder / "bars" / BARS)
    models: list[Path] = []
    for kind, fields in MEMBERS_IN_ORDER.items():
        models.append(fitted(folder, data, kind, [], {"transform": DATA[data], "lookback": MEMBER_BARS, **fields}))
    for size in (3, 5):
        digests = [read_card(model).digest for model in models[:size]]
        for way, params in WAYS.items():
            kind = way if way == "gated" else "ensemble"
            own = {"model_params": {"members": digests, **params}}
            fields = {"transform": DATA[data], "lookback": COMBINED_BARS, **own}
            model = fitted(folder, data, kind, models[:size], fields)
            card = read_card(model)
            if (size, way) == (5, "mean"):
                for one, path in zip(card.metrics["members"], models, strict=True):
                    yield alone(data, one, traded(folder, data, path))
            yield row_of(data, size, way, card, traded(folder, data, model))


def fitted(folder: Path, data: str, kind: str, members: list[Path], fields: dict[str, Any]) -> Path:
    """The model's folder."""
    job = folder / f"{len([*folder.iterdir()])}-{kind}"
    job.mkdir()
    (job / BARS).symlink_to(folder / "bars" / BARS)
    for number, model in enumerate(members):
        shutil.copytree(model, job / MEMBERS / str(number))
    FitOrder(kind=kind, horizon=HORIZON, seed=1, bars=TRADED.get(data, {}), **fields).write(job)
    model = job / str(fit.run(job, lambda **_: True)["model"])
    card = read_card(model)
    print(f"{kind}: skill {card.metrics['skill']:.4f}; {card.description}", file=sys.stderr)
    return model


def traded(folder: Path, data: str, model: Path) -> dict[str, float | None]:
    """Hits and Sharpe ratio of the model on the bars that it was not fitted on."""
    if data not in TRADED:
        return UNTRADED
    card = read_card(model)
    job = folder / f"{len([*folder.iterdir()])}-backtest"
    shutil.copytree(model, job / "model")
    bars = pl.read_parquet(folder / "bars" / BARS)
    looked_back = (COMBINED_BARS + 1) * TRADED[data]["every_ms"] * 10**6  # by the first window
    bars.filter(pl.col("as_of_ns") > card.trained_to_ns - looked_back).write_parquet(job / BARS)
    settings = {
        "bars": TRADED[data], "window": {"lookback": card.lookback},
        "forecast": {"horizon": HORIZON, "transform": DATA[data]},
    }  # fmt: skip
    (job / "order.json").write_text(json.dumps({"job": "backtest", "settings": settings}))
    found = backtest.run(job, lambda **_: True)
    own = found["strategy"]
    print(f"{card.name}: Sharpe {own['sharpe']}, {own.get('trades')} trades", file=sys.stderr)
    return {
        "directional": found["skill"]["headline"].get("directional"),
        **{name: own[name] for name in ("sharpe", "sharpe_low", "sharpe_high")},
    }


def alone(data: str, member: dict[str, Any], traded: dict[str, float | None]) -> Row:
    figures = member["skill"], member["pinball"], member["coverage"]["0.9"]
    return Row(data, 1, member["name"], *figures, member["parameters"], member["cost_us"], **traded)


def row_of(data: str, size: int, way: str, card: ModelCard, traded: dict[str, float | None]) -> Row:
    metrics = card.metrics
    figures = metrics["skill"], metrics["pinball"], metrics["coverage"]["0.9"]
    weights = sum(member["parameters"] for member in metrics["members"])
    return Row(data, size, way, *figures, weights, card.cost_us, **traded)


if __name__ == "__main__":
    run()
