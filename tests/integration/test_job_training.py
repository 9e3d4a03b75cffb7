"""A real fit as a job: queued, trained in a bound child process, and its model opened by the code that serves."""

import shutil
from pathlib import Path

import pytest

from jobkit import hosting
from tickcast.batch.train.parity import probe_inputs
from tickcast.engine.inference.load import open_model
from tickcast.io.jobs.folder import BARS
from tickcast.io.jobs.host import WORKER
from tickcast.io.jobs.prepare import JobInputs
from trainkit import autoregressive, job, series


@pytest.mark.slow
@pytest.mark.usefixtures("cold_workers")
async def test_a_fit_runs_as_a_job_and_leaves_a_model_that_answers(tmp_path: Path) -> None:
    order = job(tmp_path / "made", [series(name, autoregressive(600, seed=i)) for i, name in enumerate("AB")], epochs=2)
    async with hosting(tmp_path, command=WORKER) as hosted:
        inputs = JobInputs(lambda folder: shutil.copy(tmp_path / "made" / BARS, folder / BARS))
        row = await hosted.host.submit(order, inputs, command_id="c1")
        row, result = await hosted.ended(row.id)
        assert (row.state, row.command_id, result["error"]) == ("done", "c1", "")
        assert (result["status"], row.step) == ("done", row.steps)
        assert "validation_loss" in hosted.events[-1].figures
        runner = open_model(hosted.host.folder_of(row.id) / result["model"])
    assert runner.card.metrics == result["metrics"]
    assert runner.predict(probe_inputs(runner.card, 2, seed=0)).shape == (2, 4, 5)
