"""No command ends in a traceback: not for a wrong path or setting, no broker, no disk, nor a Ctrl-C at any moment."""

import argparse
import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from needs import need
from netkit import free_port
from tickcast.errors import EXIT_DIED, EXIT_OK, EXIT_REFUSED, EXIT_SECOND_SIGNAL
from tickcast.ui import cli, demo, topics
from tickcast.ui.cli import main

USAGE = 2
LIMIT_S = 90
QUICK = ["window.lookback=4", "forecast.horizon=2", "symbols.limit=16", "runtime.max_wait_s=1"]
NEEDED: dict[str, list[str]] = {  # command -> what it must be given; {} is the folder of the test
    "check": [], "demo": ["--headless", "--seconds", "1", "--out", "{}/demo"],
    "replay": ["--data", "{}/ticks.csv", "--out", "{}/replay"],
    "fit": ["--data", "{}/ticks.csv", "--out", "{}/model", "--model", "ar"],
    "evaluate": ["--data", "{}/ticks.csv", "--model", "{}/model", "--out", "{}/evaluate"],
    "backtest": ["--data", "{}/ticks.csv", "--out", "{}/backtest"],
    "optimize": ["--data", "{}/ticks.csv", "--out", "{}/study", "--trials", "2"],
    "auto": ["--data", "{}/ticks.csv", "--out", "{}/auto", "--kinds", "ar", "--budget-s", "4"],
    "recommend": ["--data", "{}/ticks.csv"], "import": ["{}/model"],
    "send": ["status", "--key-id", "me", "--key-file", "{}/key"],
    "keygen": ["--id", "me", "--role", "read", "--out", "{}/new-key"],
    "learn": ["pca", "--data", "{}/ticks.csv", "--out", "{}/learnt.toml"], "load": ["--data", "{}/ticks.csv"],
    "query": ["SELECT 1"], "run": [], "reshard": ["--slots", "2"], "install-units": ["--to", "{}/units"],
    "synth": ["--out", "{}/new.csv", "--symbols", "2", "--seconds", "2"], "schema": ["nosuch"],
    "topics": [], "reference": [], "kinds": [], "warm": [],
}  # fmt: skip
READING = [name for name, given in NEEDED.items() if "{}/ticks.csv" in given]


def line(command: str, folder: Path, *sets: str) -> list[str]:
    given = [part.replace("{}", str(folder)) for part in NEEDED[command]]
    deployment = [*QUICK, f"store.path={folder / 's.duckdb'}", f"runtime.folder={folder / 'run'}", *sets]
    return [command, *given, *(part for setting in deployment for part in ("--set", setting))]


def in_place(arguments: list[str], option: str, value: str) -> list[str]:
    where = arguments.index(option) + 1
    return [*arguments[:where], value, *arguments[where + 1 :]]


@pytest.fixture
def folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """With a small market in it."""
    assert main(["synth", "--out", str(tmp_path / "ticks.csv"), "--symbols", "3", "--seconds", "20"]) == EXIT_OK
    capsys.readouterr()
    return tmp_path


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str], codes: tuple[int, ...] = (EXIT_REFUSED,)) -> str:
    """What the command says as it ends; an exception that gets out of it fails the test."""
    code = main(arguments)
    error = capsys.readouterr().err
    assert code in codes, (arguments, error)
    assert "Traceback" not in error
    last = error.splitlines()[-1]
    assert last.startswith("tickcast: "), error
    return last


def test_every_command_is_driven_here() -> None:
    (commands,) = (a for a in cli.parser()._actions if isinstance(a, argparse._SubParsersAction))
    assert set(commands.choices) == set(NEEDED)


