"""The records that leave the process in columns, a line per field. A field that is added here is published and, where
its line names a column of the store, stored. It writes nothing itself.
"""

from typing import Annotated, Any, Literal, get_args

from msgspec import Meta, Struct

from tickcast.columns import I64, NO_TIME
from tickcast.direction import KINDS, LABELS, has_classes
from tickcast.engine.core.ladder import RUNGS
from tickcast.engine.records.fields import Facts, Kind, RecordField, RecordTable, column
from tickcast.errors import Quality
from tickcast.settings.engine import ForecastSettings

FLAGS = [str(flag.name).lower() for flag in Quality]
QUALITIES = [[name for flag, name in zip(Quality, FLAGS, strict=True) if flag & k] for k in range(sum(Quality) + 1)]
TRANSFORMS = list(get_args(ForecastSettings.model_fields["transform"].annotation))
FLAG = Annotated[str, Meta(extra_json_schema={"enum": FLAGS})]
FLAGS_MEAN = "flags; empty = nothing to say"
VERSION = 1  # of both


class Source(Struct):
    topic: str
    partition: Annotated[int, Meta(ge=0)]
    offset: int


def _expires_ns(facts: Facts) -> I64 | int:
    after_ns = facts.deployment.expires_after_ns
    return NO_TIME if after_ns is None else facts.rows.as_of + after_ns


def _one_of(options: list[str], meaning: str | None = None) -> Any:
    return Annotated[str, Meta(extra_json_schema={"enum": options}, description=meaning)]


def _hex(digits: int) -> Any:
    return Annotated[str, Meta(pattern=f"^[0-9a-f]{{{digits}}}$")]


def _at_least_one(item: Any) -> Any:
    return Annotated[list[item], Meta(min_length=1)]


PROBS = Annotated[
    list[Annotated[float, Meta(ge=0, le=1)]],
    Meta(min_length=len(LABELS), max_length=len(LABELS), description="down, flat, up at the last step"),
]
NAME = RecordField(
    "symbol", Kind.SYMBOL, "string", column("symbol"), Annotated[str, Meta(min_length=1)],
    "name, with the prefix of its topic of ticks", stored="symbol",
)  # fmt: skip
AS_OF = RecordField(
    "as_of_ns", Kind.WHOLE, "int64", column("as_of"), int,
    "event time, in ns since 1970, up to which anything was known", stored="as_of_ns",
)  # fmt: skip
TIE = RecordField(
    "tie", Kind.WHOLE, "int32", column("tie"), Annotated[int, Meta(ge=0)],
    "counts the symbol's bars of the same as_of_ns", stored="tie",
)  # fmt: skip
SOURCE = RecordField(
    "source", Kind.PLACE, "place", lambda f: (f.rows.partition, f.rows.offset), Source,
    "the record that closed the bar", stored="source",
)  # fmt: skip
SCHEMA = RecordField("schema", Kind.CONSTANT, "int32", lambda f: VERSION, int)

