"""docs/optimize.md: its commands run as they stand, and its tables are those of the code."""

import re
import shlex
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from docskit import run_commands
from tickcast import plugin
from tickcast.batch.tune.spaces import TRAINING
from tickcast.errors import BadSettings
from tickcast.io.jobs.orders import OF_TRAINING, Pruner, Sampler, TuneOrder
from tickcast.plugin import Parameter
from tickcast.records import ModelCard
from tickcast.ui.cli import main

PAGE = (Path(__file__).parents[2] / "docs" / "optimize.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"<!-- run -->\n```sh\n(.*?)```", PAGE, re.DOTALL)[0].splitlines()


def shown(space: dict[str, Parameter]) -> str:
    def one(parameter: Parameter) -> str:
        if parameter.kind == "choice":
            return ", ".join(msgspec.json.encode(choice).decode() for choice in parameter.choices)
        return f"{parameter.low:g}..{parameter.high:g}{' (log)' if parameter.log else ''}"

    return "; ".join(f"`{name}` {one(parameter)}" for name, parameter in space.items())


def spaces() -> str:
    kinds = [name for name in plugin.names("models") if hasattr(plugin.find("models", name), "space")]
    return "\n".join(f"| `{kind}` | {shown(plugin.find('models', kind).space) or 'training only'} |" for kind in kinds)


def test_the_page_shows_the_space_of_every_kind() -> None:
    table = re.findall(r"<!-- spaces -->\n\| kind \| parameters \|\n\| --- \| --- \|\n(.*?)\n<!--", PAGE, re.DOTALL)
    assert table == [spaces()]
    assert all(f"`{name}` " in PAGE for name in TRAINING)
    assert all(f"`{name}`" in PAGE for name in OF_TRAINING)


def test_the_page_names_every_key_of_the_order_and_every_sampler_and_pruner() -> None:
    assert all(f"`{name}`" in PAGE for name in TuneOrder.__struct_fields__)
    assert all(f"`{name}`" in PAGE for name in (*get_args(Sampler), *get_args(Pruner)))


@pytest.mark.slow
@pytest.mark.timeout(400)  # children of the lowest priority, each of which imports torch
def test_the_commands_of_the_page_search_and_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run_commands(PAGE, capfd)
    said = capfd.readouterr().out
    assert said.count("(default)") == 2
    assert said.count("On the hold-out, which the search never saw: ") == 2
    out = tmp_path / "out/optimize"
    assert said.count("the page is out/optimize/report.html") == 2
    assert "6 trials" in (out / "report.html").read_text()
    assert len((out / "trials.jsonl").read_bytes().splitlines()) == 6
    card = msgspec.json.decode((out / "model/card.json").read_bytes(), type=ModelCard)
    assert card.kind == "micro"
    assert main(shlex.split(COMMANDS[1])[1:]) == BadSettings.exit_code  # the folder holds a study
    assert "--resume" in capfd.readouterr().err
