"""Columns as Arrow tables in the shape of the store's tables. It opens nothing and writes nothing."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tickcast.columns import I32, I64, U64, BarBatch, Forecasts, Scores, Source
from tickcast.engine.core.blocks import BlockRow
from tickcast.engine.core.channels import MISSING
from tickcast.engine.records.fields import Facts, Kind, RecordField
from tickcast.engine.records.published import FORECASTS
from tickcast.records import Accuracy, Alert, DeadLetter, Drift
from tickcast.symbols import SymbolTable

Array = npt.NDArray[Any]
ALERT_COLUMNS = (
    "at_ns", "name", "subject", "event", "severity", "detail", "first_ns", "last_ns", "ended_ns", "raised_by",
)  # fmt: skip


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """How far one partition has been stored: a row of the view `offsets`."""

    source_topic: str
    source_partition: int
    next_offset: int = 0
    watermark_ns: int | None = None


class Names:
    """Symbol names as an Arrow array by code. Reads the table's bytes: the engine thread may be adding to it."""

    def __init__(self, symbols: SymbolTable) -> None:
        self.symbols = symbols
        self._arrays = symbols.arrays
        self._names = pa.array([], pa.string())
        self._reused = symbols.reused

    def of(self, codes: I32) -> pa.Array:
        if self._reused != self.symbols.reused:  # never while rows of before it are under way
            self._reused, self._names = self.symbols.reused, self._names[:0]
        if len(codes) and (highest := int(codes.max())) >= len(self._names):
            names, lengths = self._arrays.names, self._arrays.lengths
            new = [
                names[code, : lengths[code]].tobytes().decode("utf-8", "replace")
                for code in range(len(self._names), highest + 1)
            ]
            self._names = pa.concat_arrays([self._names, pa.array(new, pa.string())])
        return self._names.take(pa.array(codes))


