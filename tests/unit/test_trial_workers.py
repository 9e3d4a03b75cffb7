"""The processes of a search, played by small programs: they answer, die, hang and talk out of turn."""

import io
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tickcast.batch.train.dataset import load_dataset
from tickcast.batch.tune import trial_workers
from tickcast.batch.tune.trial_worker import Ended, EpochReport, Failed, Task, Told, Verdict, work
from tickcast.batch.tune.trial_workers import MOST_DEATHS, TrialWorkers
from tickcast.clock import SystemClock
from tickcast.errors import BadModel
from tickcast.io.jobs import host
from tickcast.io.jobs.orders import FitOrder
from trainkit import job, walk
from trainkit import series as bars_of

ANSWERS = """
import json, os, sys
def tell(kind, **what):
    os.write(0, json.dumps({"type": kind, "number": number, **what}).encode() + b"\\n")
for line in sys.stdin:
    number = json.loads(line)["number"]
    for epoch in (1, 2, 3):
        tell("EpochReport", epoch=epoch, loss=1.0)
        if not json.loads(sys.stdin.readline())["go_on"]:
            break
    tell("Ended", value=float(os.getpid()), epochs=epoch, seconds=1)
"""
DIES = "import os, sys; sys.stdin.readline(); os._exit(3)"
HANGS = "import time; time.sleep(600)"


Played = Callable[..., AbstractContextManager[TrialWorkers]]


@pytest.fixture
def workers_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Played:
    def played(text: str, size: int = 1, *, budget_s: float = 600.0) -> TrialWorkers:
        monkeypatch.setattr(host, "WORKER", (sys.executable, "-S", "-c", text))
        return TrialWorkers(tmp_path, size, budget_s=budget_s, clock=SystemClock())

    return played


def until_all_ended(workers: TrialWorkers, epochs: int = 3) -> list[Told]:
    """All but the epochs; a trial is given up after `epochs`."""
    ends: list[Told] = []
    while workers.is_busy:
        for told in workers.told(10):
            if isinstance(told, EpochReport):
                workers.answer(told.number, go_on=told.epoch < epochs)
            else:
                ends.append(told)
    return ends


def test_a_worker_is_used_again_and_a_trial_that_is_given_up_ends_at_its_epoch(workers_of: Played) -> None:
    with workers_of(ANSWERS) as workers:
        ends = []
        for number, epochs in ((4, 3), (5, 2)):
            workers.give(number, FitOrder())
            assert not workers.has_room
            ends += until_all_ended(workers, epochs)
    first, second = ends
    assert isinstance(first, Ended)
    assert isinstance(second, Ended)
    assert first.value == second.value  # one process
    assert [(end.number, end.epochs) for end in (first, second)] == [(4, 3), (5, 2)]


def test_several_workers_answer_side_by_side(workers_of: Played) -> None:
    with workers_of(ANSWERS, 3) as workers:
        for number in range(3):
            workers.give(number, FitOrder())
        ends = until_all_ended(workers)
    assert {end.number for end in ends} == {0, 1, 2}
    assert len({end.value for end in ends if isinstance(end, Ended)}) == 3


def test_a_worker_that_dies_fails_its_trial_and_is_replaced_but_not_for_ever(workers_of: Played) -> None:
    with workers_of(DIES) as workers:
        for number in range(MOST_DEATHS - 1):
            workers.give(number, FitOrder())
            (end,) = until_all_ended(workers)
            assert isinstance(end, Failed)
            assert (end.number, end.error_code, end.error) == (number, "worker_died", "its process ended with 3")
        workers.give(99, FitOrder())
        with pytest.raises(BadModel, match=f"{MOST_DEATHS} processes"):
            until_all_ended(workers)


def test_a_worker_that_hangs_is_ended(workers_of: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_workers, "LATE_S", 0.1)
    with workers_of(HANGS, budget_s=0.05) as workers:
        workers.give(1, FitOrder())
        told: list[Told] = []
        while not told:
            told += workers.told(0.05)
        assert not workers.is_busy
    assert isinstance(told[0], Failed)
    assert told[0].error_code == "hung"


