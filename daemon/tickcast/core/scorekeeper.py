"""The Scorekeeper: book, tallies and conformal state of every partition, and the one call that moves them on."""

from typing import Literal

import numpy as np

from tickcast.columns import BarBatch, Scores
from tickcast.core import scoring, uncertainty
from tickcast.core.accuracy import figures
from tickcast.core.fold import match_group
from tickcast.core.windows import TRANSFORMS
from tickcast.records import Accuracy, ModelCard
from tickcast.settings import Settings
from tickcast.state import State, copied, put_back, put_rows
from tickcast.symbols import SymbolTable


class Scorekeeper:
    def __init__(self, settings: Settings, symbols: SymbolTable, cards: list[ModelCard]) -> None:
        levels, horizons = settings.forecast.quantiles, settings.scored_horizons()
        self.horizons = horizons
        self.levels = levels
        self._cards = cards
        self._symbols = symbols
        self._groups = ["all", *settings.symbols.groups]
        self._patterns = settings.symbols.groups
        self._group = np.zeros(settings.symbols.limit, np.int32)
        self._known = 0
        self._cells = len(cards) * len(self._groups)
        self._marks_kept = settings.score.window_bars if settings.bars.kind == "time" else max(
            2, settings.score.window_bars // settings.score.adapt_every_bars)  # fmt: skip
        self._book = scoring.fresh_book(settings.symbols.limit, horizons, len(levels))
        self._partitions: dict[int, tuple[scoring.Tally, uncertainty.Conformal, np.ndarray]] = {}
        self._frame = scoring.Frame(
            levels=np.array(levels), horizons=np.array(horizons, np.int64), median=levels.index(0.5),
            transform=TRANSFORMS[settings.forecast.transform], groups=len(self._groups),
            widening=settings.uncertainty.enabled, gamma=settings.uncertainty.gamma,
            memory=float(settings.uncertainty.memory_bars), bound=settings.uncertainty.max_widening,
            per_bar=settings.bars.kind == "time",
        )  # fmt: skip

    def settle(self, p: int, rows: scoring.Rows, answers: scoring.Answers, newest_mark: int) -> Scores:
        """Work through the closed bars of partition p in order, filling in the answers that are published."""
        self._adopt_new_symbols()
        tally, conformal, mark = self._state_of(p)
        mark[1] = newest_mark
        out = scoring.settled_room(len(rows.symbol), len(self.horizons))
        scoring.settle(self._book, tally, conformal, out, self._frame, self._group, rows, answers, mark)
        n = int(out.used[0])
        return Scores(
            out.symbol[:n], out.as_of[:n], out.model[:n], np.full(n, p, np.int32), out.id_high[:n], out.id_low[:n],
            out.settled_ns[:n], out.anchor[:n], out.scale[:n], out.actual[:n], out.point[:n], out.pinball[:n],
            out.covered[:n], out.in_sample[:n],
        )  # fmt: skip

    def accuracy(self, as_of_ns: int, *, window: Literal["rolling", "all"]) -> list[Accuracy]:
        """Figures per model, group and scored horizon, merged over partitions; only where something was settled."""
        pending = self.pending()
        report = []
        for cell in range(self._cells):
            sums = sum(
                (t.rolling[cell].sum(axis=0) if window == "rolling" else t.whole[cell]) + t.current[cell]
                for t, _, _ in self._partitions.values()
            )
            if isinstance(sums, int) or not sums[:, scoring.N].any():
                continue
            card = self._cards[cell // len(self._groups)]
            name = (card.name, card.version, self._groups[cell % len(self._groups)])
            for j, horizon in enumerate(self.horizons):
                report.append(
                    figures(
                        sums[j],
                        self.levels,
                        name=name,
                        horizon=horizon,
                        window=window,
                        pending=pending,
                        as_of_ns=as_of_ns,
                    )
                )
        return report

    def pending(self) -> int:
        """Open questions."""
        return int(np.count_nonzero(self._book.header["open"][: len(self._symbols)]))

    def settled(self) -> int:
        """Labels so far, over all horizons."""
        return int(
            sum((t.whole[..., scoring.N] + t.current[..., scoring.N]).sum() for t, _, _ in self._partitions.values())
        )

    def snapshot(self) -> State:
        parts = {"book": copied(self._book, dict.fromkeys(self._book._fields, len(self._symbols)))}
        for p, (tally, conformal, mark) in self._partitions.items():
            parts[f"tally{p}"], parts[f"conformal{p}"] = copied(tally), copied(conformal)
            parts[f"mark{p}"] = State({"mark": mark.copy()})
        state = State.join(parts)
        state.facts["partitions"] = list(self._partitions)
        return state

    def resume(self, state: State) -> None:
        """Put back what `snapshot` gave; the symbols are there already."""
        put_back(state.part("book"), self._book)
        for p in state.facts["partitions"]:
            tally, conformal, mark = self._state_of(p)
            put_back(state.part(f"tally{p}"), tally)
            put_back(state.part(f"conformal{p}"), conformal)
            put_rows(state.arrays[f"mark{p}.mark"], mark, "mark")

    def _state_of(self, p: int) -> "tuple[scoring.Tally, uncertainty.Conformal, np.ndarray]":
        if p not in self._partitions:
            tally = scoring.fresh_tally(self._cells, len(self.horizons), len(self.levels), marks=self._marks_kept)
            conformal = uncertainty.fresh(self._cells, len(self.horizons), self.levels)
            self._partitions[p] = tally, conformal, np.zeros(2, np.int64)
        return self._partitions[p]

    def _adopt_new_symbols(self) -> None:
        if self._patterns:
            for code in range(self._known, len(self._symbols)):
                self._group[code] = match_group(self._patterns, self._symbols.name(code))
        self._known = len(self._symbols)


def rows_of(
    bars: BarBatch,
    void_before: "np.ndarray[tuple[int], np.dtype[np.int64]]",
    question: "np.ndarray[tuple[int], np.dtype[np.int64]]",
) -> scoring.Rows:
    return scoring.Rows(bars.symbol, bars.ordinal, bars.close, bars.as_of, bars.mask, void_before, bars.mark, question)
