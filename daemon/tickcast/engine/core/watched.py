"""What is watched for drift: the streams that models, groups and channels make, and what references let expect of them.
It holds no evidence.
"""

from typing import NamedTuple

import numpy as np

from tickcast.columns import F64, I64
from tickcast.engine.core.channels import Sketches, sketches_of
from tickcast.engine.core.detectors import Streams
from tickcast.engine.core.families import Expected, Lineup, families_of
from tickcast.engine.core.ladder import Ladder
from tickcast.reference import STEP, Reference
from tickcast.settings import Settings

LEAST_SHARE = 0.05  # what is rarer in the reference is judged as if it were this
BLOCK_BARS = 20.0  # for each bar of the step, where no reference says more
LOSS_WIDTH = 0.5  # by how much of it a loss changes from block to block, where no reference says
RECENT_BARS = 500  # that the shown distances look back on


class Watched(NamedTuple):
    lineup: Lineup
    streams: Streams
    left: F64  # [S] correlation from block to block; NaN where no reference says
    missed: float  # share of truths that the levels leave outside
    references: list[Reference | None]  # by model; of labels where they are of the step that is watched
    rows: list[dict[str, int]]  # by model: where its reference has each symbol
    first: int  # the model whose reference values are held against; -1 = they are not watched
    whose: str  # digest of who is tried first

    @property
    def reference(self) -> Reference | None:
        return self.references[self.first] if self.first >= 0 else None

    @property
    def sketches(self) -> Sketches | None:
        return None if self.reference is None else sketches_of(self.reference)

    def expected(self, symbols: int) -> Expected:
        """Before any symbol is known."""
        nothing = np.zeros((1, 0)), np.zeros(1)
        odd, far = nothing if self.reference is None else (self.reference.odd, self.reference.far)
        return Expected(
            missed=self.missed, loss=np.ones((self.lineup.models, symbols)), known=np.zeros(symbols, np.int32),
            odd=np.maximum(odd, LEAST_SHARE), far=np.maximum(far, LEAST_SHARE),
        )  # fmt: skip

    def adopt(self, expected: Expected, code: int, name: str) -> None:
        """What may be expected of this symbol; one that a reference does not know is as all of its are together."""
        for model, (reference, rows) in enumerate(zip(self.references, self.rows, strict=True)):
            if reference is not None:
                expected.loss[model, code] = reference.loss[rows.get(name, -1)]
        if self.reference is not None:
            expected.known[code] = self.rows[self.first].get(name, len(self.reference.odd) - 1)


def watched_of(settings: Settings, ladder: Ladder, *, channels: int, models: I64) -> Watched:
    """Of these models of the ladder, in this order."""
    groups, step, levels = 1 + len(settings.symbols.groups), settings.scored_horizons()[0], settings.forecast.quantiles
    references = [ladder.runners[number].reference for number in models]
    first = [ladder.cards[number].digest for number in models].index(ladder.first.digest)
    reference = references[first]
    lineup = Lineup(
        models=len(models), groups=groups, channels=0 if reference is None else channels,
        last_value=int(np.flatnonzero(models == ladder.last_value)[0]), keep=1 - 1 / RECENT_BARS,
    )  # fmt: skip
    streams, left = _streams(lineup, references, reference, step)
    rows = [{} if of is None else {name: row for row, name in enumerate(of.names())} for of in references]
    return Watched(
        lineup, streams, left, missed=levels[0] + 1 - levels[-1], references=references, rows=rows,
        first=-1 if reference is None else first, whose=ladder.first.digest,
    )  # fmt: skip


def _streams(
    lineup: Lineup, references: list[Reference | None], values: Reference | None, step: int
) -> tuple[Streams, F64]:
    """And what correlation is left from block to block; `values` are held against that reference."""
    groups, unknown = lineup.groups, (BLOCK_BARS * step, np.nan)
    known = [reference if step == STEP else None for reference in references]
    missed = [unknown if r is None else (r.missed_block[0], r.missed_left[0]) for r in known]
    loss = [unknown if r is None else (r.loss_block[0], r.loss_left[0]) for r in known]
    width = np.repeat([LOSS_WIDTH if r is None else r.loss_width[0] for r in known], groups)
    odd = far = np.empty((0, 2))
    if values is not None:
        odd = np.stack([values.odd_block, values.odd_left], axis=1)
        far = np.stack([values.far_block, values.far_left], axis=1)
    block, left = np.concatenate(
        [np.repeat(missed, groups, axis=0), np.repeat(loss, groups, axis=0), np.tile(odd, (groups, 1)),
         np.tile(far, (groups, 1))]
    ).T  # fmt: skip
    offset, slope, begin = np.zeros(len(block)), np.ones(len(block)), families_of(lineup)
    skill = slice(begin[1], begin[2])
    offset[skill], slope[skill] = 0.5 - 0.5 / width, 0.5 / width
    return Streams(begin, np.ascontiguousarray(block), offset, slope), left


def moved(then: Watched, now: Watched, ours: I64, partitions: int) -> tuple[I64, I64]:
    """The streams of `then`, whose models have the numbers `ours`, and where these are `now`."""
    old, new, groups = then.streams.begin, now.streams.begin, now.lineup.groups
    model, group = np.divmod(np.arange(then.lineup.models * groups), groups)
    cells, values = ours[model] * groups + group, np.arange(old[4] - old[2])
    at = np.concatenate([np.arange(old[2]), old[2] + values])
    to = np.concatenate([new[0] + cells, new[1] + cells, new[2] + values])
    each = np.arange(partitions)[:, None]
    return (each * len(then.streams.block) + at).ravel(), (each * len(now.streams.block) + to).ravel()