@pytest.mark.parametrize("command", NEEDED)
def test_a_wrong_setting_is_named(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "bars.evry_ms" in refused(line(command, tmp_path, "bars.evry_ms=1"), capsys)
    assert "every_ms" in refused(line(command, tmp_path, "bars.every_ms=fast"), capsys)
    nowhere = str(tmp_path / "nowhere.toml")
    assert nowhere in refused([*line(command, tmp_path), "--config", nowhere], capsys)
    assert str(tmp_path) in refused([*line(command, tmp_path), "--config", str(tmp_path)], capsys)


@pytest.mark.parametrize("command", READING)
def test_wrong_data_are_named(command: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "junk.parquet").write_bytes(os.urandom(2000))
    (folder / "empty.csv").touch()
    (folder / "other.csv").write_text("a,b\n1,2\n")
    (folder / "nothing").mkdir()
    for name in ("nowhere.csv", "junk.parquet", "empty.csv", "other.csv", "nothing", "ticks.csv/below"):
        if command == "evaluate":
            continue  # it looks at its model first
        wrong = in_place(line(command, folder), "--data", str(folder / name))
        assert name in refused(wrong, capsys)
    assert refused(line(command, folder, "codec.time_unit=s", "codec.fields.symbol=name"), capsys)


@pytest.mark.parametrize(
    ("command", "more"),
    [
        ("evaluate", []), ("import", []), ("send", []), ("query", []), ("schema", []),
        ("replay", ["--model", "{}/nowhere"]), ("replay", ["--model", "{}/ticks.csv"]), ("replay", ["--model", "{}"]),
        ("backtest", ["--model", "nosuch"]), ("backtest", ["--horizon", "9"]), ("fit", ["--start", "{}/nowhere"]),
        ("fit", ["--members", "{}/nowhere"]), ("fit", ["--model", "nosuch"]),
        ("optimize", ["--param", "x"]), ("optimize", ["--space", "x=1..y"]), ("optimize", ["--model", "nosuch"]),
        ("learn", ["--method", "nosuch"]), ("synth", ["--rate", "max"]),
        ("run", ["--set", "store.path=/proc/x/s.duckdb"]), ("load", ["--set", "store.path=/proc/x/s.duckdb"]),
        ("load", ["--set", "store.path={}/ticks.csv"]), ("fit", ["--set", "runtime.folder=/proc/x"]),
        ("evaluate", ["--model", "{}/ticks.csv"]), ("install-units", ["--to", "/proc/x"]),
    ],
)  # fmt: skip
def test_what_a_command_cannot_use_is_named(
    command: str, more: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [part.replace("{}", str(folder)) for part in more]
    refused([*line(command, folder), *given], capsys, codes=(EXIT_REFUSED, EXIT_DIED))


def test_a_study_that_is_not_there_cannot_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(["optimize", "--resume", str(tmp_path / "nowhere")], capsys)
    refused(["optimize", "--resume", str(tmp_path)], capsys)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["synth", "--to", "kafka", "--seconds", "1"],
        ["replay", "--from-kafka", "ticks"],
        ["reshard", "--slots", "2", "--set", "store.path=slot-{slot}/s.duckdb"],
    ],
)
def test_without_a_broker_its_address_is_named(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(topics, "MAX_WAIT_S", 0.2)
    monkeypatch.chdir(tmp_path)
    nobody = f"127.0.0.1:{free_port()}"
    sets = ["bus.kind=kafka", f"kafka.bootstrap_servers={nobody}", "runtime.max_wait_s=1", "symbols.limit=16"]
    flags = [part for setting in sets for part in ("--set", setting)]
    assert nobody in refused([*arguments, *flags], capsys, codes=(EXIT_DIED,))


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True, check=False
    )
    need(mounted.returncode == 0, "the right to mount a small disk: run this test as root")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.parametrize(
    "command",
    ["synth", "replay", "backtest", "load", "learn", "keygen", pytest.param("demo", marks=pytest.mark.slow)],
)
def test_a_full_disk_is_named(
    command: str, folder: Path, full_disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "HISTORY_S", 20)
    monkeypatch.setattr(demo, "set_up_logging", lambda *_, **__: None)
    arguments = line(command, full_disk, *([] if command == "load" else [f"store.path={folder / 's.duckdb'}"]))
    arguments = [part.replace(f"{full_disk}/ticks.csv", f"{folder}/ticks.csv") for part in arguments]
    if command == "synth":
        arguments = in_place(arguments, "--seconds", "100")
    if command in ("learn", "keygen", "load"):  # they need little
        (full_disk / "ballast").write_bytes(bytes(os.statvfs(full_disk).f_bavail * os.statvfs(full_disk).f_bsize))
    before = {path.name for path in full_disk.iterdir()}
    refused(arguments, capsys, codes=(EXIT_DIED, EXIT_REFUSED))
    if command in ("synth", "learn", "keygen"):
        assert {path.name for path in full_disk.iterdir()} == before, "no half of a file is left"


MOMENTS = [  # command, and the function in which a Ctrl-C comes
    ("check", "tickcast.ui.check:render"), ("check", "tickcast.settings:Settings.scored_horizons"),
    ("replay", "tickcast.io.tape.columns:read"), ("replay", "tickcast.loop.build:build"),
    ("replay", "tickcast.io.store.store:Store.open"), ("replay", "tickcast.engine.core.engine:Engine.turn"),
    ("replay", "tickcast.batch.replay:FileSink.encode"), ("replay", "tickcast.ui.pages.report:write_report"),
    ("load", "tickcast.io.tape.columns:read"), ("load", "tickcast.io.store.store:Store.write"),
    ("load", "tickcast.io.store.store:Store.close"), ("fit", "tickcast.batch.bar_history:write_bars"),
    ("fit", "tickcast.io.jobs.child:Child.progress"), ("optimize", "tickcast.io.jobs.child:Child.progress"),
    ("backtest", "tickcast.engine.core.engine:Engine.turn"), ("backtest", "tickcast.batch.backtest.series:read_series"),
    ("learn", "tickcast.batch.learn.unsupervised:learn"), ("synth", "tickcast.batch.synth:write_ticks"),
    ("demo", "tickcast.ui.demo:fit"), ("demo", "tickcast.ui.demo:DemoRun.trade"),
]  # fmt: skip


