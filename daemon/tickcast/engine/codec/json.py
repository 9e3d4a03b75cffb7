"""JSON messages -> tick columns: the scanner for what is plain, msgspec row by row for the rest. It does no I/O.

Both end in `ticks.settle`, and rows are taken strictly in order, so neither the path nor the chunk changes a result.
"""

import math
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from tickcast.columns import NO_TIME, RawBatch, Rejects, TickBatch
from tickcast.engine.codec.parse import UNIT_EXPONENT, read_time
from tickcast.engine.codec.presets import FeedShape
from tickcast.engine.codec.scan import plan, scan_messages
from tickcast.engine.codec.ticks import (
    ASK,
    BAD,
    EVENT,
    FIRST,
    GOOD,
    LAST,
    MISSING,
    PRICE,
    SYMBOL,
    TS,
    WRAPPED,
    Judged,
    TickRows,
    collect,
    found,
    naming,
    rows,
    settle,
)
from tickcast.errors import Reason
from tickcast.symbols import SymbolTable

NUMBER = re.compile(r"(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?")
MOST_DIGITS = 400  # of a whole number or a time: far beyond 64 bits, and cheap
LARGEST = (1 << 63) - 1


class Literal(str):
    """A JSON number with a fraction or an exponent, as it is written."""

    __slots__ = ()


_decode = msgspec.json.Decoder(float_hook=Literal).decode


def load(message: bytes) -> tuple[Any, Reason]:
    """The message as Python objects, with every digit of its numbers; or why it is not JSON."""
    try:
        return _decode(message), Reason.ACCEPTED
    except msgspec.ValidationError:  # an integer of thousands of digits
        return None, Reason.BAD_NUMBER
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None, Reason.MALFORMED


def double(value: Any) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    if isinstance(value, str) and not NUMBER.fullmatch(value):
        return None
    try:
        read = float(value)
    except OverflowError:
        return None
    return read if math.isfinite(read) else None


def whole(value: Any, unit: int, *, cut: bool) -> int | None:
    """value x 10^unit as a 64-bit integer. With `cut` a fraction is dropped, else it makes the value none."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    match = NUMBER.fullmatch(str(value)) if not isinstance(value, int) or abs(value) <= 10**MOST_DIGITS else None
    if match is None or sum(len(part or "") for part in match.groups()) > MOST_DIGITS:
        return None
    sign, integer, fraction, exponent = match.groups(default="")
    digits, shift = int(integer + fraction), int(exponent or 0) - len(fraction) + unit
    if shift > MOST_DIGITS or shift < -2 * MOST_DIGITS:
        return 0 if digits == 0 or (cut and shift < 0) else None
    read, rest = (digits * 10**shift, 0) if shift >= 0 else divmod(digits, 10**-shift)
    if (rest and not cut) or read > LARGEST:
        return None
    return int(-read if sign else read)


def time_ns(value: Any, unit: int) -> int | None:
    """A number in the topic's unit, quoted or not, or RFC 3339 text."""
    read = whole(value, unit, cut=True)
    if read is None and isinstance(value, str) and not isinstance(value, Literal):
        text = np.frombuffer(bytearray(value.encode("utf-8", "replace")), np.uint8)
        ns, good = read_time(text, 0, len(text))
        return int(ns) if good else None
    return read