class Origin:
    """Where rows came from: the number in their column `partition` as topic and partition; unlisted = no source."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = sources
        self._topics = pa.array([topic for topic, _ in sources], pa.string())
        self._partitions = pa.array([partition for _, partition in sources], pa.int32())

    def columns(self, number: I32, offset: I64) -> dict[str, Any]:
        at = pa.array(number, mask=number >= len(self._topics))
        return {
            "source_topic": self._topics.take(at), "source_partition": self._partitions.take(at),
            "source_offset": offset,
        }  # fmt: skip


def bar_rows(bars: BarBatch, names: Names, origin: Origin) -> pa.Table:
    plain = ("ordinal", "tie", "open", "high", "low", "close", "volume", "ticks")
    return pa.table(
        {
            "symbol": names.of(bars.symbol), "as_of_ns": bars.as_of, **{name: getattr(bars, name) for name in plain},
            "mask": bars.mask.astype(bool), "gap": bars.gap.astype(bool),
            **origin.columns(bars.partition, bars.offset),
        }
    )  # fmt: skip


@np.errstate(over="ignore")  # a distance beyond FLOAT is stored as infinite
def forecast_rows(forecasts: Forecasts, names: Names, origin: Origin, models: I32) -> pa.Table:
    """`models` gives the store's number of each model of the engine's list."""
    facts, columns = Facts(forecasts, names.symbols, origin.sources), dict[str, Any]()
    for field in FORECASTS.fields:
        if field.stored:
            columns |= _stored(field, facts, names, origin)
    return pa.table(columns | {"model": models[forecasts.model]})


def _stored(field: RecordField, facts: Facts, names: Names, origin: Origin) -> dict[str, Any]:
    values = field.values(facts)
    match field.kind:
        case Kind.SYMBOL:
            return {field.stored: names.of(values)}
        case Kind.PLACE:
            return origin.columns(*values)
        case Kind.HEX:
            return {field.stored: ids(*values) if len(values) == 2 else values[0]}
        case Kind.TIMES:
            return dict(zip(("step_ns", field.stored), _targets(facts.rows.as_of, values), strict=True))
        case Kind.PRICE if values.ndim > 1:
            distance = np.empty(values.shape, np.float32)
            np.subtract(values, facts.rows.anchor[:, None, None], out=distance, casting="same_kind")
            return {field.stored: _lists(distance)}
        case Kind.SHARE:
            return {field.stored: pa.compute.if_else(pa.array(~np.isnan(values[:, 0])), _lists(values), None)}
    return {field.stored: values}


@np.errstate(over="ignore")
def score_rows(scores: Scores, names: Names, models: I32, steps: Sequence[int]) -> pa.Table:
    """A void step (no truth: the target was carried or lies across a gap) is NULL in all but its point; so
    are losses in one-bar moves of a window that never moved.
    """
    s, anchor = scores, scores.anchor[:, None]
    void = np.isnan(s.actual)
    return pa.table(
        {
            "id": ids(s.id_high, s.id_low), "symbol": names.of(s.symbol), "as_of_ns": s.as_of,
            "model": models[s.model], "settled_ns": s.settled_ns, "anchor": s.anchor, "scale": s.scale,
            "steps": _lists(np.broadcast_to(np.array(steps, np.int32), (len(s), len(steps)))),
            "actual_from_anchor": _lists((s.actual - anchor).astype(np.float32), void),
            "point_from_anchor": _lists((s.point - anchor).astype(np.float32)),
            "pinball": _lists(s.pinball.astype(np.float32), void),
            **{name: _lists(getattr(s, name).astype(np.float32), np.isnan(s.loss)) for name in ("loss", "loss_naive")},
            "covered": _lists(s.covered.astype(bool), void),
            "in_sample": s.in_sample.astype(bool), "regime": s.regime,
            "odd_pct": pa.array(s.odd, mask=s.odd == MISSING),
        }
    )  # fmt: skip


def accuracy_rows(records: list[Accuracy]) -> pa.Table:
    return _record_rows(
        records, Accuracy, {"group": "symbol_group", "window": "span"}, as_json=("coverage", "intervals")
    )


def block_rows(blocks: list[BlockRow]) -> pa.Table:
    return pa.table({name: [getattr(block, name) for block in blocks] for name in BlockRow._fields})


def alert_rows(alerts: list[Alert]) -> pa.Table:
    """What the list of alerts says of a name is not stored."""
    kinds = {name: pa.int64() if name.endswith("_ns") else pa.string() for name in ALERT_COLUMNS}
    return pa.table({name: pa.array([getattr(a, name) for a in alerts], kind) for name, kind in kinds.items()})


def drift_rows(records: list[Drift]) -> pa.Table:
    """Of what is said twice, the last."""
    renamed = {"topic": "source_topic", "partition": "source_partition"}
    once = {(r.family, r.topic, r.partition, r.event, r.as_of_ns): r for r in records}
    return _record_rows([*once.values()], Drift, renamed, as_json=("streams",))


def _record_rows(
    records: Sequence[msgspec.Struct],
    kind: type[msgspec.Struct],
    renamed: Mapping[str, str],
    *,
    as_json: tuple[str, ...],
) -> pa.Table:
    """NaN, the figure of nothing, becomes NULL."""
    columns = {}
    for name in kind.__struct_fields__:
        values = [getattr(record, name) for record in records]
        if name in as_json:
            values = [msgspec.json.encode(value).decode() for value in values]
        if name != "schema":
            columns[renamed.get(name, name)] = pa.array(values, from_pandas=True)
    return pa.table(columns)


def letter_rows(letters: list[DeadLetter], watermarks: Mapping[Source, int]) -> pa.Table:
    return pa.table(
        {
            "source_topic": [d.topic for d in letters], "source_partition": [d.partition for d in letters],
            "source_offset": [d.offset for d in letters], "key": pa.array([d.key for d in letters], pa.binary()),
            "value": pa.array([d.value for d in letters], pa.binary()), "reason": [d.reason for d in letters],
            "stage": [d.stage for d in letters],
            "original_bytes": pa.array([d.original_bytes for d in letters], pa.int64()),
            "refused": pa.array([d.refused for d in letters], pa.int32()),
            "ticks": pa.array([d.ticks for d in letters], pa.list_(pa.int32())),
            "reasons": [msgspec.json.encode(d.reasons).decode() for d in letters],
            "watermark_ns": pa.array([watermarks.get((d.topic, d.partition)) for d in letters], pa.int64()),
        }
    )  # fmt: skip


def advanced(
    positions: Mapping[Source, Position], offsets: Mapping[Source, int], watermarks: Mapping[Source, int]
) -> dict[Source, Position]:
    """The positions after a unit; none goes back."""
    after = dict(positions)
    for source, offset in offsets.items():
        old = positions.get(source, Position(source_topic=source[0], source_partition=source[1]))
        reached = [ns for ns in (old.watermark_ns, watermarks.get(source)) if ns is not None]
        after[source] = msgspec.structs.replace(
            old, next_offset=max(offset, old.next_offset), watermark_ns=max(reached, default=None)
        )
    return after


def ids(high: U64, low: U64) -> pa.Array:
    """128-bit ids as UUIDs whose 32 hex digits are those of the published record."""
    raw = np.column_stack([high, low]).astype(">u8").tobytes()
    storage = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(high), [None, pa.py_buffer(raw)])
    return pa.ExtensionArray.from_storage(pa.uuid(), storage)


def _targets(as_of: I64, target_ns: I64) -> tuple[pa.Array, pa.Array]:
    """Evenly spaced targets are one number; only those that jump over closed time are kept as a list."""
    n, steps = target_ns.shape
    step = target_ns[:, 0] - as_of
    timeless = target_ns[:, 0] < 0
    even = (target_ns == as_of[:, None] + step[:, None] * np.arange(1, steps + 1)).all(axis=1)
    step_ns = pa.array(step, mask=timeless | ~even)
    if bool((even | timeless).all()):
        return step_ns, pa.nulls(n, pa.list_(pa.int64()))
    lists = _lists(target_ns)
    return step_ns, pa.ListArray.from_arrays(lists.offsets, lists.values, mask=pa.array(even | timeless))


def _lists(values: Array, missing: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """[N, ...] as N flat lists."""
    n, width = len(values), math.prod(values.shape[1:])
    offsets = np.arange(n + 1, dtype=np.int32) * width
    flat = pa.array(np.ascontiguousarray(values).reshape(-1), mask=None if missing is None else missing.reshape(-1))
    return pa.ListArray.from_arrays(pa.array(offsets), flat)


def keeps(id_low: U64, one_in: int) -> npt.NDArray[np.bool_]:
    """The sample: by id, so that a forecast and its scores are kept or left together."""
    kept: npt.NDArray[np.bool_] = id_low % np.uint64(one_in) == 0
    return kept


def seen_before(number: I32, place: I64, positions: I64) -> npt.NDArray[np.bool_]:
    """Rows that may be in the store already: below its position in their source, or from no known source."""
    known = number < len(positions)
    seen: npt.NDArray[np.bool_] = ~known
    seen[known] = place[known] < positions[number[known]]
    return seen
