"""Compiles the kernels that every fit reads its windows with: a child that is held in its folder could keep none.

`python -m tickcast.batch.train.warm` runs before a child is held, when these sources were not compiled yet. It reads no
order, and so runs nothing but what is installed with this program.
"""

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tickcast.batch.train.dataset import load_dataset
from tickcast.io.jobs.folder import BARS
from tickcast.io.jobs.orders import FitOrder

ROWS = 200


def warm() -> None:
    order = FitOrder(lookback=4, horizon=2)
    with tempfile.TemporaryDirectory() as folder:
        pq.write_table(_bars(), Path(folder) / BARS)
        dataset = load_dataset(Path(folder), order)
    dataset.batch(dataset.parts.validation[:2])


def _bars() -> pa.Table:
    close = 100 + np.sin(np.arange(ROWS))
    return pa.table({
        "symbol": ["WARM"] * ROWS, "as_of_ns": np.arange(1, ROWS + 1) * 10**9, "tie": np.zeros(ROWS, np.int32),
        **dict.fromkeys(("open", "high", "low", "close"), close), "volume": np.ones(ROWS),
        "mask": np.ones(ROWS, np.uint8), "gap": np.zeros(ROWS, np.uint8),
    })  # fmt: skip


if __name__ == "__main__":
    warm()
