"""What tests of data files share: small tables, and what a tape makes of a file."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from tickcast.columns import PACKED
from tickcast.io.tape.tape import Tape
from tickcast.settings import Settings, load

TICKS = pl.DataFrame(
    {
        "symbol": ["A", "B", "A", "B", "A"],
        "ts": [10, 20, 20, 30, 40],
        "price": [1.5, 2.5, 1.75, 2.25, 1.625],
        "size": [1.0, 2.0, 3.0, 4.0, 5.0],
    }
)
ENDINGS = [".parquet", ".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".ndjson"]


def settings(**overrides: str) -> Settings:
    return load(overrides={key.replace("__", "."): value for key, value in overrides.items()}, environ={})[0]


def records(path: Path, options: Settings | None = None, **cut: Any) -> npt.NDArray[Any]:
    tape = Tape(path, options or settings(), **cut)
    assert tape.codec == "packed"
    return np.concatenate([batch.data.view(PACKED)[batch.starts // PACKED.itemsize] for batch in tape])


def lines(path: Path, options: Settings | None = None, **cut: Any) -> list[bytes]:
    tape = Tape(path, options or settings(), **cut)
    assert tape.codec == "json"
    return [batch.message(row) for batch in tape for row in range(len(batch))]


def csv(folder: Path, text: str, name: str = "ticks.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path
