"""Compiles every kernel into numba's cache by running a small market through the whole path."""

import tempfile
from pathlib import Path

import uvloop

from tickcast.app import synth
from tickcast.app.replay import Order, in_folder, replay
from tickcast.settings import load

SYMBOLS, SECONDS = 5, 60
PATHS = ({"bars.kind": "time"}, {"bars.kind": "tick"})


def warm() -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        for suffix in (".parquet", ".jsonl"):
            synth.write(out / f"ticks{suffix}", symbols=SYMBOLS, seconds=SECONDS, seed=1)
        for number, path in enumerate(PATHS):
            settings = load(overrides=path, environ={})[0]
            for suffix in (".parquet", ".jsonl"):
                order = Order(out / f"ticks{suffix}", out / f"{number}{suffix}")
                uvloop.run(replay(in_folder(settings, order.out), order))
