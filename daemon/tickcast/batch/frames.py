"""Forecasts and scores as Parquet files, row group by row group: what a replay leaves for other tools.

The columns are the fields of the published records. Nothing is kept in memory.
"""

from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tickcast.columns import F64, U64, BarBatch, Forecasts, Scores
from tickcast.engine.core.channels import MISSING
from tickcast.engine.core.ladder import RUNGS
from tickcast.engine.records.as_arrow import columns_of
from tickcast.engine.records.fields import Deployment, Facts
from tickcast.engine.records.published import FORECASTS
from tickcast.errors import Quality
from tickcast.loop.build import Serving

ROW_GROUP = 100_000
OF_PUBLISHING = ("age_ms", "expires_ns", "produced_ns", "device", "schema")


def _lists(values: npt.NDArray[np.generic]) -> pa.Array:
    """[N, K] as N lists, [N, K, M] as N lists of K lists."""
    inner = pa.array(values.reshape(-1)) if values.ndim == 2 else _lists(values.reshape(-1, values.shape[2]))
    return pa.ListArray.from_arrays(pa.array(np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]), inner)


def _hex(*words: U64) -> list[str]:
    whole = np.column_stack(words).astype(">u8").tobytes().hex()
    width = 16 * len(words)
    return [whole[i : i + width] for i in range(0, len(whole), width)]


def _names(codes: npt.NDArray[np.integer], names: list[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(names, pa.string())).cast(
        pa.string()
    )


def forecast_table(forecasts: Forecasts, serving: Serving) -> pa.Table:
    """The published fields but those of the moment of publishing, and whether the model had seen what it forecast."""
    deployment = Deployment.of(serving.settings, serving.cards, list(RUNGS))
    facts = Facts(forecasts, serving.symbols, serving.engine.builder.sources(), deployment=deployment)
    columns = {name: column for name, column in columns_of(FORECASTS, facts).items() if name not in OF_PUBLISHING}
    place = columns.pop("source")
    columns |= dict(zip(("topic", "partition", "offset"), place.flatten(), strict=True))
    return pa.table(columns | {"in_sample": (forecasts.flags & Quality.IN_SAMPLE) != 0})


def score_table(scores: Scores, serving: Serving) -> pa.Table:
    s, horizons = scores, np.array(serving.engine.scorekeeper.horizons)
    return pa.table(
        {
            "id": _hex(s.id_high, s.id_low), "symbol": _names(s.symbol, serving.symbols.names()), "as_of_ns": s.as_of,
            "settled_ns": s.settled_ns, "model": _names(s.model, [c.name for c in serving.cards]), "anchor": s.anchor,
            "scale": s.scale, "horizons": _lists(np.broadcast_to(horizons, (len(s), len(horizons)))),
            "actual": _lists(s.actual), "point": _lists(s.point), "pinball": _lists(s.pinball),
            "loss": _lists(s.loss), "loss_naive": _lists(s.loss_naive),
            "covered": _lists(s.covered.astype(bool)), "in_sample": s.in_sample.astype(bool),
            "regime": s.regime, "odd_pct": pa.array(s.odd, mask=s.odd == MISSING),
        }
    )  # fmt: skip


def bar_table(bars: BarBatch, serving: Serving) -> pa.Table:
    """Closed bars under the names that training and loading know."""
    columns: dict[str, F64 | pa.Array] = {
        "symbol": _names(bars.symbol, serving.symbols.names()),
        "as_of_ns": bars.as_of,
    }
    for name in ("ordinal", "tie", "open", "high", "low", "close", "volume", "ticks", "mask", "gap"):
        columns[name] = getattr(bars, name)
    return pa.table(columns)


class TableFile:
    """A Parquet file that grows; it appears under its name only when it is whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = 0
        self._partial = path.with_suffix(path.suffix + ".partial")
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        if self._writer is not None:
            self._writer.close()
            if kind is None:
                self._partial.replace(self.path)

    def write(self, table: pa.Table) -> None:
        self.rows += len(table)
        self._waiting.append(table)
        self._waiting_rows += len(table)
        if self._waiting_rows >= ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting)
        self._waiting, self._waiting_rows = [], 0
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._partial, table.schema, compression="zstd")
        self._writer.write_table(table)
