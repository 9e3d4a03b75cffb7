"""The examples of docs/data.md and docs/replay.md work as they stand."""

import re
import shlex
from pathlib import Path

import pytest

from tickcast.io.tape.tape import Tape
from tickcast.settings import load
from tickcast.ui.cli import parser

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLE = re.compile(r"```toml\n(.*?)```\n```(csv|jsonl)\n(.*?)```", re.DOTALL)
EXAMPLES = EXAMPLE.findall((DOCS / "data.md").read_text())
COMMANDS = [
    line
    for page in ("data.md", "replay.md")
    for block in re.findall(r"```sh\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    for line in block.splitlines()
]


@pytest.mark.parametrize("example", range(len(EXAMPLES)))
def test_each_data_example_is_a_tape_of_all_its_rows(tmp_path: Path, example: int) -> None:
    toml, kind, text = EXAMPLES[example]
    (tmp_path / "settings.toml").write_text(toml)
    (tmp_path / f"data.{kind}").write_text(text)
    options, _ = load([tmp_path / "settings.toml"], environ={})
    tape = Tape(tmp_path / f"data.{kind}", options)
    found = sum(len(batch) for batch in tape)
    rows = len(text.splitlines()) - (kind == "csv")
    series = text.splitlines()[0].count(",") if options.codec.layout == "wide" else 1
    assert found == rows * series * (4 if tape.kind == "bars" else 1)
    stamped = re.match(r"\d+ ", text) is not None
    assert all((batch.stamps_ns >= 0).all() == stamped for batch in tape)


def test_the_page_shows_every_kind_of_file() -> None:
    assert len(EXAMPLES) == 7


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_is_understood(command: str) -> None:
    program, *arguments = shlex.split(command)
    assert program == "tickcast"
    args = parser().parse_args(arguments)
    load(overrides=dict(pair.split("=", 1) for pair in args.set), environ={})


def test_every_option_of_replay_is_on_its_page() -> None:
    page = (DOCS / "replay.md").read_text()
    text = parser()._subparsers._group_actions[0].choices["replay"].format_help()  # type: ignore[union-attr, index]
    for option in set(re.findall(r"--[a-z]+", text)) - {"--help"}:
        assert f"`{option}" in page, option