class JsonDecoder:
    """Messages of one feed. The careful path and the scanner share `_found` and the way it is judged."""

    def __init__(self, shape: FeedShape, symbols: SymbolTable, *, symbol_prefix: str, max_message_bytes: int) -> None:
        self._shape = shape
        self._unit = UNIT_EXPONENT[shape.time_unit]
        self._max_bytes = max_message_bytes
        self._table = symbols.arrays
        self._plan = plan(shape.names, shape.event, self._unit)
        self._judged = Judged(shape.event_rule, shape.stamped)
        self._naming, self._found = naming(symbol_prefix), found()

    def decode(self, raw: RawBatch) -> tuple[TickBatch, Rejects]:
        return self._decode_listed(raw) if self._shape.listed else self._decode_flat(raw)

    def _decode_flat(self, raw: RawBatch) -> tuple[TickBatch, Rejects]:
        filled, i = rows(len(raw)), 0
        while True:
            i = scan_messages(
                raw.data, raw.starts, raw.ends, raw.stamps_ns, i, self._max_bytes,
                self._plan, self._judged, self._naming, self._found, self._table, filled,
            )  # fmt: skip
            if i == len(raw):
                return collect(filled, np.arange(len(raw), dtype=np.int32))
            self._read(raw, i, filled)
            i += 1

    def _decode_listed(self, raw: RawBatch) -> tuple[TickBatch, Rejects]:
        """Messages that hold a list of ticks."""
        items = [(i, item) for i in range(len(raw)) for item in self._items(raw, i)]
        filled = rows(len(items))
        for at, (i, item) in enumerate(items):
            self._settle(item, int(raw.stamps_ns[i]), filled, at)
        return collect(filled, np.array([i for i, _ in items], np.int32))

    def _items(self, raw: RawBatch, i: int) -> Iterator[Any]:
        """The ticks of a message, or the reason why it has none."""
        record, reason = self._load(raw, i)
        channel, kind = self._shape.listed
        if reason or not isinstance(record, dict):
            yield reason or Reason.MALFORMED
        elif record.get("channel") != channel or record.get("type") != kind or record.get("data") == []:
            yield Reason.OTHER_EVENT
        elif not isinstance(record.get("data"), list):
            yield Reason.MISSING_FIELD
        else:
            yield from record["data"]

    def _read(self, raw: RawBatch, i: int, filled: TickRows) -> None:
        record, reason = self._load(raw, i)
        wrapper = self._shape.names[WRAPPED]
        if wrapper and isinstance(record, dict) and isinstance(record.get(wrapper), dict):
            record = record[wrapper]
        self._settle(reason or record, int(raw.stamps_ns[i]), filled, i)

    def _load(self, raw: RawBatch, i: int) -> tuple[Any, Reason]:
        length = int(raw.ends[i] - raw.starts[i])
        if length <= 0:
            return None, Reason.EMPTY
        return (None, Reason.TOO_LARGE) if length > self._max_bytes else load(raw.message(i))

    def _settle(self, record: Any, stamp: int, filled: TickRows, at: int) -> None:
        """A record's fields as a row; or a reason, or what is no object at all, as a reject."""
        if not isinstance(record, dict):
            filled.reason[at] = record if isinstance(record, Reason) else Reason.MALFORMED
            return
        symbol = b""
        for f, name in enumerate(self._shape.names[:WRAPPED]):
            value = record.get(name) if name else None
            self._found.state[f] = MISSING if value is None else BAD
            if value is None:
                continue
            if f == SYMBOL:
                if isinstance(value, str) and not isinstance(value, Literal):
                    symbol = value.encode("utf-8", "replace")
                    self._found.state[f] = GOOD
            elif f == EVENT:
                self._found.state[f] = GOOD if value == self._shape.event else BAD
            else:
                self._put_number(f, value)
        self._found.whole[FIRST], self._found.whole[LAST] = 0, len(symbol)
        name_bytes = np.frombuffer(bytearray(symbol), np.uint8)
        settle(*self._found, self._judged, self._naming, name_bytes, stamp, self._table, filled, at)

    def _put_number(self, f: int, value: Any) -> None:
        if PRICE <= f <= ASK:
            read = double(value)
            if read is not None:
                self._found.number[f], self._found.state[f] = read, GOOD
            return
        exact = time_ns(value, self._unit) if f == TS else whole(value, 0, cut=False)
        if exact is not None and exact > NO_TIME:
            self._found.whole[f], self._found.state[f] = exact, GOOD
