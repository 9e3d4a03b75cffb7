"""The ledger: what the ticks of a topic should have led to, beside what stands in the topics and the store.

It reads with the plain client and knows the daemon by its settings only: tick bars of one tick, so that every good tick
after its symbol's first has exactly one forecast.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import msgspec
import numpy as np
from aiokafka import ConsumerRecord
from chaoskit import Deployment

import kafkakit

RELATIVE, OF_A_MOVE = 1e-6, 1e-4  # how far two writings of one forecast may be apart
OF_THE_RUN = {"produced_ns", "age_ms"}  # the rest of a forecast is a function of the ticks
NUMBERS = {"quantiles", "point", "anchor", "scale", "sigma", "confidence"}

Place = tuple[int, int]  # partition and offset of a tick
Forecast = dict[str, Any]


@dataclass
class Expected:
    """What the ticks should have led to."""

    ticks: int = 0
    late: int = 0
    answers: set[Place] = field(default_factory=set)
    letters: dict[Place, tuple[bytes | None, bytes | None]] = field(default_factory=dict)


class Stored(NamedTuple):
    """What the store of one daemon holds."""

    ids: list[str]  # of forecasts
    letters: list[Place]


@dataclass
class Ledger:
    """In numbers; all of `faults` are nought where the promise was kept."""

    ticks: int
    late: int
    expected: int
    answered: int
    lost: int  # ticks that no forecast answers
    strange: int  # forecasts of what no forecast should be of, or of another id than the tick's first
    duplicates: int  # records beyond the first of an id, read_committed
    uncommitted: int  # records that only read_uncommitted sees
    differing: int  # duplicates with other values, committed or not
    unlike_reference: int  # forecasts that an undisturbed run made otherwise, or not at all
    letters: int
    letters_lost: int
    letters_altered: int
    letters_twice: int
    stored: int
    store_lacks: int
    store_twice: int
    letters_not_stored_once: int

    def faults(self, *, exactly_once: bool) -> dict[str, int]:
        names = [
            "lost", "strange", "differing", "unlike_reference", "letters_lost", "letters_altered", "store_lacks",
            "store_twice", "letters_not_stored_once", *(("duplicates", "letters_twice") if exactly_once else ()),
        ]  # fmt: skip
        return {name: getattr(self, name) for name in names if getattr(self, name)}


@dataclass(frozen=True)
class Evidence:
    """What a deployment left behind, with all records in the order of their offsets."""

    ticks: Sequence[ConsumerRecord]
    forecasts: Sequence[ConsumerRecord]  # read_committed
    with_aborted: Sequence[ConsumerRecord]  # read_uncommitted
    letters: Sequence[ConsumerRecord]
    undisturbed: Sequence[ConsumerRecord]  # forecasts of the reference
    stores: Sequence[Stored]


def assert_promises_kept(deployment: Deployment, *, stores: Sequence[Path] = ()) -> None:
    """Of a deployment that has caught up and been drained, beside a run over the same ticks that nothing disturbed.

    The stores of several daemons count together.
    """
    reference = deployment.twin("reference")
    reference.run_undisturbed()
    topic = deployment.prefix + "forecasts"
    ledger = balance(Evidence(
        ticks=read(deployment, deployment.ticks), forecasts=read(deployment, topic),
        with_aborted=read(deployment, topic, isolation="read_uncommitted"),
        letters=read(deployment, deployment.prefix + "dlq"),
        undisturbed=read(reference, reference.prefix + "forecasts"),
        stores=[stored(path) for path in stores or [deployment.store]],
    ))  # fmt: skip
    print(ledger)
    assert not ledger.faults(exactly_once=deployment.delivery == "exactly_once")


def balance(evidence: Evidence) -> Ledger:
    expected = judge(evidence.ticks)
    forecasts = [_forecast(record) for record in evidence.forecasts]
    first: dict[str, Forecast] = {}
    for forecast in forecasts:
        first.setdefault(forecast["id"], forecast)
    at = Counter(map(_place, first.values()))
    model = {f["id"]: f for f in map(_forecast, evidence.undisturbed)}
    answered = len(expected.answers & at.keys())
    return Ledger(
        ticks=expected.ticks, late=expected.late, expected=len(expected.answers), answered=answered,
        lost=len(expected.answers) - answered, strange=at.total() - answered, duplicates=len(forecasts) - len(first),
        uncommitted=len(evidence.with_aborted) - len(forecasts),
        differing=sum(differ(f, first.get(f["id"], f)) for f in map(_forecast, evidence.with_aborted)),
        unlike_reference=sum(id not in model or differ(f, model[id]) for id, f in first.items()),
        **_letters(evidence.letters, expected), **_stored(evidence.stores, expected, set(first)),
    )  # fmt: skip


def judge(records: Sequence[ConsumerRecord], *, lateness_ns: int = 1_000_000_000) -> Expected:
    """By the rules of docs/bars.md, told once more and plainly."""
    expected, newest = Expected(ticks=len(records)), dict[str, int]()
    for record in records:
        if record.value is None:  # a tombstone is counted, and no letter
            continue
        try:
            tick = msgspec.json.decode(record.value)
            symbol, at = tick["symbol"], tick["ts"]
        except (msgspec.DecodeError, KeyError):
            expected.letters[_at(record)] = (record.key, record.value)
            continue
        if at < newest.get(symbol, at) - lateness_ns:
            expected.late += 1
            continue
        if symbol in newest:
            expected.answers.add(_at(record))
        newest[symbol] = max(at, newest.get(symbol, at))
    return expected


def differ(one: Forecast, other: Forecast) -> bool:
    if one.keys() != other.keys():
        return True
    exact = one.keys() - NUMBERS - OF_THE_RUN
    return any(one[name] != other[name] for name in exact) or not all(
        _is_close(one[name], other[name], other) for name in NUMBERS & one.keys()
    )


def _is_close(one: Any, other: Any, forecast: Forecast) -> bool:
    if one is None or other is None:
        return one is other
    apart, size = np.abs(np.subtract(one, other)), np.abs(other)
    move = forecast["scale"] * abs(forecast["anchor"])  # log returns
    return bool((apart <= RELATIVE * size).all() and (apart <= OF_A_MOVE * move).all())


def _letters(records: Sequence[ConsumerRecord], expected: Expected) -> dict[str, int]:
    seen = Counter[Place]()
    altered = 0
    for record in records:
        headers = {name: value.decode() for name, value in record.headers}
        place = int(headers["partition"]), int(headers["offset"])
        seen[place] += 1
        altered += expected.letters.get(place) != (record.key, record.value)
    return {
        "letters": len(expected.letters), "letters_lost": len(expected.letters.keys() - seen.keys()),
        "letters_altered": altered, "letters_twice": sum(seen.values()) - len(seen),
    }  # fmt: skip


def _stored(stores: Sequence[Stored], expected: Expected, ids: set[str]) -> dict[str, int]:
    everywhere = set[str]().union(*(store.ids for store in stores))
    letters = [Counter(store.letters) for store in stores]
    return {
        "stored": len(everywhere), "store_lacks": len(ids - everywhere),
        "store_twice": sum(len(store.ids) - len(set(store.ids)) for store in stores),
        "letters_not_stored_once": sum(
            max(held[place] for held in letters) != 1 for place in expected.letters
        ),
    }  # fmt: skip


def stored(path: Path) -> Stored:
    with duckdb.connect(str(path), read_only=True) as store:
        ids = [id.hex for (id,) in store.sql("SELECT id FROM forecasts").fetchall()]
        return Stored(ids, store.sql("SELECT source_partition, source_offset FROM dead_letters").fetchall())


def read(deployment: Deployment, topic: str, *, isolation: str = "read_committed") -> list[ConsumerRecord]:
    return asyncio.run(kafkakit.read(deployment.broker, topic, deployment.partitions, isolation=isolation))


def _forecast(record: ConsumerRecord) -> Forecast:
    return msgspec.json.decode(record.value)


def _place(forecast: Forecast) -> Place:
    return forecast["source"]["partition"], forecast["source"]["offset"]


def _at(record: ConsumerRecord) -> Place:
    return record.partition, record.offset
