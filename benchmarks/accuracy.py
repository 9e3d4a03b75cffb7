"""How well fits forecast: public series by the literature's protocol, and hourly crypto prices walked forward.

    python benchmarks/accuracy.py [--list] [--only TEXT ...]      fits what is missing, a result at a time
    python benchmarks/run.py accuracy                             the figures of what is there

A fit is an ordinary job folder (in build/accuracy, until its result is kept) in an ordinary training process, so both
this program and a fit that was killed go on where they were. Literature: the N-HiTS paper's split, each series
standardised by its training part, one model with shared weights, every test window (stride 1), transform `level`,
point = median. Crypto: 27 symbols, log returns; three folds, each cut as any fit is: no target of one part lies in
another, with an embargo of a horizon between.
"""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from accuracy_cases import CRYPTO, CRYPTO_HORIZON, NHITS_BARS, PAPERS, Case, first_cases, seeded_cases
from accuracy_data import TABLES, repeat_last, write_bars
from accuracy_results import Row, all_cases, choose, chosen_rows, is_there, keep, order_fields
from stats import Figure
from tickcast.batch.judge.hold_out import evaluate
from tickcast.batch.train.dataset import load_dataset
from tickcast.engine.inference.model_folder import read_card
from tickcast.engine.inference.onnx import OnnxRunner
from tickcast.figures import skill
from tickcast.io.jobs.folder import MEMBERS, MODEL, ORDER, Result, read_result
from tickcast.io.jobs.orders import FitOrder
from tickcast.records import ModelCard

JOBS = Path(__file__).parents[1] / "build" / "accuracy"
ENDS = {"done", "stopped_early", "out_of_time"}  # any other was told to stop: it will go on
TIMEOUT_S = 4 * 3600
VALIDATION_WINDOWS = 8_192


