"""The bars that a replay has closed so far, as a fit within it reads them: none that closes later is among them."""

import numpy as np
import pyarrow as pa
import pyarrow.compute

from tickcast.batch.frames import bar_table
from tickcast.columns import I64
from tickcast.engine.core.events import Outcome
from tickcast.loop.build import Serving


class BarsSoFar:
    def __init__(self, symbols: int) -> None:
        """At most so many symbols."""
        self._tables: list[pa.Table] = []
        self._closed = np.zeros(symbols, np.int64)

    def add(self, outcome: Outcome, serving: Serving) -> None:
        for bars in outcome.bars:
            self._tables.append(bar_table(bars, serving))
            np.add.at(self._closed, bars.symbol, bars.mask.astype(np.int64))

    def busiest(self) -> int:
        """Real bars of the symbol that closed most."""
        return int(self._closed.max())

    def table(self) -> pa.Table:
        """All of them, sorted as a fit reads them."""
        table = pa.concat_tables(self._tables)
        table = table.sort_by([("symbol", "ascending"), ("ordinal", "ascending")])
        self._tables = [table]
        return table

    def newest(self, keep: int) -> pa.Table:
        """So many of every symbol; 0 = all."""
        table = self.table()
        if not keep:
            return table
        symbol = np.unique(table.column("symbol").to_numpy(), return_inverse=True)[1]
        ends: I64 = np.searchsorted(symbol, symbol, side="right")
        return table.filter(pa.array(ends - np.arange(len(symbol)) <= keep))

    def since(self, from_ns: int) -> pa.Table:
        """Those that end then or later."""
        table = self.table()
        return table.filter(pa.compute.greater_equal(table["as_of_ns"], from_ns)) if from_ns else table
