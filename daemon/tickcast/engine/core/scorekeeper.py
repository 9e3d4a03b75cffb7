"""The Scorekeeper: book, tallies and conformal state of every partition, and the one call that moves them on.

Cells of all partitions lie behind one another, so one call settles the bars of them all.
"""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from tickcast.columns import F32, F64, I32, I64, U8, BarBatch, Scores
from tickcast.direction import BAND, band_of, edges
from tickcast.engine.core import correction, scoring, tally, uncertainty
from tickcast.engine.core.accuracy import Whose, can_hold, records_of, sums_in
from tickcast.engine.core.fold import match_group
from tickcast.engine.core.ladder import numbers_of
from tickcast.engine.core.windows import TRANSFORMS
from tickcast.figures import last_value_quantiles, skill
from tickcast.records import Accuracy, ModelCard, Window
from tickcast.settings import Settings
from tickcast.state import State, copied, put_back, put_rows
from tickcast.symbols import SymbolTable

NORMAL = NormalDist()
NO_LABELS = scoring.labels_room(0)


class Scorekeeper:
    def __init__(self, settings: Settings, symbols: SymbolTable, cards: list[ModelCard], *, last_value: int) -> None:
        """`last_value` is the number of the model that stands beside every other."""
        levels, horizons = settings.forecast.quantiles, settings.scored_horizons()
        self.horizons = horizons
        self.levels = levels
        self._cards = cards
        self._symbols = symbols
        self.groups = ["all", *settings.symbols.groups]
        self._patterns = settings.symbols.groups
        self._group = np.zeros(settings.symbols.limit, np.int32)
        self._known = 0
        self._cells = len(cards) * len(self.groups)  # of one partition
        self._bar_ns = settings.bars.every_ms * 10**6 if settings.bars.kind == "time" else 0
        marks = settings.score.window_bars if settings.bars.kind == "time" else max(
            2, settings.score.window_bars // settings.score.adapt_every_bars)  # fmt: skip
        per_cell = -(-marks // tally.MARK_CELLS)
        self._mark_cells = -(-marks // per_cell) + 1
        self._book = scoring.fresh_book(settings.symbols.limit, horizons, len(levels))
        self._mark = np.zeros(0, np.int64)  # by partition: the one that is open
        self._frame = scoring.Frame(
            levels=np.array(levels), horizons=np.array(horizons, np.int64), median=levels.index(0.5),
            transform=TRANSFORMS[settings.forecast.transform], groups=len(self.groups), cells=self._cells,
            widening=settings.uncertainty.enabled, gamma=settings.uncertainty.gamma,
            memory=float(settings.uncertainty.memory_bars), bound=settings.uncertainty.max_widening,
            per_bar=settings.bars.kind == "time", last_value=last_value, marks_per_cell=per_cell,
            class_step=horizons.index(last) if (last := settings.forecast.horizon) in horizons else -1,
            class_edge=_class_edges(cards),
            last_value_raw=last_value_quantiles(levels, horizons),
            correcting=settings.inference.bias_correction and settings.uncertainty.enabled,
        )  # fmt: skip
        self._tally, self._conformal = self._state_of(0)

    def settle(
        self, rows: scoring.SettledRows, entries: scoring.Entries, newest_mark: I64,
        labels: scoring.LabelRows = NO_LABELS,
    ) -> Scores:  # fmt: skip
        """Work through closed bars in order, filling in what is published, and labels where somebody has room for
        them; marks are by partition."""
        self._adopt_new_symbols()
        self._make_room(len(newest_mark))
        out = scoring.settled_room(len(rows.symbol), len(self.horizons))
        scoring.settle(
            self._book, self._tally, self._conformal, out, labels, self._frame, self._group, rows, entries, self._mark,
            newest_mark,
        )  # fmt: skip
        return _scores_in(out)

    def void(self, symbol: I64, *, closed_bars: I64, partition: I32, now_ns: I64) -> Scores:
        """The open questions of symbols that are to be forgotten: no bar will settle them."""
        out = scoring.settled_room(int(self._book.header["open"][symbol].sum()), len(self.horizons))
        scoring.void_open(
            self._book, self._tally, out, self._frame, symbol, closed_bars, partition, now_ns
        )  # fmt: skip
        return _scores_in(out)

    def forget(self, symbol: I64) -> None:
        """As if these had never been; what was learnt from them stays with their models and groups."""
        self._book.header[symbol] = np.zeros((), scoring.HEADER)
        for column in (self._book.labels, self._book.beside, self._book.close, self._book.reference):
            column[symbol] = 0
        self._known = 0

    def widened(self, units: F64, model: I32, symbol: I32, partition: I32) -> tuple[F64, F32, U8]:
        """Quantiles as they would be published for these symbols now, their confidence, and whether they are CORRECTED;
        `units` are so, too, in place. Of a symbol, partition or model of -1 there are no labels: those quantiles stay
        the model's."""
        self._adopt_new_symbols()
        wide, sure, flags = np.empty_like(units), np.empty(len(units), np.float32), np.zeros(len(units), np.uint8)
        cell = partition * self._cells + model * len(self.groups) + self._group[symbol]
        known = (symbol >= 0) & (partition >= 0) & (partition < len(self._mark)) & (model >= 0)
        still = np.zeros((1, *self._conformal.move.shape[1:]))
        for i in range(len(units)):
            move, at = (self._conformal.move, cell[i]) if known[i] else (still, 0)
            if self._frame.correcting and correction.correct(
                move, at, self._frame.horizons, self._frame.median, units, i
            ):
                flags[i] = scoring.CORRECTED
            uncertainty.widen(move, at, self._frame.levels, self._frame.horizons, self._frame.median, units, wide, i)
            sure[i] = uncertainty.confidence(self._frame.levels, wide[i, -1])
        return wide, sure, flags

    def corrections(self, digest: str) -> dict[str, list[float]]:
        """By group and scored horizon, in one-bar moves, by how much this model's points are shifted now; where it is
        most among the partitions."""
        models = [card.digest for card in self._cards]
        if not self._frame.correcting or digest not in models or not len(self._mark):
            return {}
        shape = (len(self._mark), len(models), len(self.groups), len(self.horizons))
        now = self._conformal.move[:, :, self._frame.median].reshape(shape)[:, models.index(digest)]
        most = np.take_along_axis(now, np.abs(now).argmax(axis=0)[None], axis=0)[0]
        return {group: row.tolist() for group, row in zip(self.groups, most.round(4), strict=True)}

    def interval(self, level: float, units: F64, wide: F64, model: I32, symbol: I32, partition: I32) -> F64:
        """[N, H, 2] Where the truth lies so often, between equal tails, beside what `widened` made `wide`: a published
        level stays as it is; between two it lies between them; without labels the model's quantiles are stretched.
        """
        found = np.empty((*units.shape[:2], 2))
        cell = partition * self._cells + model * len(self.groups) + self._group[symbol]
        known = (symbol >= 0) & (partition >= 0) & (partition < len(self._mark)) & (model >= 0)
        steps, unknown = np.arange(1, units.shape[1] + 1), np.full(len(self.horizons), np.nan)
        for side, tail in enumerate(((1 - level) / 2, (1 + level) / 2)):
            q, outward = uncertainty.level_beside(self.levels, tail), (-1, 1)[side]
            point, raw = units[:, :, self._frame.median], units[:, :, q]
            stretched = point + (raw - point) * NORMAL.inv_cdf(tail) / NORMAL.inv_cdf(self.levels[q])
            for i in range(len(units)):
                moves = unknown if not known[i] else uncertainty.moves_at(
                    self._conformal, cell[i], self.levels, tail, self.horizons, self._frame.bound
                )  # fmt: skip
                moved = raw[i] + outward * np.interp(steps, self.horizons, moves)
                found[i, :, side] = np.where(np.isnan(moved), stretched[i], moved)
            found[:, :, side] = self._beside(tail, q, found[:, :, side], wide)
        return found

    def reach(self, tails: Sequence[float], units: F64, wide: F64, *whose: I32) -> F64:
        """[N, H, 2, tails] How far below and above last value so much of what comes lies beyond; as `interval`."""
        found = np.stack([self.interval(1 - 2 * tail, units, wide, *whose) for tail in tails], axis=3)
        found[:, :, 0] *= -1
        return found

    def _beside(self, tail: float, q: int, found: F64, wide: F64) -> F64:
        """Within the published levels on both sides of `tail`, of which `q` is the one that it was read from."""
        if abs(self.levels[q] - tail) < uncertainty.SAME_LEVEL:
            return wide[:, :, q]
        inner = q + (1 if tail < 0.5 else -1)
        if tail < self.levels[0] or tail > self.levels[-1]:  # further out than any
            return np.minimum(found, wide[:, :, q]) if tail < 0.5 else np.maximum(found, wide[:, :, q])
        low, high = sorted((q, inner))
        return np.clip(found, wide[:, :, low], wide[:, :, high])

    def accuracy(self, as_of_ns: int, *, window: Window) -> list[Accuracy]:
        """Figures per model, group and scored horizon, merged over partitions; only where something was settled, and of
        spans that are ever long enough for that horizon."""
        steps = [j for j, horizon in enumerate(self.horizons) if can_hold(window, horizon, self._bar_ns)]
        if not steps or not len(self._mark):
            return []
        frame = self._frame
        parts = sums_in(self._tally, window, as_of_ns, cells=self._cells, per_cell=frame.marks_per_cell)
        whose = [Whose(card.name, card.version, group) for card in self._cards for group in self.groups]
        return records_of(
            parts.of_steps(len(steps)), whose, self.horizons[: len(steps)], self.levels, class_step=frame.class_step,
            window=window, pending=self.pending(), as_of_ns=as_of_ns,
        )  # fmt: skip

    def rolling_skill(self, model: int) -> float:
        """Of the group `all`, over all steps, however few blocks tell: for who decides on other evidence, too."""
        parts = sums_in(self._tally, "rolling", 0, cells=self._cells, per_cell=self._frame.marks_per_cell)
        sums = parts.labels[:, model * len(self.groups)].sum(axis=(0, 1))
        return round(float(skill(sums[tally.PINBALL], sums[tally.PINBALL_NAIVE])), 4)

    @property
    def group(self) -> I32:
        """Of every symbol, its number."""
        self._adopt_new_symbols()
        return self._group

    def pending(self) -> int:
        """Open questions."""
        return int(np.count_nonzero(self._book.header["open"][: len(self._symbols)]))

    def settled(self) -> int:
        """Labels so far, over all horizons."""
        return int((self._tally.whole[..., tally.N] + self._tally.current[..., tally.N]).sum())

    def add_model(self) -> None:
        """The list of cards has one more: its cells are put beside the others'."""
        before, ours = (self._tally, self._conformal), np.arange(len(self._cards) - 1)
        self._cells = len(self._cards) * len(self.groups)
        self._frame = self._frame._replace(cells=self._cells, class_edge=_class_edges(self._cards))
        at = self._places(len(before[0].marks), ours)
        self._tally, self._conformal = self._state_of(len(self._mark))
        for old, fresh in zip(before, (self._tally, self._conformal), strict=True):
            for column, wider in zip(old, fresh, strict=True):
                wider[at] = column
        self._renumber_questions(at, ours)

    def take_over(self, other: "Scorekeeper", model: int, groups: I64) -> None:
        """What another one, of the same models, has learnt of this one's widths in these groups."""
        partitions = max(len(self._mark), len(other._mark))
        self._make_room(partitions)
        other._make_room(partitions)
        cells = (np.arange(partitions)[:, None] * self._cells + model * len(self.groups) + groups).ravel()
        for name, column in self._conformal._asdict().items():
            column[cells] = getattr(other._conformal, name)[cells]

    def snapshot(self) -> State:
        state = State.join({
            "book": copied(self._book, dict.fromkeys(self._book._fields, len(self._symbols))),
            "tally": copied(self._tally), "conformal": copied(self._conformal),
            "mark": State({"open": self._mark.copy()}),
        })  # fmt: skip
        state.facts["partitions"], state.facts["models"] = len(self._mark), [card.digest for card in self._cards]
        return state

    def resume(self, state: State) -> None:
        """Put back what `snapshot` gave; the symbols are there already, and the models that it knows by number."""
        ours = numbers_of(state.facts["models"], self._cards)
        put_back(scoring.as_now(state.part("book"), self._book), self._book)
        self._make_room(state.facts["partitions"])
        at = self._places(state.facts["partitions"] * len(ours) * len(self.groups), ours)
        tally.put_back_tally(state.part("tally"), self._tally, at, per_cell=self._frame.marks_per_cell)
        put_back(state.part("conformal"), self._conformal, at)
        put_rows(state.arrays["mark.open"], self._mark, "mark")
        self._renumber_questions(at, ours)

    def _places(self, cells: int, ours: I64) -> I64:
        """Where so many cells lie here that were numbered by other models; `ours` has their numbers here."""
        cell, groups = np.arange(cells), len(self.groups)
        partition, within = np.divmod(cell, len(ours) * groups)
        places: I64 = partition * self._cells + ours[within // groups] * groups + within % groups
        return places

    def _renumber_questions(self, at: I64, ours: I64) -> None:
        if len(ours) == len(self._cards) and (ours == np.arange(len(ours))).all():
            return
        header = self._book.header[: len(self._symbols)]
        is_open = header["open"] == 1
        header["cell"][is_open] = at[header["cell"][is_open]]
        header["model"][is_open] = ours[header["model"][is_open]]

    def _make_room(self, partitions: int) -> None:
        """For those that were met since; a daemon meets its partitions in its first turns."""
        known = len(self._mark)
        if partitions > known:
            sums, conformal = self._state_of(partitions - known)
            self._tally = tally.ScoreTally._make(np.concatenate([*both]) for both in zip(self._tally, sums))
            self._conformal = uncertainty.Conformal._make(
                np.concatenate([*both]) for both in zip(self._conformal, conformal)
            )
            self._mark = np.concatenate([self._mark, np.zeros(partitions - known, np.int64)])

    def _state_of(self, partitions: int) -> tuple[tally.ScoreTally, uncertainty.Conformal]:
        cells, horizons = partitions * self._cells, len(self.horizons)
        conformal = uncertainty.fresh(cells, horizons, self.levels)
        conformal.beside[:] = self._frame.last_value_raw
        return tally.fresh_tally(cells, horizons, len(self.levels), marks=self._mark_cells), conformal

    def _adopt_new_symbols(self) -> None:
        if self._patterns:
            for code in range(self._known, len(self._symbols)):
                self._group[code] = match_group(self._patterns, self._symbols.name(code))
        self._known = len(self._symbols)


def _class_edges(cards: list[ModelCard]) -> F64:
    """Of the last step, in one-bar moves; -1 of a model without classes."""
    return np.array([edges(band_of(card), card.horizon)[-1] if BAND in card.model_params else -1.0 for card in cards])


def _scores_in(out: scoring.Settled) -> Scores:
    n = int(out.used[0])
    return Scores(**{name: getattr(out, name)[:n] for name in Scores.__slots__})


def rows_of(bars: BarBatch, void_before: I64, question: I64) -> scoring.SettledRows:
    return scoring.SettledRows(
        symbol=bars.symbol, ordinal=bars.ordinal, close=bars.close, as_of=bars.as_of, mask=bars.mask,
        void_before=void_before, mark=bars.mark, partition=bars.partition, question=question,
    )  # fmt: skip
