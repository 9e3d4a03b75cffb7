"""The worked example of a page of the docs, run where the test stands: its commands in turn, then its program."""

import re
import runpy
import shlex
from pathlib import Path

import pytest

from tickcast.cli import main


def run_example(page: str, capfd: pytest.CaptureFixture[str]) -> list[str]:
    """The lines that the program printed."""
    (commands,) = re.findall(r"<!-- run -->\n```sh\n(.*?)```", page, re.DOTALL)
    for command in commands.splitlines():
        program, *arguments = shlex.split(command)
        assert program == "tickcast"
        assert main(arguments) == 0, capfd.readouterr().err
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    Path("program.py").write_text(program)
    capfd.readouterr()
    runpy.run_path("program.py")
    return capfd.readouterr().out.splitlines()
