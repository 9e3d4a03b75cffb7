"""A whole search with real fits: what it finds, what it must not look at, and what a kill or a stop leaves of it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from tickcast.batch.train import fit
from tickcast.batch.train.dataset import load_dataset
from tickcast.batch.tune.spaces import space_of
from tickcast.batch.tune.study import Study
from tickcast.batch.tune.tune import Search, run
from tickcast.clock import SystemClock
from tickcast.engine.inference.model_folder import CARD, read_card
from tickcast.errors import BadSettings
from tickcast.io.jobs.folder import BARS, CHAMPION, MODEL, TRIALS
from tickcast.io.jobs.orders import Against, FitOrder, TuneOrder, WarmStart, with_params
from tickcast.io.jobs.past import EarlierSearch, Past
from tickcast.io.store.ledger_rows import TrajectoryRow
from tickcast.records import ModelCard, TrialRow
from trainkit import autoregressive, job, model_of, series, trials_here

pytestmark = pytest.mark.slow

TRIALS_WANTED, BARS_OF_ALL = 8, 1200
HOLDOUT = 0.9  # where it begins
Rows = list[tuple[dict[str, Any], float | None, str]]


def write_job(folder: Path, *, frame: pl.DataFrame | None = None, **over: Any) -> TuneOrder:
    frame = series("A", autoregressive(BARS_OF_ALL, seed=1)) if frame is None else frame
    small = {"kind": "micro", "model_params": {}, "batch_size": 256, "epochs": 3, "windows_per_epoch": 512}
    made = job(folder, [frame], **small)
    order = TuneOrder(fit=made, trials=TRIALS_WANTED, seed=3)
    order = msgspec.structs.replace(order, **over)
    order.write(folder)
    return order


class Told:
    """A report that remembers."""

    def __init__(self) -> None:
        self.lines: list[dict[str, float]] = []

    def __call__(self, *, step: int, steps: int, **figures: float) -> bool:
        self.lines.append({"step": step, "steps": steps, **figures})
        return True


def searched(folder: Path, order: TuneOrder, report: Any) -> str:
    """The search alone, without the fit that follows it."""
    dataset = load_dataset(folder, order.fit)
    space, first = space_of(order, lambda wanted: fit.build(wanted, dataset))
    with Study(folder, order, space, first, fingerprint=order.fingerprint(dataset.digest)) as study:
        return Search(folder, order, study, report, SystemClock()).run()


def rows_of(folder: Path) -> list[TrialRow]:
    return [msgspec.json.decode(line, type=TrialRow) for line in (folder / TRIALS).read_bytes().splitlines()]


def what(folder: Path) -> Rows:
    return [(row.params, row.value, row.state) for row in rows_of(folder) if row.why != "interrupted"]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], Told]:
    folder, told = tmp_path_factory.mktemp("tune") / "whole", Told()
    write_job(folder)
    return folder, run(folder, told), told


def test_a_search_leaves_the_best_model_its_trials_and_what_they_tell(done: tuple[Path, dict[str, Any], Told]) -> None:
    folder, found, told = done
    rows = rows_of(folder)
    assert [row.number for row in rows] == list(range(TRIALS_WANTED))
    assert rows[0].params["layers"] == []  # the first is the order as it stands
    assert rows[0].params["learning_rate"] == 5e-3
    assert found["first"]["value"] == rows[0].value
    complete = {row.number: row.value for row in rows if row.state == "complete"}
    best = min(complete, key=complete.__getitem__)
    assert (found["best"]["number"], found["best"]["value"]) == (best, complete[best])
    assert sum(found["trials"].values()) == TRIALS_WANTED
    assert all(row.seconds > 0 and row.epochs >= 1 for row in rows if row.state != "failed")
    assert told.lines[-1] == {"step": TRIALS_WANTED + 1, "steps": TRIALS_WANTED + 1}


def test_the_model_is_the_best_trial_once_more(done: tuple[Path, dict[str, Any], Told]) -> None:
    folder, found, _ = done
    card = msgspec.json.decode((folder / found["model"] / CARD).read_bytes(), type=ModelCard)
    assert card.model_params.items() <= found["best"]["params"].items()
    assert card.metrics["fit"]["validation_loss"] == pytest.approx(found["best"]["value"], rel=1e-5)
    assert found["metrics"]["skill"] == card.metrics["skill"]  # told by the hold-out
    assert not list(folder.glob("best-*"))


def test_the_same_order_finds_the_same_and_never_looks_at_the_hold_out(
    done: tuple[Path, dict[str, Any], Told], tmp_path: Path
) -> None:
    close = autoregressive(BARS_OF_ALL, seed=1)
    cut = int(BARS_OF_ALL * HOLDOUT) + 1
    close[cut:] = close[cut - 1] * np.exp(np.cumsum(np.random.default_rng(0).normal(0, 0.05, BARS_OF_ALL - cut)))
    order = write_job(tmp_path, frame=series("A", close))
    assert (tmp_path / BARS).read_bytes() != (done[0] / BARS).read_bytes()
    assert searched(tmp_path, order, Told()) == "done"
    assert what(tmp_path) == what(done[0])


def test_a_search_begins_with_what_the_nearest_past_ones_found_and_goes_on_from_what_ran_out_of_time(
    done: tuple[Path, dict[str, Any], Told], tmp_path: Path
) -> None:
    """Here the past one had the same bars; with no past, and with none wanted, the second trial is the sampler's."""
    folder, found, _ = done
    known = TrajectoryRow(
        job="before", made_by="optimize", kind="micro", fit=msgspec.to_builtins(TuneOrder.read(folder).fit),
        params=found["best"]["params"], metric="pinball", skill=None, skill_low=None, skill_high=None, cost_us=None,
        signature=found["dataset"]["signature"], at_ns=1,
    )  # fmt: skip
    search = EarlierSearch(job="cut", signature=known.signature, trials=rows_of(folder)[:4])
    with trials_here():
        for name, past, most in (("with", Past(trajectories=[known]), 5), ("unwanted", Past(trajectories=[known]), 0)):
            write_job(tmp_path / name, trials=2, past_searches=most)
            past.write(tmp_path / name)
            again = run(tmp_path / name, Told())
            rows = rows_of(tmp_path / name)
            begun = {"before": 0.0} if most else {}
            assert (again["past"], [row.origin for row in rows]) == (begun, ["", *(begun or [""])])
            assert (rows[1].params == found["best"]["params"]) == bool(most)
            assert rows[0].value == rows_of(folder)[0].value
        write_job(tmp_path / "on", trials=6)
        Past(earlier=[search]).write(tmp_path / "on")
        again = run(tmp_path / "on", Told())
    taken = sum(row.state == "complete" for row in search.trials)
    assert (again["earlier"], len(rows_of(tmp_path / "on"))) == ({"cut": 4}, 6 - taken)
    assert again["best"]["number"] in [row.number for row in rows_of(tmp_path / "on")]