def interrupt_in(target: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A Ctrl-C as the function begins; returns where each that came is noted."""
    module, _, path = target.partition(":")
    *within, name = path.split(".")
    place: Any = importlib.import_module(module)
    for part in within:
        place = getattr(place, part)
    found, came = place.__dict__[name], []
    function: Callable[..., Any] = found.__func__ if isinstance(found, classmethod) else found

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        if not came:
            came.append(target)
            os.kill(os.getpid(), signal.SIGINT)
        return function(*args, **kwargs)

    for holder in [place] if within else [m for m in sys.modules.values() if getattr(m, name, None) is found]:
        monkeypatch.setattr(holder, name, classmethod(interrupted) if function is not found else interrupted)
    return came


def children() -> set[str]:
    """Of this process, those that still run."""
    found: set[str] = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # a thread that has ended meanwhile
            found.update((task / "children").read_text().split())
    return found


@pytest.mark.no_cover  # a Ctrl-C within the tracer leaves its lock taken for ever
@pytest.mark.usefixtures("cold_workers")  # a warm one may have failed before
@pytest.mark.parametrize(("command", "moment"), MOMENTS)
def test_a_ctrl_c_is_quiet_and_leaves_no_child_and_no_half_file(
    command: str, moment: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "HISTORY_S", 20)
    monkeypatch.setattr(demo, "set_up_logging", lambda *_, **__: None)  # its file is closed before other tests log
    if moment == "tickcast.ui.demo:DemoRun.trade":
        monkeypatch.setattr(demo, "_learn", lambda settings, *_: settings)
    importlib.import_module("tickcast.ui.backtest_command")
    importlib.import_module("tickcast.ui.pages.report")
    before, came = children(), interrupt_in(moment, monkeypatch)
    arguments = line(command, folder)
    if moment.endswith("scored_horizons"):
        arguments = ["check", *arguments[1:]]
    assert main(arguments) == EXIT_SECOND_SIGNAL
    assert came == [moment]
    said = [
        text
        for text in capsys.readouterr().err.splitlines()
        if not text.startswith("replay:") and " bars read; " not in text
    ]
    remedy = f"stopped; go on with tickcast optimize --resume {folder / 'study'}"
    assert said == [remedy if command == "optimize" else "stopped"]
    assert children() == before
    assert not [*folder.rglob("*.partial")]
    assert not (folder / "new.csv").exists()
    assert not [*(folder / "run").glob("jobs/*")]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


AT_IMPORT = """
import os, signal, sys
class Count:
    left = int(sys.argv[1])
    def find_spec(self, *_):
        Count.left -= 1
        if Count.left == 0:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Count())
from tickcast.__main__ import main
sys.argv = ["tickcast", "check"]
sys.exit(main())
"""


@pytest.mark.parametrize("which", [3, 60, 300])
def test_a_ctrl_c_while_modules_are_imported_is_quiet(which: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AT_IMPORT, str(which)], cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT_S,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (EXIT_SECOND_SIGNAL, "")
    assert done.stderr in ("", "stopped\n")


@pytest.mark.slow
def test_a_ctrl_c_at_a_terminal_ends_a_search_and_its_workers_quietly(folder: Path) -> None:
    """A terminal sends it to all processes of the group at once."""
    main(["synth", "--out", str(folder / "more.csv"), "--symbols", "3", "--seconds", "400", "--rate", "30"])
    arguments = in_place(line("optimize", folder), "--data", str(folder / "more.csv"))
    command = [sys.executable, "-m", "tickcast", *arguments, "--model", "nhits"]
    with (folder / "said").open("w") as said:
        child = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True)
        try:
            until = time.monotonic() + LIMIT_S
            while not (workers := workers_of(folder / "study")):
                assert time.monotonic() < until
                assert child.poll() is None, (folder / "said").read_text()
                time.sleep(0.02)
            os.killpg(child.pid, signal.SIGINT)
            assert child.wait(LIMIT_S) == EXIT_SECOND_SIGNAL
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
    assert "--resume" in (folder / "said").read_text()
    assert "Traceback" not in (folder / "said").read_text()
    until = time.monotonic() + LIMIT_S
    while any(Path(f"/proc/{pid}/cmdline").exists() and worked_on(pid, folder / "study") for pid in workers):
        assert time.monotonic() < until
        time.sleep(0.02)


def worked_on(pid: str, study: Path) -> bool:
    try:
        return str(study / "workers").encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def workers_of(study: Path) -> list[str]:
    """The processes that fit trials of the study."""
    return [path.name for path in Path("/proc").iterdir() if path.name.isdigit() and worked_on(path.name, study)]
