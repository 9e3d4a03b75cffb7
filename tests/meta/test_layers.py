"""Imports point one way: cli -> app -> rooms -> vocabulary. The table is in layers.py; here it is applied and tried."""

import ast

import pytest
from layers import PURE, ROOMS, complaints
from source import DAEMON, OURS, python_files, tree


def module_name(path):
    root = next(root for root in OURS if root in path.parents)
    parts = path.relative_to(root.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def test_every_import_and_call_respects_its_layer():
    wrong = [what for path in python_files(*OURS) for what in complaints(module_name(path), tree(path))]
    assert not wrong, "\n" + "\n".join(wrong)


def test_every_folder_of_the_daemon_is_a_known_layer():
    folders = {path.name for path in DAEMON.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert folders <= ROOMS | {"app"}
    assert folders >= PURE


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("tickcast.columns", "from tickcast.core import bars"),
        ("tickcast.core.bars", "import tickcast.edges.tape"),
        ("tickcast.core.bars", "from tickcast import cli"),
        ("tickcast.core.bars", "import time"),
        ("tickcast.core.bars", "open('x')"),
        ("tickcast.core.bars", "from . import windows"),
        ("tickcast.registry.store", "from tickcast.core.bars import fold"),
        ("tickcast.control.commands", "from tickcast.core.engine import Engine"),
        ("tickcast.edges.tape", "import duckdb"),
        ("tickcast.edges.tape", "from tickcast.app import pump"),
        ("tickcast.app.pump", "import torch"),
        ("tickcast.app.daemon", "from tickcast_desk import replay"),
        ("tickcast.app.daemon", "from tickcast_trainer import fit"),
        ("tickcast_trainer.fit", "from tickcast.registry import store"),
        ("tickcast.app.daemon", "import rich"),
        ("tickcast.app.pump", "from tickcast import testing"),
        ("tickcast.app.pump", "import pickle"),
        ("tickcast.app.pump", "from uuid import uuid4"),
        ("tickcast.app.pump", "time.time()"),
        ("tickcast.app.pump", "numpy.load('x', allow_pickle=True)"),
        ("tickcast_plugins.models.holt", "from tickcast.core import windows"),
        ("tickcast_plugins.models.holt", "from tickcast_trainer import fit"),
    ],
)
def test_what_crosses_a_layer_is_caught(module, code):
    assert complaints(module, ast.parse(code))


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("tickcast.cli", "from tickcast_desk import demo"),
        ("tickcast.app.daemon", "from tickcast.core.engine import Engine"),
        ("tickcast_trainer.dataset", "from tickcast.core import windows"),
        ("tickcast.control.commands", "from tickcast.registry import models"),
        ("tickcast.core.bars", "from tickcast.columns import Bars"),
        ("tickcast.clock", "time.time_ns()"),
        ("tickcast_plugins.models.nhits", "import torch"),
        ("tickcast_plugins.features.rsi", "from tickcast_plugins.features import rolling"),
    ],
)
def test_what_points_downwards_is_allowed(module, code):
    assert not complaints(module, ast.parse(code))
