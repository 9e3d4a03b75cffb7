"""What a JSON tick message means, written once more in plain Python with msgspec and Decimal. Slow and obvious."""

import datetime as dt
import re
from decimal import Decimal, InvalidOperation, localcontext
from typing import Any

import msgspec
import numpy as np

from tickcast.columns import RawBatch
from tickcast.errors import Reason
from tickcast.symbols import NAME_BYTES

UNITS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
RFC_3339 = re.compile(r"([0-9-]{10})[Tt ]([0-9:]{8})(?:\.([0-9]+))?([Zz]|[+-][0-9]{2}:[0-9]{2})")
NUMBERS = ("price", "size", "bid", "ask")
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent beyond reason
        return Decimal(0 if "e-" in text.lower() else "Infinity")


decode_json = msgspec.json.Decoder(float_hook=decimal).decode


class Bad(Exception):
    pass


def raw_of(messages: list[bytes], topic: str = "t", stamps: list[int] | None = None) -> RawBatch:
    ends = np.cumsum([len(message) for message in messages], dtype=np.int64)
    starts = ends - np.array([len(message) for message in messages], np.int64)
    stamped = np.full(len(messages), -1, np.int64) if stamps is None else np.array(stamps, np.int64)
    data = np.frombuffer(bytearray(b"".join(messages)), np.uint8)
    return RawBatch(topic, 0, data, starts, ends, np.arange(len(messages), dtype=np.int64), stamped)


def number(value: Any) -> int | Decimal:
    """A JSON number, or a string that is one to the last character."""
    if isinstance(value, str):
        try:
            read = decode_json(value.encode())
        except (ValueError, RecursionError):
            raise Bad from None
        if value != value.strip(" \t\r\n"):
            raise Bad
        value = read
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise Bad
    return value


def double(value: Any) -> float:
    try:
        read = float(number(value))
    except OverflowError:
        raise Bad from None
    if abs(read) == float("inf"):
        raise Bad
    return read


def exact(value: int | Decimal, unit: int) -> Decimal:
    with localcontext(prec=3000):
        if not Decimal(value).is_finite() or Decimal(value).adjusted() > 900:
            raise Bad
        return Decimal(value) * unit


def int64(value: Decimal) -> int:
    if abs(value) >= 1 << 63:
        raise Bad
    return int(value)


def time_ns(value: Any, unit: str) -> int:
    match = RFC_3339.fullmatch(value) if isinstance(value, str) else None
    if not match:
        return int64(exact(number(value), UNITS[unit]))
    day, clock, fraction, zone = match.groups()
    try:
        leap = clock.endswith(":60")
        text = f"{day}T{clock[:-2] + '59' if leap else clock}{'+00:00' if zone in 'Zz' else zone}"
        moment = dt.datetime.fromisoformat(text) - EPOCH
    except (ValueError, OverflowError):
        raise Bad from None
    ns = (moment.days * 86400 + moment.seconds + leap) * 10**9
    if abs(ns) > 9_223_372_035 * 10**9:
        raise Bad
    return ns + int(((fraction or "") + "0" * 9)[:9])


def expected(message: bytes, unit: str = "ns", prefix: str = "") -> tuple[Any, ...] | Reason:
    """(symbol, ts, price, size, bid, ask, sequence), or why there is no tick."""
    if not message:
        return Reason.EMPTY
    try:
        record = decode_json(message)
    except (ValueError, RecursionError):
        return Reason.MALFORMED
    if not isinstance(record, dict):
        return Reason.MALFORMED
    given = {name: value for name, value in record.items() if value is not None}
    if "symbol" not in given or "ts" not in given or not ("price" in given or {"bid", "ask"} <= given.keys()):
        return Reason.MISSING_FIELD
    symbol = given["symbol"]
    if not isinstance(symbol, str):
        return Reason.BAD_SYMBOL
    try:
        ts = time_ns(given["ts"], unit)
    except Bad:
        return Reason.BAD_TIME
    try:
        read = {name: double(given[name]) for name in NUMBERS if name in given}
        sequence = -1
        if "seq" in given:
            whole = exact(number(given["seq"]), 1)
            if whole != whole.to_integral_value():
                raise Bad
            sequence = int64(whole)
    except Bad:
        return Reason.BAD_NUMBER
    name = prefix.encode() + symbol.encode()
    if not symbol or len(name) > NAME_BYTES:
        return Reason.BAD_SYMBOL
    nan = float("nan")
    bid, ask = read.get("bid", nan), read.get("ask", nan)
    return name.decode(), ts, read.get("price", 0.5 * (bid + ask)), read.get("size", 0.0), bid, ask, sequence
