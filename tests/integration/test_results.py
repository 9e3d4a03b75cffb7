"""Where commands leave what they make: nothing that is not ours is changed, and it is refused before any work."""

import argparse
import os
from pathlib import Path

import pytest

from tickcast.errors import EXIT_OK, EXIT_REFUSED
from tickcast.ui import cli
from tickcast.ui.cli import main

DATA = "no-such-data.csv"  # work that began would stumble over it, and say so
ARGUMENTS = {  # command -> what it needs beside the place where its results go
    "demo": ["--headless", "--seconds", "1"],
    "replay": ["--data", DATA],
    "fit": ["--data", DATA],
    "evaluate": ["--data", DATA, "--model", "no-model"],
    "backtest": ["--data", DATA],
    "optimize": ["--data", DATA],
    "auto": ["--data", DATA],
    "keygen": ["--id", "me", "--role", "read"],
    "learn": ["pca", "--data", DATA],
    "synth": ["--symbols", "2", "--seconds", "1"],
    "install-units": [],
}
FILES = {"keygen": "key", "learn": "learnt.toml", "synth": "ticks.csv"}  # those that write one file, by a fitting name
Tree = dict[str, tuple[int, bytes]]


def writing() -> dict[str, str]:
    """Command -> the option that says where its results go; what a person names there may hold anything."""
    (commands,) = (a for a in cli.parser()._actions if isinstance(a, argparse._SubParsersAction))
    return {
        name: action.option_strings[0]
        for name, command in commands.choices.items()
        for action in command._actions
        if action.type is Path and action.dest in ("out", "to")
    }


def tree(folder: Path) -> Tree:
    """All that is below it: kind and rights, and content or target."""
    found = {}
    for path in sorted(folder.rglob("*")):
        link, file = path.is_symlink(), path.is_file()
        content = os.readlink(path).encode() if link else path.read_bytes() if file else b""
        found[str(path.relative_to(folder))] = path.lstat().st_mode, content
    return found


def lay_out(folder: Path, command: str) -> dict[str, Path]:
    """What a person may have, by what is wrong with it as a place for results."""
    precious = folder / "precious"
    (precious / "sub").mkdir(parents=True)
    (precious / "sub" / "notes.txt").write_text("keep")
    for name in (FILES.get(command, "report.json"), "card.json", "tickcast.service", "tickcast@.service"):
        (precious / name).write_text("mine")
    (folder / "precious.old").mkdir()
    (folder / "precious.old" / "backup.txt").write_text("mine")
    (folder / "file").write_text("mine")
    (folder / "link").symlink_to(precious / FILES[command] if command in FILES else precious)
    (folder / "nowhere").symlink_to(folder / "not-there")
    in_it = precious / FILES[command] if command in FILES else precious
    return {
        "foreign": in_it, "file": folder / "file", "link": folder / "link", "dangling": folder / "nowhere",
        "below a file": folder / "file" / "x.csv", "unwritable": Path("/proc/tickcast/x.csv"),
        "here": Path(), "above": Path(".."), "root": Path("/"),
    }  # fmt: skip


def test_every_command_that_writes_is_walked_here() -> None:
    assert set(writing()) == set(ARGUMENTS)


@pytest.mark.parametrize("command", ARGUMENTS)
def test_what_is_not_ours_is_refused_before_any_work_and_stays_as_it_is(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here, option = tmp_path / "here", writing()[command]
    here.mkdir()
    (here / "todo.txt").write_text("mine")
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    places = lay_out(tmp_path, command) | ({"home": tmp_path / "home"} if command not in FILES else {})
    if command == "install-units":  # its place is systemd's, where much else lies: only its own files are judged
        places = {name: places[name] for name in ("foreign", "file", "below a file", "unwritable")}
    before = tree(tmp_path)
    for what, place in places.items():
        code = main([command, *ARGUMENTS[command], option, str(place), "--set", f"runtime.folder={tmp_path}/run"])
        error = capsys.readouterr().err
        assert code == EXIT_REFUSED, (what, error)
        assert error.startswith("tickcast: "), what
        assert len(error.splitlines()) == 1, what
        assert str(place) in error, what
        assert error.rstrip().endswith(")"), f"{what}: no remedy in {error}"
        assert tree(tmp_path) == before, what


def test_a_folder_of_ours_is_used_again_and_what_a_person_put_there_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tape, out = tmp_path / "ticks.csv", tmp_path / "out"
    assert main(["synth", "--out", str(tape), "--symbols", "2", "--seconds", "5"]) == EXIT_OK
    again = ["replay", "--data", str(tape), "--out", str(out), "--set", f"runtime.folder={tmp_path}/run"]
    assert main(again) == EXIT_OK
    made = {path.name for path in out.iterdir()}
    (out / "notes.txt").write_text("mine")
    (out / "mine").mkdir()
    assert main(again) == EXIT_OK
    assert f"the report is in {out / 'report.html'}" in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == made | {"notes.txt", "mine"}
    assert (out / "notes.txt").read_text() == "mine"


def test_the_picture_of_a_demo_is_written_over_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "holiday.svg"
    picture.write_text("mine")
    demo = ["demo", "--headless", "--out", str(tmp_path / "demo"), "--picture", str(picture)]
    assert main(demo) == EXIT_REFUSED
    assert "holiday.svg is there already" in capsys.readouterr().err
    assert picture.read_text() == "mine"


def test_a_link_among_our_files_is_not_written_through(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, mine = tmp_path / "out", tmp_path / "mine.json"
    out.mkdir()
    (out / ".tickcast").touch()
    mine.write_text("mine")
    (out / "report.json").symlink_to(mine)
    assert main(["replay", "--data", DATA, "--out", str(out)]) == EXIT_REFUSED
    assert "report.json is a link" in capsys.readouterr().err
    assert mine.read_text() == "mine"
