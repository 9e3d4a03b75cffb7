"""Kinds whose fit needs sums over its windows and nothing else of them: the sums lie beside the model, so that a later
fit adds the windows that are not in them and solves again. Nothing that serves reads them.

A window is known by where its targets end, so none is added twice. The units of the channels stay those of the first
fit, for the sums are in them.
"""

from abc import abstractmethod
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from msgspec import Meta
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from tickcast.columns import I64
from tickcast.errors import BadModel
from tickcast.plugin import Report
from tickcast.records import ModelCard
from tickcast_plugins.models.classical import Arrays, RowModel, RowSample
from tickcast_plugins.models.window_rows import RowLayout

SUMS, COUNT = "sums.safetensors", "count"
MOST_NUMBERS = 8 << 20  # of sums that are kept: a matrix of 2,896 columns
ANEW = "fit it once in full; what that leaves can be added to"
Forget = Annotated[float, Meta(ge=0, le=1e9)]  # bars after which what was counted before weighs half as much; 0 = never


class Counted(NamedTuple):
    """What a fit and those before it have added up."""

    sums: Arrays
    there: int = 0  # windows of their training parts
    taken: int = 0  # that are in the sums: fewer where they were too many
    to_ns: int = 0  # the targets of all of them had ended by then


class Counting(RowModel):
    """A RowModel that can go on from what another of its kind has counted."""

    def __init__(self, card: ModelCard) -> None:
        super().__init__(card)
        self._before = self._own = Counted({})

    @abstractmethod
    def sums(self, train: RowSample) -> Arrays:
        """In double precision; those of two samples add up to those of both."""

    @abstractmethod
    def solve(self, sums: Arrays, train: RowSample, validation: RowSample, report: Report) -> Arrays:
        """The arrays that answer. `train`, which is in the sums, is all that was not in those before."""

    @abstractmethod
    def sizes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the sums."""

    def go_on(self, folder: Path) -> None:
        """Begin with what the model of the same recipe in `folder` has counted; before the fit."""
        self.load(folder)
        self._before = self._read(folder / SUMS)

    def counted(self) -> dict[str, int]:
        """For the card: windows in the sums that it went on from, and in its own, and up to when these reach."""
        return {"before": self._before.taken, "windows": self._own.taken, "counted_to_ns": self._own.to_ns}

    @property
    def width(self) -> int:
        """Columns of a row."""
        row = self._row()
        assert isinstance(row, RowLayout)
        return row.width

    def units(self, dataset: Any) -> Arrays:
        return self.arrays if self._before.there else super().units(dataset)

    def unlearnt(self, dataset: Any) -> I64:
        """What is in no sum yet; of that as large a share as was taken before."""
        rows, (sums, there, taken, to_ns) = dataset.parts.train, self._before
        ends = dataset.history.bars.as_of[rows + dataset.horizon]
        new = rows[ends > to_ns]
        drawn = self.pick(dataset, new)
        if there:
            rng = np.random.Generator(np.random.Philox(key=np.array([self.card.seed, 1], np.uint64)))
            drawn = np.sort(rng.permutation(drawn)[: -(-len(new) * taken // there)])
            bars = np.bincount(dataset.history.symbol[new]).max(initial=0)
            kept = 0.5 ** (bars / self.params.forget) if self.params.forget else 1.0
            sums = {name: kept * array for name, array in sums.items()}
        self._own = Counted(sums, there + len(new), taken + len(drawn), max(to_ns, int(ends.max())))
        return drawn

    def learn(self, train: RowSample, validation: RowSample, report: Report) -> Arrays:
        before, new = self._own.sums, self.sums(train)
        sums = {name: before[name] + array if before else array for name, array in new.items()}
        self._own = self._own._replace(sums=sums)
        return self.solve(sums, train, validation, report)

    def save(self, folder: Path) -> None:
        super().save(folder)
        sums, *count = self._own
        if sums and sum(array.size for array in sums.values()) <= MOST_NUMBERS:
            save_file({**sums, COUNT: np.array(count, np.int64)}, folder / SUMS)

    def _read(self, path: Path) -> Counted:
        if not path.is_file():
            raise BadModel(f"start: the model in {path.parent} has kept no sums", remedy=ANEW)
        try:
            sums = load_file(path)
        except (OSError, SafetensorError) as error:
            raise BadModel(f"{path} cannot be read: {error}", remedy=ANEW) from error
        count = sums.pop(COUNT, np.zeros(0))
        if not (_is_count(count) and self.are_sums(sums)):
            raise BadModel(f"{path} does not hold the sums of such a model", remedy=ANEW)
        return Counted(sums, *count.tolist())

    def are_sums(self, sums: Arrays) -> bool:
        shapes = {name: array.shape for name, array in sums.items()}
        return shapes == self.sizes() and all(
            array.dtype == np.float64 and bool(np.isfinite(array).all()) for array in sums.values()
        )


def _is_count(count: Any) -> bool:
    return bool(count.shape == (3,) and count.dtype == np.int64 and 0 < count[1] <= count[0] and count[2] > 0)