def test_no_process_is_left_when_a_search_is_over(workers_of: Played) -> None:
    with workers_of(HANGS) as workers:
        workers.give(1, FitOrder())
        pid = workers._workers[0].child._process.pid
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def small_job(folder: Path, **order: Any) -> FitOrder:
    asked = {"kind": "micro", "model_params": {}, "batch_size": 256, "epochs": 3, "windows_per_epoch": 256}
    return job(folder, [bars_of("A", walk(600, seed=1))], **{**asked, **order})


def told_by_worker(folder: Path, order: FitOrder, tasks: list[FitOrder], verdicts: list[bool]) -> list[Told]:
    """What the body of a worker says to these tasks, each with all verdicts behind it."""
    lines: list[Any] = []
    for number, task in enumerate(tasks):
        lines += [Task(number, task), *map(Verdict, verdicts)]
    given, said = io.BytesIO(b"".join(msgspec.json.encode(line) + b"\n" for line in lines)), io.BytesIO()
    work(load_dataset(folder, order), "pinball", given, said, SystemClock())
    return [msgspec.json.decode(line, type=Told) for line in said.getvalue().splitlines()]  # type: ignore[arg-type]


def test_a_fit_tells_each_epoch_and_its_pinball_and_repeats_itself(tmp_path: Path) -> None:
    order = small_job(tmp_path)
    told = told_by_worker(tmp_path, order, [order, order], [True] * 3)
    kinds = [type(message).__name__ for message in told]
    assert kinds == ["EpochReport"] * 3 + ["Ended"] + ["EpochReport"] * 3 + ["Ended"]
    losses = [message.loss for message in told if isinstance(message, EpochReport)]
    first, second = (message for message in told if isinstance(message, Ended))
    assert losses[:3] == losses[3:]
    assert first.value == second.value == pytest.approx(min(losses), rel=1e-5)  # the loss is the pinball here
    assert first.epochs == 3


def test_a_trial_that_is_given_up_trains_no_further(tmp_path: Path) -> None:
    order = small_job(tmp_path)
    told = told_by_worker(tmp_path, order, [order], [True, False])
    assert [type(message).__name__ for message in told] == ["EpochReport", "EpochReport", "Ended"]
    assert isinstance(told[-1], Ended)
    assert (told[-1].value, told[-1].epochs) == (None, 2)


def test_losses_of_other_kinds_are_judged_by_the_same_pinball(tmp_path: Path) -> None:
    order = small_job(tmp_path)
    tasks = [msgspec.structs.replace(order, loss="mse"), msgspec.structs.replace(order, kind="ridge", epochs=1)]
    told = told_by_worker(tmp_path, order, tasks[:1], [True] * 3) + told_by_worker(tmp_path, order, tasks[1:], [])
    values = [message.value for message in told if isinstance(message, Ended)]
    assert len(values) == 2
    assert all(value is not None and 0.1 < value < 2 for value in values)  # one-bar moves of a random walk
    assert not [
        message for message in told[4:] if isinstance(message, EpochReport)
    ]  # a ridge has no epochs to prune at


def test_a_fit_that_fails_says_why_and_the_worker_goes_on(tmp_path: Path) -> None:
    order = small_job(tmp_path)
    bad = msgspec.structs.replace(order, model_params={"layers": [512, 512]})
    broken = msgspec.structs.replace(order, model_params={"preset": "sentiment"})
    told = told_by_worker(tmp_path, order, [bad], []) + told_by_worker(tmp_path, order, [broken, order], [])[:1]
    assert all(isinstance(message, Failed) and message.error_code == "invalid_config" for message in told)
    assert "10,000" in told[0].error  # type: ignore[union-attr]
    assert np.isfinite(told[0].seconds)  # type: ignore[union-attr]
