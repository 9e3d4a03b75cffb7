"""The commands of docs/getting-started.md and the program of docs/operations.md run as they stand."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tickcast.ui.cli import main
from trainkit import without_children

DOCS = Path(__file__).parents[2] / "docs"
START = (DOCS / "getting-started.md").read_text(encoding="utf-8")
OPERATIONS = (DOCS / "operations.md").read_text(encoding="utf-8")
FILES = re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", START, re.DOTALL)
COMMANDS = [
    line for block in re.findall(r"<!-- run -->\n```sh\n(.*?)```", START, re.DOTALL) for line in block.splitlines()
]


@pytest.mark.slow
def test_the_commands_of_getting_started_lead_to_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in FILES:
        Path(name).write_text(text)
    for command in COMMANDS:
        program, *arguments = shlex.split(command)
        assert program == "tickcast"
        with without_children():
            assert main(arguments) == 0, capfd.readouterr().err
        if arguments[0] == "query":
            rows = [json.loads(line) for line in capfd.readouterr().out.splitlines() if line.startswith("{")]
            assert {row["model"] for row in rows} >= {"nhits"}
            assert {row["step"] for row in rows} == {1, 2, 4}
    fitted, naive, own = (
        json.loads(Path(f"out/{name}/report.json").read_text()) for name in ("fitted", "naive", "own")
    )
    assert fitted["models"][0]["name"] == "nhits"
    assert naive["rejected"] == fitted["rejected"] == own["rejected"] == 0
    assert own["accepted"] == own["bars"] == 6


def test_the_page_runs_each_step_it_tells_of() -> None:
    assert [command.split()[1] for command in COMMANDS] == [
        "synth", "synth", "replay", "fit", "replay", "query", "replay"
    ]  # fmt: skip
    assert [name for name, _ in FILES] == ["my.toml", "own.csv"]


@pytest.mark.slow
def test_the_program_of_the_operations_page_prints_forecasts_and_ends(tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", OPERATIONS, re.DOTALL)
    (tmp_path / "program.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stderr
    published = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"id"')]
    assert published
    assert {forecast["symbol"] for forecast in published} == {"ACME"}