def test_a_search_against_who_serves_ends_with_a_model_of_all_bars(tmp_path: Path) -> None:
    """The hold-out judged the same parameters; the champion lies in the search's own folder."""
    frame = series("A", autoregressive(BARS_OF_ALL, seed=1))
    ridge: dict[str, Any] = {"kind": "ridge", "lookback": 8, "horizon": 2}
    job(tmp_path / "bad", [frame], model_params={"penalties": [1e6]}, **ridge)
    search = tmp_path / "search"
    made = job(search, [frame], model_params={}, **ridge, against=Against(alpha=0.05, most_bars=10**5, champion=True))
    shutil.copytree(model_of(tmp_path / "bad"), search / CHAMPION)
    TuneOrder(fit=made, trials=2).write(search)
    found = run(search, Told())
    card = read_card(search / found["model"])
    assert (found["model"], found["against"]["terms"]["refusal"]) == (MODEL, "")
    assert card.trained_to_ns == frame["as_of_ns"][-1] > card.metrics["judged"]["trained_to_ns"]
    assert found["dataset"]["hash"] == card.dataset_hash


def test_a_search_that_is_killed_goes_on_where_it_was(done: tuple[Path, dict[str, Any], Told], tmp_path: Path) -> None:
    order = write_job(tmp_path)
    with subprocess.Popen([sys.executable, "-m", "tickcast.io.jobs.worker", str(tmp_path)]) as child:
        try:
            limit = time.monotonic() + 150
            while not (tmp_path / TRIALS).exists() or len(rows_of_whole_lines(tmp_path)) < 3:
                assert time.monotonic() < limit
                time.sleep(0.01)
        finally:
            child.send_signal(signal.SIGKILL)
    before = rows_of_whole_lines(tmp_path)
    assert len(before) < TRIALS_WANTED
    assert searched(tmp_path, order, Told()) == "done"
    after = {row.number: row for row in rows_of(tmp_path)}
    assert [after[row.number] for row in before] == before  # their seconds too: none was fitted again
    assert what(tmp_path) == what(done[0])


def rows_of_whole_lines(folder: Path) -> list[TrialRow]:
    text = (folder / TRIALS).read_bytes()
    return [msgspec.json.decode(line, type=TrialRow) for line in text[: text.rfind(b"\n") + 1].splitlines()]


@pytest.mark.usefixtures("cold_workers")
def test_a_killed_worker_costs_its_trial_alone_and_a_search_that_is_stopped_fits_no_model(tmp_path: Path) -> None:
    write_job(tmp_path, metric="mse")
    killed: list[int] = []

    def report(*, step: int, steps: int, **figures: float) -> bool:
        if not killed and figures.get("trial") == 1:
            killed.extend(children())
            os.kill(killed[0], signal.SIGKILL)
        return step < 3

    found = run(tmp_path, report)
    assert (found["status"], "model" in found) == ("stopped", False)
    rows = rows_of(tmp_path)
    assert [row.state for row in rows[:3]] == ["complete", "failed", "complete"]
    assert (rows[0].value or 1) < 1e-3, "the square of an error in log returns, not a pinball loss in one-bar moves"
    assert rows[1].why == "worker_died: its process ended with -9"


def children() -> list[int]:
    """Workers alone: other tests of this process may have children of their own, a broker for one."""
    task = Path(f"/proc/self/task/{os.getpid()}/children")
    pids = [int(pid) for pid in task.read_text().split()]
    return [pid for pid in pids if b"/workers/" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_a_search_ends_when_its_time_is_over(tmp_path: Path) -> None:
    order = write_job(tmp_path, seconds=0.01)
    assert searched(tmp_path, order, Told()) == "out_of_time"
    assert [row.why for row in rows_of(tmp_path)] == ["interrupted"]


def test_a_search_with_a_start_is_refused(tmp_path: Path) -> None:
    order = write_job(tmp_path)
    begun = msgspec.structs.replace(order.fit, start=WarmStart(mode="warm"))
    msgspec.structs.replace(order, fit=begun).write(tmp_path)
    with pytest.raises(BadSettings, match="weights by seed"):
        run(tmp_path, Told())


def test_what_was_found_is_an_order_of_its_own(done: tuple[Path, dict[str, Any], Told]) -> None:
    best = done[1]["best"]["params"]
    order = with_params(FitOrder(kind="micro"), best)
    assert order.learning_rate == best["learning_rate"]
    assert order.model_params == {"layers": best["layers"], "preset": best["preset"]}
