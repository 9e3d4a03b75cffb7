"""Forecasts and feature vectors as finished JSON messages, written by kernels. It judges and publishes nothing.

Numbers are rounded so that what is read back is within 1e-7 of the window's one-bar move.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tickcast.columns import F32, F64, I32, I64, U8, U64, Encoded, FeatureRows, Forecasts, Source
from tickcast.compiled import lean_njit
from tickcast.engine.codec.digits import put_decimals, put_hex, put_name, put_null, put_significant, put_whole
from tickcast.engine.codec.pieces import Texts, Writing, json_of, put_piece, room_of, texts_of
from tickcast.errors import Quality
from tickcast.records import ModelCard
from tickcast.settings import Settings
from tickcast.symbols import SymbolTable

SCHEMA = 1
MOVE_DIGITS = 7  # decimals reach this far below the one-bar move
SCALE_DIGITS, CONFIDENCE_DIGITS, PROBS_DECIMALS, FEATURE_DIGITS = 10, 7, 7, 10
MOST_DECIMALS = 40  # more than any double has use for; put_decimals turns to exponents long before
NUMBERS_PER_ROW = 17  # all but quantiles, point and target times
FIXED = 20  # constant pieces of a forecast
QUALITIES = sum(Quality) + 1  # combinations of the flags
FEATURE_FIXED = 6
COMMA, OPEN_ARRAY, CLOSE_ARRAY, CLOSE_OBJECT = 44, 91, 93, 125


class Sheet(NamedTuple):
    """The columns of the forecasts as the kernel sees them."""

    symbol: I32
    as_of: I64
    tie: I32
    partition: I32
    offset: I64
    anchor: F64
    scale: F64
    rung: U8
    model: I32
    flags: U8
    id_high: U64
    id_low: U64
    input_hash: U64
    target_ns: I64
    quantiles: F64
    confidence: F32
    probs: F32


class FeatureSheet(NamedTuple):
    symbol: I32
    as_of: I64
    tie: I32
    partition: I32
    offset: I64
    values: F64


class Stamp(NamedTuple):
    """What is the same for a whole call."""

    produced_ns: int
    expires_after_ns: int  # after as_of; -1 = unknown
    median: int  # its column
    relative: bool  # the scale is in log returns
    models: int  # where the pieces of models, rungs, qualities and sources begin
    rungs: int
    qualities: int
    sources: int


class ForecastWriter:
    """Built once per deployment; the pieces that depend on a horizon or a source are kept between calls."""

    def __init__(self, settings: Settings, cards: list[ModelCard], rung_names: list[str], device: str = "cpu") -> None:
        self._levels = settings.forecast.quantiles
        self._transform = settings.forecast.transform
        self._cards, self._rungs, self._device = cards, rung_names, device
        every_ns = settings.bars.every_ms * 10**6
        self._expires_after_ns = settings.forecast.expires_bars * every_ns if settings.bars.kind == "time" else -1
        self._texts: dict[tuple[int, tuple[Source, ...], int], Texts] = {}

    def encode(
        self, forecasts: Forecasts, symbols: SymbolTable, *, produced_ns: int, sources: Sequence[Source]
    ) -> Encoded:
        """One JSON object per forecast; `partition` of a forecast counts in `sources`."""
        sheet = Sheet(*(np.ascontiguousarray(getattr(forecasts, name)) for name in Sheet._fields))
        horizon, levels = forecasts.quantiles.shape[1:]
        texts = self._pieces(horizon, tuple(sources))
        rungs = FIXED + len(self._cards)
        qualities = rungs + len(self._rungs)
        stamp = Stamp(
            produced_ns, self._expires_after_ns, self._levels.index(0.5), self._transform == "log_return",
            FIXED, rungs, qualities, qualities + QUALITIES,
        )  # fmt: skip
        numbers = horizon * (levels + 2) + NUMBERS_PER_ROW
        writing = Writing.of(len(forecasts), room_of(texts, numbers))

        def write(first: int, end: int) -> None:
            write_forecasts(sheet, stamp, texts, symbols.arrays.names, symbols.arrays.lengths, writing, first, end)

        return writing.encoded(write, forecasts.symbol)

    def encode_features(
        self, rows: FeatureRows, symbols: SymbolTable, *, names: list[str], sources: Sequence[Source]
    ) -> Encoded:
        """One JSON object per feature vector; what is NaN becomes null."""
        sheet = FeatureSheet(*(np.ascontiguousarray(getattr(rows, name)) for name in FeatureSheet._fields))
        texts = texts_of(_feature_pieces(names) + [_source(source) for source in sources])
        writing = Writing.of(len(rows), room_of(texts, rows.values.shape[1] + NUMBERS_PER_ROW))

        def write(first: int, end: int) -> None:
            write_features(sheet, texts, symbols.arrays.names, symbols.arrays.lengths, writing, first, end)

        return writing.encoded(write, rows.symbol)

    def _pieces(self, horizon: int, sources: tuple[Source, ...]) -> Texts:
        key = horizon, sources, len(self._cards)
        if key not in self._texts:
            self._texts.clear()  # a horizon never changes; sources and models only ever grow
            pieces = _forecast_pieces(horizon, self._levels, self._transform, self._device)
            pieces += [b'"model":%b,"version":%b,"rung":' % (json_of(c.name), json_of(c.version)) for c in self._cards]
            pieces += [json_of(name) for name in self._rungs]
            pieces += [json_of([str(flag.name).lower() for flag in Quality if flag & k]) for k in range(QUALITIES)]
            self._texts[key] = texts_of(pieces + [_source(source) for source in sources])
        return self._texts[key]


def _forecast_pieces(horizon: int, levels: list[float], transform: str, device: str) -> list[bytes]:
    """The text between the values, in order."""
    steps = json_of(list(range(1, horizon + 1)))
    pieces = [
        b'{"id":"', b'","symbol":', b',"as_of_ns":', b',"tie":', b',"target_step":%b,"target_ns":' % steps,
        b',"levels":%b,"quantiles":' % json_of(levels), b',"point":', b',"anchor":',
        b',"unit":"price","transform":%b,"scale":' % json_of(transform), b",", b',"quality":', b',"age_ms":',
        b',"expires_ns":', b',"source":', b',"produced_ns":',
        b',"kind":"quantile","probs":null', b',"kind":"class","probs":', b',"input_hash":"',
        b'","device":%b,"confidence":' % json_of(device), b',"schema":%d}' % SCHEMA,
    ]  # fmt: skip
    assert len(pieces) == FIXED
    return pieces


def _feature_pieces(names: list[str]) -> list[bytes]:
    pieces = [
        b'{"symbol":', b',"as_of_ns":', b',"tie":', b',"names":%b,"values":[' % json_of(names), b'],"source":',
        b',"schema":%d}' % SCHEMA,
    ]  # fmt: skip
    assert len(pieces) == FEATURE_FIXED
    return pieces


def _source(source: Source) -> bytes:
    return b'{"topic":%b,"partition":%d,"offset":' % (json_of(source[0]), source[1])


@lean_njit
def write_forecasts(sheet, stamp, texts, names, lengths, writing, first, end):  # type: ignore[no-untyped-def]
    """The rows first .. end, one behind the other."""
    out, o = writing.out, first * writing.room
    for row in range(first, end):
        writing.starts[row] = o
        decimals = _decimals(sheet.anchor[row], sheet.scale[row], stamp.relative)
        symbol = sheet.symbol[row]
        o = put_piece(out, o, texts, 0)
        o = put_hex(out, put_hex(out, o, sheet.id_high[row]), sheet.id_low[row])
        o = put_name(out, put_piece(out, o, texts, 1), names[symbol], lengths[symbol])
        o = put_whole(out, put_piece(out, o, texts, 2), sheet.as_of[row])
        o = put_whole(out, put_piece(out, o, texts, 3), sheet.tie[row])
        o = _put_times(out, put_piece(out, o, texts, 4), sheet.target_ns, row)
        o = _put_quantiles(out, put_piece(out, o, texts, 5), sheet.quantiles, row, decimals)
        o = _put_list(out, put_piece(out, o, texts, 6), sheet.quantiles[row, :, stamp.median], decimals)
        o = put_decimals(out, put_piece(out, o, texts, 7), sheet.anchor[row], decimals)
        o = put_significant(out, put_piece(out, o, texts, 8), sheet.scale[row], SCALE_DIGITS)
        o = put_piece(out, put_piece(out, o, texts, 9), texts, stamp.models + sheet.model[row])
        o = put_piece(out, o, texts, stamp.rungs + sheet.rung[row])
        o = put_piece(out, o, texts, 10)
        o = put_piece(out, o, texts, stamp.qualities + (sheet.flags[row] & (QUALITIES - 1)))
        o = put_whole(out, put_piece(out, o, texts, 11), (stamp.produced_ns - sheet.as_of[row]) // 1_000_000)
        o = put_piece(out, o, texts, 12)
        if stamp.expires_after_ns < 0:
            o = put_null(out, o)
        else:
            o = put_whole(out, o, sheet.as_of[row] + stamp.expires_after_ns)
        o = put_piece(out, put_piece(out, o, texts, 13), texts, stamp.sources + sheet.partition[row])
        o = put_whole(out, o, sheet.offset[row])
        out[o] = CLOSE_OBJECT
        o = put_whole(out, put_piece(out, o + 1, texts, 14), stamp.produced_ns)
        if np.isnan(sheet.probs[row, 0]):
            o = put_piece(out, o, texts, 15)
        else:
            o = _put_list(out, put_piece(out, o, texts, 16), sheet.probs[row], PROBS_DECIMALS)
        o = put_hex(out, put_piece(out, o, texts, 17), sheet.input_hash[row])
        o = put_significant(out, put_piece(out, o, texts, 18), sheet.confidence[row], CONFIDENCE_DIGITS)
        o = put_piece(out, o, texts, 19)
        writing.ends[row] = o


@lean_njit
def _decimals(anchor, scale, relative):  # type: ignore[no-untyped-def]
    """Decimals that reach MOVE_DIGITS below the one-bar move."""
    move = abs(scale * anchor) if relative else abs(scale)
    if not 0 < move < np.inf:
        return np.int64(MOST_DECIMALS)
    return min(max(np.int64(np.ceil(MOVE_DIGITS - np.log10(move))), 0), MOST_DECIMALS)


@lean_njit
def _put_times(out, o, target_ns, row):  # type: ignore[no-untyped-def]
    if target_ns.shape[1] == 0 or target_ns[row, 0] < 0:
        return put_null(out, o)
    for step in range(target_ns.shape[1]):
        out[o] = COMMA if step else OPEN_ARRAY
        o = put_whole(out, o + 1, target_ns[row, step])
    out[o] = CLOSE_ARRAY
    return o + 1


@lean_njit
def _put_quantiles(out, o, quantiles, row, decimals):  # type: ignore[no-untyped-def]
    for step in range(quantiles.shape[1]):
        out[o] = COMMA if step else OPEN_ARRAY
        o = _put_list(out, o + 1, quantiles[row, step], decimals)
    out[o] = CLOSE_ARRAY
    return o + 1


@lean_njit
def _put_list(out, o, values, decimals):  # type: ignore[no-untyped-def]
    for i in range(len(values)):
        out[o] = COMMA if i else OPEN_ARRAY
        o = put_decimals(out, o + 1, values[i], decimals)
    out[o] = CLOSE_ARRAY
    return o + 1


@lean_njit
def write_features(sheet, texts, names, lengths, writing, first, end):  # type: ignore[no-untyped-def]
    """As write_forecasts, for feature vectors."""
    out, o = writing.out, first * writing.room
    for row in range(first, end):
        writing.starts[row] = o
        symbol = sheet.symbol[row]
        o = put_name(out, put_piece(out, o, texts, 0), names[symbol], lengths[symbol])
        o = put_whole(out, put_piece(out, o, texts, 1), sheet.as_of[row])
        o = put_whole(out, put_piece(out, o, texts, 2), sheet.tie[row])
        o = put_piece(out, o, texts, 3)
        for f in range(sheet.values.shape[1]):
            if f:
                out[o] = COMMA
                o += 1
            o = put_significant(out, o, sheet.values[row, f], FEATURE_DIGITS)
        o = put_piece(out, put_piece(out, o, texts, 4), texts, FEATURE_FIXED + sheet.partition[row])
        o = put_whole(out, o, sheet.offset[row])
        out[o] = CLOSE_OBJECT
        o = put_piece(out, o + 1, texts, 5)
        writing.ends[row] = o
