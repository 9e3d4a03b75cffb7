"""What to do about ticks that were refused: one sentence for each reason. It reads no message and decides nothing.

`seen` is what a refused message holds where the reason looks, as text: an event time as the feed writes it, the names
of the fields, a symbol. It came from outside, so it is shortened and made printable here.
"""

import sys
from collections.abc import Mapping

from tickcast.errors import Reason
from tickcast.settings import Settings

UNITS = {
    "s": ("seconds", 1),
    "ms": ("milliseconds", 10**3),
    "us": ("microseconds", 10**6),
    "ns": ("nanoseconds", 10**9),
}
FIRST_S, LAST_S = 300_000_000, 4_102_444_800  # 1979 and 2100: a time between them gives its unit away
SEEN_LENGTH = 80
UNREFUSED = (Reason.ACCEPTED, Reason.OTHER_EVENT, Reason.TOMBSTONE, Reason.HELD)
MOST_NAMED = 3  # reasons that a sentence names with their counts
REMEDIES = {  # `s` are the settings
    Reason.ACCEPTED: "",
    Reason.EMPTY: "messages without bytes: look at what produces them",
    Reason.MALFORMED: "not {s.codec.kind}, or cut off: set codec.kind to what the topic holds",
    Reason.BAD_NUMBER: "no number where one should be: see codec.fields.price, .size, .bid and .ask",
    Reason.BAD_SYMBOL: "{symbol} is empty, no text or longer than 48 bytes: see codec.fields.symbol",
    Reason.SYMBOL_LIMIT: "there are more than {s.symbols.limit} symbols and none was silent for so long as "
    "symbols.silent_ms = {s.symbols.silent_ms}: raise symbols.limit, or find the producer that invents names",
    Reason.SYMBOL_RATE: "more new symbols a minute than symbols.new_per_minute = {s.symbols.new_per_minute} while all "
    "{s.symbols.limit} places are taken: raise one of the two, or find the producer that invents names",
    Reason.TOO_LARGE: "longer than {s.codec.max_message_bytes} bytes: raise codec.max_message_bytes",
    Reason.OTHER_EVENT: "no ticks to codec.preset = '{s.codec.preset}': see which channels the feed sends",
    Reason.TOMBSTONE: "records without a value, as compacted topics have them, are no ticks",
    Reason.CORRUPT: "batches arrive damaged: look at the broker's disks and the producer's compression",
    Reason.LATE: "their bars were closed already: raise bars.lateness_ms = {s.bars.lateness_ms}, or find the producer "
    "whose clock is ahead",
    Reason.HELD: "ahead of quality.max_jump_ms = {s.quality.max_jump_ms}: the next ticks may confirm it",
    Reason.NON_FINITE: "a price or size is NaN, infinite or beyond 1e150: look at what produces it",
    Reason.NON_POSITIVE: "prices that are not above zero: set forecast.transform = 'difference'",
    Reason.NEGATIVE_SIZE: "sizes below zero: set codec.fields.size to the field of the traded size",
    Reason.FUTURE: "ahead of the broker's stamp or of this machine's clock: set the clock that is wrong, or raise "
    "quality.future_ms = {s.quality.future_ms} or quality.ahead_ms = {s.quality.ahead_ms}",
    Reason.ANCIENT: "behind the broker's stamp: raise quality.ancient_ms = {s.quality.ancient_ms} (0 = all)",
    Reason.JUMP: "far from all others in time: where it was right, raise quality.max_jump_ms = {s.quality.max_jump_ms}",
    Reason.OUTLIER: "far from the last price: raise quality.outlier_sigmas = {s.quality.outlier_sigmas:g} (0 = all)",
    Reason.CROSSED: "the bid is above the ask: set quality.crossed = 'accept', or swap codec.fields.bid and .ask",
    Reason.DUPLICATE: "codec.fields.sequence = '{s.codec.fields.sequence}' does not rise: is it the right field?",
    Reason.MARKET_CLOSED: "outside the hours of bars.calendar = '{s.bars.calendar}': correct them or their time zone",
    Reason.SYMBOL_IN_TWO_PARTITIONS: "a symbol comes in two partitions: give each message its symbol as the key",
    Reason.FATAL: "the process ended in them time and again: report them with their dead letters",
}


