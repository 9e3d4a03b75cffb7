"""SIGKILL at every seam of a training job: its model is registered once, and job and command say what became of it."""

import subprocess
import sys
from pathlib import Path

import duckdb
import msgspec
import pytest
from killed_jobs import SEAMS

from registrykit import model_folder

pytestmark = pytest.mark.slow
ROWS_OF = {
    "versions": "SELECT digest, name, origin, tombstone_ns FROM versions",
    "jobs": "SELECT state, why, result_json->'$.content.registered.digest' FROM jobs",
    "datasets": "SELECT hash FROM datasets",
    "commands": "SELECT state, reply_json FROM commands ORDER BY sequence",
}


def test_a_job_of_a_daemon_that_was_killed_at_any_seam_is_registered_once_and_told(tmp_path: Path) -> None:
    model = model_folder(tmp_path / "model")
    folders = {seam: tmp_path / str(number) for number, seam in enumerate(SEAMS)}  # short: it holds a socket
    script = [sys.executable, str(Path(__file__).with_name("killed_jobs.py"))]
    command = [*script, str(model), *(f"{seam}={folder}" for seam, folder in folders.items())]
    environ = {"PYTHONPATH": str(Path(__file__).parents[1]), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, env=environ)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for seam, folder in folders.items():
        told = msgspec.json.decode((folder / "told.json").read_bytes())
        assert told["was"] == ("interrupted" if seam == "it runs" else "done"), seam
        assert told["reply"]["ok"], told
        digest = told["reply"]["result"]["digest"]
        assert told["reply"]["result"]["model"].startswith("small@")
        with duckdb.connect(str(folder / "store.duckdb"), read_only=True) as store:
            found = {name: store.execute(sql).fetchall() for name, sql in ROWS_OF.items()}
        assert found["versions"] == [(digest, "small", "fit", None)], seam
        assert found["jobs"] == [("done", "", f'"{digest}"')], seam
        assert len(found["datasets"]) == 1, seam
        (first, reply), (again, _) = found["commands"]
        assert (first, again) == ("done", "done")
        said = msgspec.json.decode(reply)
        job = told["reply"]["result"]["job"]
        assert said["ok"] if seam == "its command is done" else (said["error_code"], job in said["error"]) == (
            "interrupted", True,
        ), said  # fmt: skip
