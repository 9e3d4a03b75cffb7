"""The child's own part of a job: which body an order calls for, and the code of each failure."""

import errno
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tickcast.errors import BadData
from tickcast.io.jobs import worker
from tickcast.io.jobs.folder import ORDER, PROGRESS, Result


@pytest.fixture
def body(monkeypatch: pytest.MonkeyPatch) -> type:
    """What `import` gives for every body; a test says what its `run` does."""

    class Body:
        run: Any = None

    monkeypatch.setattr(worker, "body_of", lambda order: Body.run)
    return Body


def work(folder: Path, order: bytes = b"{}", **options: Any) -> Result:
    (folder / ORDER).write_bytes(order)
    return worker.work(folder, **options)


@pytest.mark.parametrize(
    ("order", "said"),
    [(b'{"job":"dance"}', "no job named 'dance'"), (b'{"job":["train"]}', "no job named"), (b"{", ""), (b"[]", "")],
)
def test_an_order_that_names_no_job_is_refused(tmp_path: Path, order: bytes, said: str) -> None:
    result = work(tmp_path, order)
    assert (result.ok, result.error_code) == (False, "invalid_config")
    assert said in result.error


def test_a_folder_without_an_order_is_refused(tmp_path: Path) -> None:
    assert worker.work(tmp_path).error_code == "bad_data"


def test_the_result_holds_what_every_job_has_and_apart_from_it_what_this_one_found(tmp_path: Path, body: Any) -> None:
    body.run = lambda folder, report: {"model": "model", "status": "done", "metrics": {"mae": 1.0}, "sharpe": 0.5}
    found = work(tmp_path)
    assert found == Result(ok=True, model="model", status="done", metrics={"mae": 1.0}, content={"sharpe": 0.5})


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BadData("empty"), "bad_data"),
        (MemoryError(), "out_of_memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"), "out_of_memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "out_of_memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "job_failed"),
        (OSError(errno.EFBIG, "File too large"), "disk"),
        (RuntimeError("I/O error: File too large (os error 27)"), "disk"),
        (RuntimeError("shapes differ"), "job_failed"),
        (ZeroDivisionError("x" * 10_000), "job_failed"),
    ],
)
def test_every_error_has_a_stable_code_and_a_bounded_text(
    tmp_path: Path, body: Any, error: Exception, code: str
) -> None:
    def run(folder: Path, report: Any) -> dict[str, Any]:
        raise error

    body.run = run
    result = work(tmp_path)
    assert (result.ok, result.error_code) == (False, code)
    assert 0 < len(result.error) <= worker.MOST_ERROR


def test_who_asks_it_to_stop_is_heard_at_the_next_report(tmp_path: Path, body: Any) -> None:
    answers = iter([False, True])
    body.run = lambda folder, report: {"content": [report(step=1, steps=2), report(step=2, steps=2, loss=0.5)]}
    assert work(tmp_path, asked_to_stop=lambda: next(answers)).content == {"content": [True, False]}
    lines = (tmp_path / PROGRESS).read_bytes().splitlines()
    assert msgspec.json.decode(lines[1]) == {"step": 2, "steps": 2, "loss": 0.5}