FORECASTS = RecordTable(
    "forecasts", VERSION,
    "The quantiles of one symbol's next bars. What a list holds by step or by level is as long as that list.",
    (
        RecordField(
            "id", Kind.HEX, "string", lambda f: (f.rows.id_high, f.rows.id_low), _hex(32),
            "the same question of the same model, always", stored="id",
        ),
        NAME, AS_OF, TIE,
        RecordField("ordinal", Kind.WHOLE, "int64", column("ordinal"), int, stored="ordinal", published=False),
        RecordField(
            "target_step", Kind.CONSTANT, "list<int32>", lambda f: [*range(1, f.rows.quantiles.shape[1] + 1)],
            _at_least_one(Annotated[int, Meta(ge=1)]), "bars ahead",
        ),
        RecordField(
            "target_ns", Kind.TIMES, "list<int64>", column("target_ns"), list[int] | None,
            "end of each target bar; null for tick and volume bars", stored="target_ns",
        ),
        RecordField(
            "levels", Kind.CONSTANT, "list<double>", lambda f: f.deployment.levels,
            _at_least_one(Annotated[float, Meta(gt=0, lt=1)]), "ascending",
        ),
        RecordField(
            "quantiles", Kind.PRICE, "list<list<double>>", column("quantiles"), _at_least_one(list[float]),
            "by step, then by level, ascending", stored="quantiles_from_anchor",
        ),
        RecordField(
            "point", Kind.PRICE, "list<double>", lambda f: f.rows.quantiles[:, :, f.deployment.median],
            _at_least_one(float), "the median of each step",
        ),
        RecordField("anchor", Kind.PRICE, "double", column("anchor"), float, "the last close", stored="anchor"),
        RecordField("unit", Kind.CONSTANT, "string", lambda f: "price", Literal["price"]),
        RecordField("transform", Kind.CONSTANT, "string", lambda f: f.deployment.transform, _one_of(TRANSFORMS)),
        RecordField(
            "scale", Kind.REAL, "double", column("scale"), Annotated[float, Meta(ge=0)],
            "usual one-bar move of the window", digits=10, stored="scale",
        ),
        RecordField(
            "sigma", Kind.MOVE, "list<double>", column("sigma"), _at_least_one(Annotated[float, Meta(ge=0)] | None),
            "by step: deviation of a normal law with outer levels as far apart, in the unit of scale; null: one level",
        ),
        RecordField(
            "model", Kind.CHOICE, "string", column("model"), str,
            choices=lambda d: [card.name for card in d.cards], stored="model",
        ),
        RecordField(
            "version", Kind.CHOICE, "string", column("model"), str, "of the model",
            choices=lambda d: [card.version for card in d.cards],
        ),
        RecordField(
            "rung", Kind.CHOICE, "string", column("rung"), _one_of([*RUNGS], "who answered"),
            choices=lambda d: d.rungs, stored="rung",
        ),
        RecordField(
            "quality", Kind.CHOICE, "list<string>", lambda f: f.rows.flags & (len(QUALITIES) - 1),
            Annotated[list[FLAG], Meta(extra_json_schema={"uniqueItems": True}, description=FLAGS_MEAN)],
            choices=lambda d: QUALITIES, stored="flags",
        ),
        RecordField(
            "age_ms", Kind.WHOLE, "int64", lambda f: (f.produced_ns - f.rows.as_of) // 10**6, int,
            "produced_ns less as_of_ns",
        ),
        RecordField("expires_ns", Kind.WHOLE, "int64", _expires_ns, int | None, "null for tick and volume bars"),
        SOURCE,
        RecordField(
            "produced_ns", Kind.WHOLE, "int64", lambda f: f.produced_ns, int,
            "when it was written, in ns since 1970",
        ),
        RecordField(
            "kind", Kind.CHOICE, "string", lambda f: has_classes(f.rows.probs), Literal["class", "quantile"],
            "class: who answered has classes, too", choices=lambda d: [*KINDS],
        ),
        RecordField("probs", Kind.SHARE, "list<double>", column("probs"), PROBS | None, digits=7, stored="probs"),
        RecordField(
            "input_hash", Kind.HEX, "string", lambda f: (f.rows.input_hash,), _hex(16), "of all inputs of the model",
            stored="input_hash",
        ),
        RecordField("device", Kind.CONSTANT, "string", lambda f: "cpu", str),
        RecordField(
            "confidence", Kind.REAL, "float", column("confidence"), Annotated[float, Meta(ge=0.5, le=1)],
            "probability that the median has the right side", digits=7, stored="confidence",
        ),
        SCHEMA,
    ),
)  # fmt: skip

FEATURES = RecordTable(
    "features", VERSION, "The features of one closed bar.",
    (
        NAME, AS_OF, TIE,
        RecordField("names", Kind.CONSTANT, "list<string>", lambda f: [*f.features], list[str]),
        RecordField(
            "values", Kind.REAL, "list<double>", column("values"), list[float | None],
            "by name; null = not a finite number", digits=10,
        ),
        SOURCE, SCHEMA,
    ),
)  # fmt: skip