def unit_of(time: str) -> str:
    """The `codec.time_unit` in which a number is a time of our days; empty where it is none in any."""
    try:
        value = abs(float(time))
    except ValueError:
        return ""
    return next((unit for unit, (_, factor) in UNITS.items() if FIRST_S * factor <= value <= LAST_S * factor), "")


def remedy(reason: Reason, settings: Settings, seen: str = "") -> str:
    """What is wrong and what helps, as a clause."""
    seen = _printable(seen)
    if reason in (Reason.WRONG_UNIT, Reason.BAD_TIME):
        return _of_time(reason, settings, seen)
    if reason == Reason.MISSING_FIELD:
        return _of_fields(settings, seen)
    return REMEDIES[reason].format(s=settings, symbol=f"'{seen}'" if seen else "the symbol")


def refused(reasons: Mapping[str, int]) -> tuple[int, int]:
    """How many ticks were refused or late, and of how many; `reasons` are counts by name. Other events are no ticks."""
    bad = sum(count for name, count in reasons.items() if Reason[name.upper()] not in UNREFUSED)
    return bad, sum(reasons.values()) - sum(reasons.get(name, 0) for name in ("other_event", "tombstone"))


def mostly_refused(reasons: Mapping[str, int]) -> bool:
    bad, of = refused(reasons)
    return 2 * bad > of


def sentence(reasons: Mapping[str, int], settings: Settings, seen: Mapping[str, str] | None = None) -> str:
    """`196 of 196 ticks were refused (wrong_unit): ...`, with the remedy of what was most; empty where none was."""
    bad, of = refused(reasons)
    counts = {name: n for name, n in reasons.items() if n and Reason[name.upper()] not in UNREFUSED}
    worst = sorted(counts, key=lambda name: (-counts[name], name))
    if not worst:
        return ""
    named = ", ".join(f"{name} {counts[name]:,}" for name in worst[:MOST_NAMED]) if len(worst) > 1 else worst[0]
    what = "were late" if worst == ["late"] else f"were refused ({named})"
    return (
        f"{bad:,} of {of:,} ticks {what}: {remedy(Reason[worst[0].upper()], settings, (seen or {}).get(worst[0], ''))}"
    )


def _of_time(reason: Reason, settings: Settings, seen: str) -> str:
    codec, unit = settings.codec, unit_of(seen)
    if not unit or (unit == codec.time_unit and codec.preset == "default"):
        if reason == Reason.BAD_TIME:
            return (
                f"'{seen}'" if seen else "it"
            ) + " cannot be read as a time: see codec.fields.ts and codec.time_unit"
        return "event times lie outside 1900 to 2100: set codec.time_unit to 's', 'ms', 'us' or 'ns'"
    looks = f"{seen} looks like {UNITS[unit][0]}"
    if codec.preset != "default":
        return f"{looks}, which codec.preset = '{codec.preset}' does not expect: map codec.fields.* and codec.time_unit"
    return f"{looks}: set codec.time_unit = '{unit}'"


def _of_fields(settings: Settings, seen: str) -> str:
    fields, there = settings.codec.fields, f"; it has: {seen}" if seen else ""
    if settings.codec.preset != "default":
        return f"a field that codec.preset = '{settings.codec.preset}' reads is absent{there}"
    wanted = ", ".join(f"{name} = '{getattr(fields, name)}'" for name in ("symbol", "ts", "price"))
    return f"a field is absent: set codec.fields ({wanted}) to the feed's names{there}"


def _printable(text: str) -> str:
    """As much of it as a line takes, without what a terminal would obey."""
    clean = "".join(char if char.isprintable() else "?" for char in text[: SEEN_LENGTH + 1])
    return clean if len(clean) <= SEEN_LENGTH else clean[:SEEN_LENGTH] + "..."


def say_refused(why: str) -> None:
    """To a person, where nobody else wants to know that most of the data was refused."""
    print(f"tickcast: most was refused: {why}", file=sys.stderr)
