"""What came of a job is kept once: its model is registered before the job is done, whatever stalls or dies."""

from pathlib import Path

import msgspec
import pytest

from jobkit import Rows, hosting
from registrykit import model_folder
from tickcast.errors import BadModel, StoreStalled
from tickcast.io.jobs.folder import Result
from tickcast.io.jobs.host import REGISTERED
from tickcast.records import JobRow


async def test_a_result_that_was_whole_when_the_daemon_died_counts_and_is_kept(tmp_path: Path) -> None:
    async with hosting(tmp_path) as hosted:
        row, _ = await hosted.done("end")
    as_it_was = msgspec.structs.replace(row, state="running", why="", ended_ns=0, result_json="")
    async with hosting(tmp_path, keeper=Keeping()) as again:
        assert await again.host.recover([as_it_was]) == []
        row, result = await again.ended(row.id)
        assert again.ledger.rows[row.id].state == "done"
        assert result["content"][REGISTERED] == "kept 1"


class Keeping:
    """Keeps as often as it is asked, after the errors that it is given; `states` are the stored ones by then."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.kept, self.ledger = [*errors], 0, Rows()
        self.states: list[str] = []

    async def __call__(self, row: JobRow, result: Result) -> Result:
        self.states += [stored.state for stored in self.ledger.rows.values()]
        if self.errors:
            raise self.errors.pop(0)
        self.kept += 1
        return msgspec.structs.replace(result, content={**result.content, REGISTERED: f"kept {self.kept}"})


async def test_what_a_job_made_is_kept_before_it_is_done_and_tried_again_while_the_store_takes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tickcast.io.jobs.host.RETRY_S", 0.01)
    keep = Keeping(StoreStalled("the disk is full"), StoreStalled("the disk is full"))
    async with hosting(tmp_path, keeper=keep, ledger=keep.ledger) as hosted:
        row, result = await hosted.done("end")
        assert (row.state, result["content"][REGISTERED]) == ("done", "kept 1")
        assert keep.states == ["running"] * 3
        failed, _ = await hosted.done("refuse")
        assert (failed.state, keep.kept) == ("failed", 1)


@pytest.mark.parametrize(
    ("error", "why"), [(BadModel("its name is taken"), "bad_model"), (KeyError("dataset"), "not_kept")]
)
async def test_what_can_never_be_kept_is_the_jobs_failure(tmp_path: Path, error: Exception, why: str) -> None:
    async with hosting(tmp_path, keeper=Keeping(error)) as hosted:
        row, result = await hosted.done("end")
        assert (row.state, row.why) == ("failed", why)
        assert str(error.args[0]) in result["error"]
        await hosted.host.resume(row.id)
        assert (await hosted.ended(row.id))[0].state == "done"


async def test_a_model_of_a_job_that_was_done_and_never_registered_is_kept_once_at_the_next_start(
    tmp_path: Path,
) -> None:
    async with hosting(tmp_path) as hosted:
        row, _ = await hosted.done("made", model_params={"model": str(model_folder(tmp_path / "model"))})
        plain, _ = await hosted.done("end")
    keep, rows = Keeping(), hosted.ledger.rows
    for _ in range(2):
        async with hosting(tmp_path, keeper=keep, ledger=hosted.ledger) as again:
            assert await again.host.recover([*rows.values()]) == []
            assert (await again.ended(row.id))[1]["content"][REGISTERED] == "kept 1"
            assert (await again.ended(plain.id))[0] == plain
    assert keep.kept == 1


async def test_a_result_that_was_whole_when_the_daemon_stopped_is_left_to_the_next_start(tmp_path: Path) -> None:
    async with hosting(tmp_path) as hosted:
        job = await hosted.submit("end_and_stay")
        await hosted.working(job)
    assert hosted.ledger.rows[job].state == "running"
    async with hosting(tmp_path, keeper=Keeping(), ledger=hosted.ledger) as again:
        await again.host.recover([*again.ledger.rows.values()])
        assert (await again.ended(job))[1]["content"][REGISTERED] == "kept 1"
