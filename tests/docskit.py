"""What a page of the docs shows, done: its commands run where the test stands, its program, its plugin installed."""

import re
import runpy
import shlex
import tomllib
from pathlib import Path

import pytest

from tickcast.ui.cli import main
from trainkit import without_children


def run_commands(page: str, capfd: pytest.CaptureFixture[str]) -> None:
    found = re.findall(r"<!-- run -->\n```sh\n(.*?)```", page, re.DOTALL)
    assert found
    for command in "".join(found).splitlines():
        program, *arguments = shlex.split(command)
        assert program == "tickcast"
        with without_children():
            assert main(arguments) == 0, capfd.readouterr().err


def run_example(page: str, capfd: pytest.CaptureFixture[str]) -> list[str]:
    """The commands, then the program; the lines that it printed."""
    run_commands(page, capfd)
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    Path("program.py").write_text(program)
    capfd.readouterr()
    runpy.run_path("program.py")
    return capfd.readouterr().out.splitlines()


def install(site: Path, sources: dict[str, str], project: str) -> None:
    """Modules by name, and the entry points of the page's pyproject.toml, as a package installed in `site`."""
    (info := site / "example-0.1.dist-info").mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: example\nVersion: 0.1\n")
    ((group, names),) = tomllib.loads(project)["project"]["entry-points"].items()
    points = "\n".join(f"{name} = {target}" for name, target in names.items())
    (info / "entry_points.txt").write_text(f"[{group}]\n{points}\n")
    for name, source in sources.items():
        (site / f"{name}.py").write_text(source)
