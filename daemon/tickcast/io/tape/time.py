"""Event times of a data file as ns since 1970. What cannot be read becomes NO_TIME; nothing is guessed or dropped."""

from collections.abc import Callable
from functools import partial

import polars as pl

from tickcast.columns import NO_TIME

UNIT_NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
TIME_FORMATS = (
    "%+",  # RFC 3339, with T or a space
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%d",
    "%Y/%m/%d %H:%M:%S%.f",
    "%Y/%m/%d %H:%M",
    "%Y/%m/%d",
    "%Y%m%d %H:%M:%S%.f",
)
MONTH_FIRST = ("%m/%d/%Y %H:%M:%S%.f", "%m/%d/%Y %H:%M", "%m/%d/%Y")


def event_time(column: pl.Series, unit: str) -> pl.Series:
    """Integers and floats in `unit`, dates, datetimes (UTC where they name no zone) and text as ns since 1970."""
    if column.dtype == pl.String:
        found = _text_time(column, unit)
    elif column.dtype == pl.Datetime:
        found = _scaled(column.to_physical(), UNIT_NS[column.dtype.time_unit])  # type: ignore[attr-defined]
    elif column.dtype == pl.Date:
        found = _scaled(column.to_physical(), 86_400 * 10**9)
    elif column.dtype.is_float():
        found = _fractions(column, UNIT_NS[unit])
    else:
        found = _scaled(column.cast(pl.Int64, strict=False), UNIT_NS[unit])
    return found.fill_null(NO_TIME).alias("ts")


def _scaled(column: pl.Series, factor: int) -> pl.Series:
    """Times the factor; null where the product does not fit 64 bits, so that a wrong unit never wraps around."""
    most = ((1 << 63) - 1) // factor
    whole = column.cast(pl.Int64, strict=False)
    return pl.select(pl.when(whole.is_between(-most, most)).then(whole)).to_series() * factor


def _fractions(column: pl.Series, factor: int) -> pl.Series:
    """Floats without the loss of digits that one product in float64 would cost."""
    whole = column.floor()
    rest = ((column - whole) * factor).round().cast(pl.Int64, strict=False)
    return _scaled(whole.cast(pl.Int64, strict=False), factor) + rest


def _text_time(column: pl.Series, unit: str) -> pl.Series:
    """Reads with the form that fits the first value, then tries the others on what that form could not read."""
    first = column.drop_nulls().head(1)
    found = pl.Series(column.name, [None], pl.Int64).new_from_index(0, len(column))
    for read_text in sorted(_text_readers(unit), key=lambda reader: reader(first).null_count()):
        unread = pl.select(pl.when(found.is_null()).then(column)).to_series()
        if unread.null_count() == len(unread):
            break
        found = pl.select(pl.coalesce(found, read_text(unread))).to_series()
    return found


def _text_readers(unit: str) -> list[Callable[[pl.Series], pl.Series]]:
    numbers = [partial(_whole_numbers, unit=unit), partial(_decimal_numbers, unit=unit)]
    dates = [partial(_dates, form=form) for form in TIME_FORMATS]
    return [*numbers, *dates, *(partial(_month_first, form=form) for form in MONTH_FIRST)]


def _whole_numbers(text: pl.Series, *, unit: str) -> pl.Series:
    return _scaled(text.cast(pl.Int64, strict=False), UNIT_NS[unit])


def _decimal_numbers(text: pl.Series, *, unit: str) -> pl.Series:
    return _fractions(text.cast(pl.Float64, strict=False), UNIT_NS[unit])


def _dates(text: pl.Series, *, form: str) -> pl.Series:
    return text.str.to_datetime(form, time_unit="ns", strict=False).to_physical()


def _month_first(text: pl.Series, *, form: str) -> pl.Series:
    """Month/day/year only where it reads every value: else the file may be day/month/year, and is not guessed at."""
    parsed = _dates(text, form=form)
    return parsed if parsed.null_count() == text.null_count() else parsed.clear(len(parsed))
