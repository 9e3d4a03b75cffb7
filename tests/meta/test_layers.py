"""Imports point downwards: ui -> live, batch -> loop -> io -> engine -> vocabulary <- plugins, as layers.py has it."""

import ast

import pytest
from layers import FLOORS, complaints
from source import DAEMON, OURS, python_files, tree

# Lines of each floor as they are. They only fall; what raises one is a decision in DECISIONS.md.
MOST_LINES = {
    "vocabulary": 3683, "engine": 9117, "io": 10494, "loop": 2648,
    "live": 5546, "batch": 8244, "ui": 5662, "plugins": 6701,
}  # fmt: skip


def module_name(path):
    root = next(root for root in OURS if root in path.parents)
    parts = path.relative_to(root.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def lines(paths):
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)


def test_every_import_and_call_respects_its_floor():
    wrong = [what for path in python_files(*OURS) for what in complaints(module_name(path), tree(path))]
    assert not wrong, "\n" + "\n".join(wrong)


def test_every_folder_is_a_floor():
    folders = {path.name for path in DAEMON.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert folders == {*FLOORS, "settings"}


def test_every_floor_stays_within_its_budget_of_lines():
    of = {floor: lines(python_files(DAEMON / floor)) for floor in FLOORS}
    of["plugins"] = lines(python_files(*OURS[1:]))
    of["vocabulary"] = lines(python_files(DAEMON)) - sum(of[floor] for floor in FLOORS)
    assert not {
        floor: f"{of[floor]} lines, {most} are allowed" for floor, most in MOST_LINES.items() if of[floor] > most
    }
    assert of.keys() == MOST_LINES.keys()


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("tickcast.columns", "from tickcast.engine.core import bars"),
        ("tickcast.settings.buses", "from tickcast.io.kafka import client"),
        ("tickcast.engine.core.bars", "import tickcast.io.tape.tape"),
        ("tickcast.engine.core.bars", "from tickcast.ui import cli"),
        ("tickcast.engine.core.bars", "import time"),
        ("tickcast.engine.core.bars", "open('x')"),
        ("tickcast.engine.core.bars", "from . import windows"),
        ("tickcast.engine.inference.load", "import torch"),
        ("tickcast.io.store.store", "from tickcast.loop import pump"),
        ("tickcast.io.tape.tape", "import duckdb"),
        ("tickcast.loop.pump", "from tickcast.live import daemon"),
        ("tickcast.loop.pump", "from tickcast.batch import replay"),
        ("tickcast.live.daemon", "from tickcast.batch import replay"),
        ("tickcast.live.daemon", "from tickcast.ui import view"),
        ("tickcast.live.daemon", "import torch"),
        ("tickcast.live.daemon", "import rich"),
        ("tickcast.live.daemon", "find('tickcast.batch.replay')"),
        ("tickcast.batch.replay", "from tickcast.live import daemon"),
        ("tickcast.batch.train.fit", "from tickcast.ui import view"),
        ("tickcast.batch.train.fit", "import rich"),
        ("tickcast.loop.pump", "from tickcast import testing"),
        ("tickcast.loop.pump", "import pickle"),
        ("tickcast.loop.pump", "from uuid import uuid4"),
        ("tickcast.loop.pump", "time.time()"),
        ("tickcast.loop.pump", "numpy.load('x', allow_pickle=True)"),
        ("tickcast_plugins.models.holt", "from tickcast.engine.core import windows"),
        ("tickcast_plugins.models.holt", "from tickcast.batch.train import fit"),
    ],
)
def test_what_crosses_a_floor_is_caught(module, code):
    assert complaints(module, ast.parse(code))


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("tickcast.ui.cli", "from tickcast.ui import demo"),
        ("tickcast.ui.demo", "from tickcast.live import daemon"),
        ("tickcast.live.daemon", "from tickcast.engine.core.engine import Engine"),
        ("tickcast.batch.replay", "from tickcast.loop.pump import Pump"),
        ("tickcast.batch.train.dataset", "from tickcast.engine.core import windows"),
        ("tickcast.engine.core.bars", "from tickcast.columns import Bars"),
        ("tickcast.live.daemon", "find('tickcast.features')"),
        ("tickcast.clock", "time.time_ns()"),
        ("tickcast_plugins.models.nhits", "import torch"),
        ("tickcast_plugins.features.rsi", "from tickcast_plugins.features import rolling"),
    ],
)
def test_what_points_downwards_is_allowed(module, code):
    assert not complaints(module, ast.parse(code))
