"""What a refused message holds where its reason looks, as text for a person. It judges nothing and raises nothing."""

import math
from typing import Any

import msgspec
import numpy as np

from tickcast.columns import PACKED
from tickcast.engine.codec.presets import for_topic, shape_of
from tickcast.engine.codec.ticks import SYMBOL, TS
from tickcast.errors import Reason
from tickcast.settings.stream import CodecSettings

LONGEST = 4096  # bytes of a message that are looked at
TIMES = (Reason.WRONG_UNIT, Reason.BAD_TIME)


def seen(message: bytes, reason: Reason, codec: CodecSettings, topic: str = "") -> str:
    """The event time as the feed writes it, the names of the fields or the symbol; empty where it cannot be told."""
    codec = for_topic(codec, topic)
    if codec.kind == "packed" and reason in TIMES and len(message) >= PACKED.itemsize:
        return str(int(np.frombuffer(message[: PACKED.itemsize], PACKED)["ts"][0]))
    if codec.kind != "json" or len(message) > LONGEST:
        return ""
    names = shape_of(codec).names
    fields = _fields(message, "" if codec.preset == "default" else "data")
    if reason == Reason.MISSING_FIELD:
        return ", ".join(map(str, fields))
    wanted = names[TS] if reason in TIMES else names[SYMBOL] if reason == Reason.BAD_SYMBOL else ""
    return _text(fields.get(wanted))


def _fields(message: bytes, wrapped: str) -> dict[str, Any]:
    """Of the object, or of the one inside that holds the ticks of a known feed."""
    try:
        found = msgspec.json.decode(message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    inner = found.get(wrapped) if isinstance(found, dict) else None
    if isinstance(inner, list) and inner:
        inner = inner[0]
    found = inner if isinstance(inner, dict) else found
    return found if isinstance(found, dict) else {}


def _text(value: Any) -> str:
    """Whole numbers in full: a time is known by its digits."""
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return str(int(value))
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
