"""The ledger itself: it finds every fault that it is asked about, in evidence made by hand."""

import json
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
from feeder import START_NS
from ledger import Evidence, Stored, balance


class Record(NamedTuple):
    partition: int
    offset: int
    value: bytes | None
    key: bytes | None = b"S"
    headers: tuple[tuple[str, bytes], ...] = ()


def tick(offset: int, at: int) -> Record:
    return Record(0, offset, json.dumps({"symbol": "S", "ts": START_NS + at * 10**9, "price": 100}).encode())


def forecast(number: int, *, offset: int, **changes: Any) -> Record:
    fields: dict[str, Any] = {
        "id": f"{number:032x}", "quantiles": [[99.9, 100.0, 100.1]], "point": [100.0], "anchor": 100.0,
        "scale": 0.001, "rung": "holt", "produced_ns": number, "source": {"partition": 0, "offset": offset},
    }  # fmt: skip
    return Record(0, number, json.dumps(fields | changes).encode())


def letter(offset: int, value: bytes) -> Record:
    return Record(0, 0, value, b"S", (("partition", b"0"), ("offset", str(offset).encode())))


TICKS = [tick(0, 0), tick(1, 5), Record(0, 2, b"{"), tick(3, 0), tick(4, 6)]
ANSWERS = [forecast(1, offset=1), forecast(2, offset=4)]
WHOLE = Evidence(
    ticks=TICKS, forecasts=ANSWERS, with_aborted=ANSWERS, letters=[letter(2, b"{")], undisturbed=ANSWERS,
    stores=[Stored([f"{n:032x}" for n in (1, 2)], [(0, 2)])],
)  # fmt: skip
OTHER = forecast(2, offset=4, quantiles=[[99.9, 100.0, 100.101]])
CLOSE = forecast(2, offset=4, quantiles=[[99.9, 100.0, 100.100001]], produced_ns=77)


def test_a_kept_promise_has_no_faults():
    ledger = balance(WHOLE)
    assert not ledger.faults(exactly_once=True)
    assert (ledger.ticks, ledger.late, ledger.expected, ledger.letters) == (5, 1, 2, 1)


def test_a_close_duplicate_is_a_fault_of_exactly_once_only():
    twice = replace(WHOLE, forecasts=[*ANSWERS, CLOSE], with_aborted=[*ANSWERS, CLOSE])
    assert not balance(twice).faults(exactly_once=False)
    assert balance(twice).faults(exactly_once=True) == {"duplicates": 1}


def test_an_aborted_duplicate_is_no_fault():
    assert not balance(replace(WHOLE, with_aborted=[*ANSWERS, CLOSE])).faults(exactly_once=True)


@pytest.mark.parametrize(
    ("changes", "faults"),
    [
        ({"forecasts": ANSWERS[:1]}, {"lost": 1}),
        ({"forecasts": [*ANSWERS, forecast(3, offset=4)]}, {"strange": 1, "unlike_reference": 1, "store_lacks": 1}),
        ({"forecasts": [*ANSWERS, forecast(3, offset=0)]}, {"strange": 1, "unlike_reference": 1, "store_lacks": 1}),
        ({"with_aborted": [*ANSWERS, OTHER]}, {"differing": 1}),
        ({"undisturbed": [ANSWERS[0], OTHER]}, {"unlike_reference": 1}),
        ({"undisturbed": ANSWERS[:1]}, {"unlike_reference": 1}),
        ({"undisturbed": [ANSWERS[0], forecast(2, offset=4, rung="naive")]}, {"unlike_reference": 1}),
        ({"letters": []}, {"letters_lost": 1}),
        ({"letters": [letter(2, b"[")]}, {"letters_altered": 1}),
        ({"letters": [letter(2, b"{"), letter(1, b"{")]}, {"letters_altered": 1}),
        ({"stores": [Stored([f"{1:032x}"], [(0, 2)])]}, {"store_lacks": 1}),
        ({"stores": [WHOLE.stores[0], Stored([f"{2:032x}"] * 2, [])]}, {"store_twice": 1}),
        ({"stores": [Stored(WHOLE.stores[0].ids, [(0, 2)] * 2)]}, {"letters_not_stored_once": 1}),
        ({"stores": [Stored(WHOLE.stores[0].ids, [])]}, {"letters_not_stored_once": 1}),
    ],
)
def test_every_fault_is_found(changes, faults):
    assert balance(replace(WHOLE, **changes)).faults(exactly_once=False) == faults