def run(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Fit what is missing of the accuracy tables.")
    parser.add_argument("--list", action="store_true", help="name the fits and whether they are there")
    parser.add_argument("--only", nargs="*", default=[], metavar="TEXT", help="fits whose names hold all of these")
    given = parser.parse_args(arguments)
    total = sum(matches(case, given.only) for case in all_cases())
    wanted = (case for case in in_turn() if matches(case, given.only))
    failed = 0
    for number, case in enumerate(wanted, 1):
        print(f"{number:>4} of {total} {case.name}: ", end="", flush=True)
        if given.list or is_there(case):
            print("there" if is_there(case) else "missing")
            continue
        try:
            row = fit(case)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            failed += 1
            print(f"FAILED: {error}", flush=True)
            continue
        keep(case, row)
        print(told(row), flush=True)
    return 1 if failed else 0


def matches(case: Case, texts: list[str]) -> bool:
    return all(text in case.name for text in texts)


def in_turn() -> Iterator[Case]:
    """What the first seed is worth under each setting decides what the other seeds fit."""
    yield from first_cases()
    yield from seeded_cases(choose())


def told(row: Row) -> str:
    return (
        f"MSE {row.mse:.4g} (last value {row.mse_naive:.4g}), MAE {row.mae:.4g} ({row.mae_naive:.4g}), "
        f"validation MSE {row.validation_mse:.4g}, {row.status} after {row.epochs} epochs and {row.seconds:.0f} s"
    )


def fit(case: Case) -> Row:
    """In a job folder that stays until the row is made: a killed fit goes on from its checkpoint."""
    folder, result = fitted(case)
    row = made(case, folder, result)
    for done in (*case.members, case):
        shutil.rmtree(folder_of(done), ignore_errors=True)
    return row


def fitted(case: Case) -> tuple[Path, Result]:
    """The job folder with the fitted model, and how the fit ended."""
    folder = prepared(case)
    result = read_result(folder)
    if result is None or not is_whole(result):
        result = trained(folder)
    if not is_whole(result):
        raise RuntimeError(f"the fit ended as '{result.status or result.error_code}': {result.error}")
    return folder, result


def folder_of(case: Case) -> Path:
    return JOBS / case.name.replace(" ", "-")


def is_whole(result: Result) -> bool:
    return result.ok and result.status in ENDS


def prepared(case: Case) -> Path:
    """The order is written last: a folder that holds it is whole."""
    folder = folder_of(case)
    if not (folder / ORDER).exists() or without_members(FitOrder.read(folder)) != case.order:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_bars(folder, case.data, case.fold)
        with_members(case, folder).write(folder)
    return folder


def with_members(case: Case, folder: Path) -> FitOrder:
    """The case's order, naming its members, which are fitted here and laid into the folder."""
    digests = []
    for number, member in enumerate(case.members):
        own, _ = fitted(member)
        shutil.copytree(own / MODEL, folder / MEMBERS / str(number))
        digests.append(read_card(own / MODEL).digest)
    params = case.order.model_params | ({"members": digests} if digests else {})
    return msgspec.structs.replace(case.order, model_params=params)


def without_members(order: FitOrder) -> FitOrder:
    params = {name: value for name, value in order.model_params.items() if name != "members"}
    return msgspec.structs.replace(order, model_params=params)


def trained(folder: Path) -> Result:
    subprocess.run([sys.executable, "-m", "tickcast.io.jobs.worker", str(folder)], check=False, timeout=TIMEOUT_S)
    result = read_result(folder)
    if result is None:
        raise RuntimeError("the fit left no result; it goes on from its checkpoint next time")
    return result


def made(case: Case, folder: Path, result: Result) -> Row:
    metrics, fitted, card = result.metrics, result.metrics["fit"], read_card(folder / MODEL)
    if case.data in TABLES:
        check_windows(case, metrics["mse_naive"], metrics["mae_naive"])
    return Row(
        name=case.name, data=case.data, horizon=case.horizon, model=case.model, setting=case.setting, seed=case.seed,
        fold=case.fold, order=order_fields(case.order), mse=metrics["mse"], mae=metrics["mae"],
        mse_naive=metrics["mse_naive"], mae_naive=metrics["mae_naive"], pinball=metrics["pinball"],
        pinball_naive=metrics["pinball_naive"], coverage=metrics["coverage"]["0.9"], windows=metrics["windows"],
        validation_mse=validation_mse(folder, case, card), lookback=case.order.lookback, parameters=card.parameters,
        cost_us=card.cost_us, status=result.status, epochs=fitted["epochs"], trained_windows=fitted["windows"],
        seconds=fitted["seconds"], dataset_hash=card.dataset_hash,
    )  # fmt: skip


def check_windows(case: Case, mse: float, mae: float) -> None:
    """The fit's test windows are the literature's only if last value errs on them as it does on the bare files."""
    own = repeat_last(case.data, case.horizon)
    if not np.allclose(own, (mse, mae), rtol=0, atol=1e-6):
        raise AssertionError(f"{case.name}: repeat-last is {own} by itself and {mse, mae} in the fit")


def validation_mse(folder: Path, case: Case, card: ModelCard) -> float:
    """What settings are chosen by. Evenly spaced windows, the same for every setting."""
    dataset = load_dataset(folder, case.order)
    rows = dataset.parts.validation
    rows = rows[np.linspace(0, len(rows) - 1, min(VALIDATION_WINDOWS, len(rows))).astype(np.int64)]
    runner = OnnxRunner(folder / MODEL, card)
    return float(evaluate(runner.predict, np.array(card.last_value), dataset, rows, card.levels)["mse"])


def main() -> list[Figure]:
    figures = []
    for (data, horizon), bar in NHITS_BARS.items():
        if rows := chosen_rows(f"{data}-{horizon}").get("nhits"):
            worst, paper = max(row.mse for row in rows), PAPERS[data, horizon]["nhits"][0]
            note = f"{len(rows)} seeds, worst {worst:.4f}; paper {paper}"
            figures.append(Figure(f"{data} {horizon}, nhits: MSE", _mean(rows, "mse"), "standardised", bar, note=note))
    for model, rows in chosen_rows(f"{CRYPTO}-{CRYPTO_HORIZON}").items():
        note = f"{sum(row.windows for row in rows):,} windows in {len(rows)} folds"
        gain = float(skill(_mean(rows, "pinball"), _mean(rows, "pinball_naive")))
        figures.append(
            Figure(f"{CRYPTO}, {model}: pinball against last value", gain, "skill", None, "higher", note=note)
        )
    return figures


def _mean(rows: list[Row], name: str) -> float:
    return float(np.mean([getattr(row, name) for row in rows]))


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
