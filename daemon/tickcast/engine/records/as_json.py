"""Rows as finished JSON messages: one kernel that runs the table of a record. It judges and publishes nothing.

Prices are rounded so that what is read back is within 1e-7 of the window's one-bar move.
"""

from collections.abc import Callable, Hashable, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tickcast.columns import F64, I64, NO_TIME, Encoded, FeatureRows, Forecasts, Source
from tickcast.compiled import lean_njit
from tickcast.engine.codec.digits import put_decimals, put_hex, put_name, put_null, put_significant, put_whole
from tickcast.engine.codec.pieces import Writing, json_of, put_piece, room_of, texts_of
from tickcast.engine.records.fields import Deployment, Facts, Kind, RecordField, RecordTable
from tickcast.engine.records.published import FEATURES, FORECASTS
from tickcast.records import ModelCard
from tickcast.settings import Settings
from tickcast.symbols import SymbolTable

MOVE_DIGITS = 7  # decimals reach this far below the one-bar move
MOST_DECIMALS = 40  # more than any double has use for; put_decimals turns to exponents long before
COMMA, OPEN_ARRAY, CLOSE_ARRAY = 44, 91, 93
NAME, WORD, WHOLE, PIECE, PRICE, REAL, PRICES, PRICE_LISTS, MOVES, REALS, SHARES, TIMES = range(12)  # what a step puts
PUTS = {
    Kind.SYMBOL: (NAME,), Kind.WHOLE: (WHOLE,), Kind.PRICE: (PRICE, PRICES, PRICE_LISTS), Kind.REAL: (REAL, REALS),
    Kind.MOVE: (0, MOVES), Kind.SHARE: (0, SHARES), Kind.TIMES: (0, TIMES),
}  # by the dimensions beside that of rows  # fmt: skip
BANKS = ((NAME, WORD, WHOLE, PIECE), (PRICE, REAL), (PRICES, PRICE_LISTS, MOVES, REALS, SHARES), (TIMES,))
NO_LIST, NO_TIMES = np.empty((0, 0, 0)), np.empty((0, 0), np.int64)

Column = Callable[[Facts], Any]


class Step(NamedTuple):
    """A value of each row: what is put, and the column that it comes from."""

    puts: int
    column: Column
    digits: int = 0
    choices: Sequence[bytes] = ()  # of a piece: what the column's numbers stand for


class Banks(NamedTuple):
    """The columns of a call, as a kernel takes them."""

    wholes: I64  # [K, N]
    reals: F64  # [K, N]
    lists: tuple[F64, ...]  # of [N, A, B]
    times: tuple[I64, ...]  # of [N, H]
    decimals: I64  # [2, N]: of prices, and of moves


class Plan:
    """A table as a kernel runs it: for each row, piece k and then step k; a last piece ends it."""

    def __init__(self, table: RecordTable, facts: Facts) -> None:
        self._banks: tuple[list[Column], ...] = [], [], [], []
        steps: list[tuple[int, int, int]] = []
        pieces: list[bytes] = []
        choices: list[bytes] = []
        text = b"{"
        for field in table.published:
            before, after = _around(field, facts)
            text += b'"%b":%b' % (field.name.encode(), before)
            for step in _steps(field, facts):
                bank = next(bank for bank, puts in zip(self._banks, BANKS, strict=True) if step.puts in puts)
                steps.append((step.puts, len(bank), len(choices) if step.choices else step.digits))
                bank.append(step.column)
                choices += step.choices
                pieces.append(text)
                text = b""
            text += after + b","
        self.texts = texts_of([*pieces, text[:-1] + b"}", *choices])
        self.steps = np.array(steps, np.int64)
        self.steps[self.steps[:, 0] == PIECE, 2] += len(pieces) + 1

    def banks(self, facts: Facts) -> Banks:
        wholes, reals, lists, times = ([column(facts) for column in bank] for bank in self._banks)
        count = len(facts.rows)
        decimals = np.zeros((2, count), np.int64)
        if isinstance(facts.rows, Forecasts):
            anchor, scale, relative = facts.rows.anchor, facts.rows.scale, facts.deployment.transform == "log_return"
            find_decimals(anchor, scale, relative, decimals[0])
            find_decimals(anchor, scale, False, decimals[1])
        return Banks(
            _matrix(wholes, count, np.int64), _matrix(reals, count, np.float64),
            tuple(_as_list(values) for values in lists) or (NO_LIST,),
            tuple(np.ascontiguousarray(values) for values in times) or (NO_TIMES,), decimals,
        )  # fmt: skip


class JsonWriter:
    """Built once per deployment; plans, which depend on models, sources and shapes, are kept between calls."""

    def __init__(self, settings: Settings, cards: list[ModelCard], rungs: list[str]) -> None:
        self._deployment = Deployment.of(settings, cards, rungs)
        self._plans: dict[str, tuple[Hashable, Plan]] = {}

    def encode(
        self, forecasts: Forecasts, symbols: SymbolTable, *, produced_ns: int, sources: Sequence[Source]
    ) -> Encoded:
        """One JSON object per forecast; `partition` of a forecast counts in `sources`."""
        facts = Facts(forecasts, symbols, sources, produced_ns, self._deployment)
        plan = self._plan(FORECASTS, facts, (forecasts.quantiles.shape[1:], len(self._deployment.cards)))
        return _written(plan, facts)

    def encode_features(
        self, rows: FeatureRows, symbols: SymbolTable, *, names: list[str], sources: Sequence[Source]
    ) -> Encoded:
        """One JSON object per feature vector; what is NaN becomes null."""
        facts = Facts(rows, symbols, sources, 0, self._deployment, names)
        return _written(self._plan(FEATURES, facts, tuple(names)), facts)

    def _plan(self, table: RecordTable, facts: Facts, key: Hashable) -> Plan:
        key = key, tuple(facts.sources)
        if table.name not in self._plans or self._plans[table.name][0] != key:
            self._plans[table.name] = key, Plan(table, facts)
        return self._plans[table.name][1]


def _written(plan: Plan, facts: Facts) -> Encoded:
    banks, names = plan.banks(facts), facts.symbols.arrays
    numbers = len(plan.steps) + sum(prod(values.shape[1:]) for values in (*banks.lists, *banks.times))
    writing = Writing.of(len(facts.rows), room_of(plan.texts, numbers))

    def write(first: int, end: int) -> None:
        write_rows(plan.steps, plan.texts, banks, names.names, names.lengths, writing, first, end)

    return writing.encoded(write, facts.rows.symbol)


def _around(field: RecordField, facts: Facts) -> tuple[bytes, bytes]:
    """The text before and after what the steps of a field put; a constant is text alone."""
    if field.kind is Kind.CONSTANT:
        return json_of(field.values(facts)), b""
    return {Kind.HEX: (b'"', b'"'), Kind.PLACE: (b"", b"}")}.get(field.kind, (b"", b""))


def _steps(field: RecordField, facts: Facts) -> list[Step]:
    values, choices = field.values(facts), field.choices
    match field.kind:
        case Kind.CONSTANT:
            return []
        case Kind.PLACE:
            places = [b'{"topic":%b,"partition":%d,"offset":' % (json_of(topic), p) for topic, p in facts.sources]
            return [Step(PIECE, _part(field, 0), choices=places), Step(WHOLE, _part(field, 1))]
        case Kind.HEX:
            return [Step(WORD, _part(field, number)) for number in range(len(values))]
        case Kind.CHOICE if choices is not None:
            return [Step(PIECE, field.values, choices=[*map(json_of, choices(facts.deployment))])]
    several = 0 if np.ndim(values) < 2 else values.ndim - 1
    return [Step(PUTS[field.kind][several], field.values, field.digits)]


def _part(field: RecordField, number: int) -> Column:
    return lambda facts: field.values(facts)[number]


def _matrix(columns: list[Any], count: int, kind: type[np.int64] | type[np.float64]) -> npt.NDArray[Any]:
    """[K, N]; words of 64 bits keep their bits."""
    matrix = np.empty((len(columns), count), kind)
    for place, column in enumerate(columns):
        matrix[place] = column
    return matrix


def _as_list(values: npt.NDArray[np.floating]) -> F64:
    """[N, A, B], also of [N, B]."""
    found = np.ascontiguousarray(values, np.float64)
    return found if found.ndim == 3 else found[:, None]


@lean_njit
def find_decimals(anchor, scale, relative, out):  # type: ignore[no-untyped-def]
    """Decimals that reach MOVE_DIGITS below the one-bar move."""
    for row in range(len(out)):
        move = abs(scale[row] * anchor[row]) if relative else abs(scale[row])
        out[row] = MOST_DECIMALS
        if 0 < move < np.inf:
            out[row] = min(max(np.int64(np.ceil(MOVE_DIGITS - np.log10(move))), 0), MOST_DECIMALS)


@lean_njit
def write_rows(steps, texts, banks, names, lengths, writing, first, end):  # type: ignore[no-untyped-def]
    """The rows first .. end, one behind the other."""
    out, o = writing.out, first * writing.room
    wholes, reals, lists, times = banks.wholes, banks.reals, banks.lists, banks.times
    for row in range(first, end):
        writing.starts[row] = o
        decimals, of_moves = banks.decimals[0, row], banks.decimals[1, row]
        for k in range(len(steps)):
            o = put_piece(out, o, texts, k)
            puts, place, detail = steps[k, 0], steps[k, 1], steps[k, 2]
            if puts == WHOLE:
                value = wholes[place, row]
                o = put_null(out, o) if value == NO_TIME else put_whole(out, o, value)
            elif puts == PIECE:
                o = put_piece(out, o, texts, detail + wholes[place, row])
            elif puts == WORD:
                o = put_hex(out, o, np.uint64(wholes[place, row]))
            elif puts == NAME:
                symbol = wholes[place, row]
                o = put_name(out, o, names[symbol], lengths[symbol])
            elif puts == PRICE:
                o = put_decimals(out, o, reals[place, row], decimals)
            elif puts == REAL:
                o = put_significant(out, o, reals[place, row], detail)
            elif puts == PRICES:
                o = _put_list(out, o, lists[place][row, 0], decimals)
            elif puts == PRICE_LISTS:
                o = _put_lists(out, o, lists[place][row], decimals)
            elif puts == MOVES:
                o = _put_list(out, o, lists[place][row, 0], of_moves)
            elif puts == REALS:
                o = _put_reals(out, o, lists[place][row, 0], detail)
            elif puts == SHARES:
                shares = lists[place][row, 0]
                o = put_null(out, o) if np.isnan(shares[0]) else _put_list(out, o, shares, detail)
            else:
                o = _put_times(out, o, times[place][row])
        o = put_piece(out, o, texts, len(steps))
        writing.ends[row] = o


@lean_njit
def _put_times(out, o, times):  # type: ignore[no-untyped-def]
    if len(times) == 0 or times[0] < 0:
        return put_null(out, o)
    for step in range(len(times)):
        out[o] = COMMA if step else OPEN_ARRAY
        o = put_whole(out, o + 1, times[step])
    out[o] = CLOSE_ARRAY
    return o + 1


@lean_njit
def _put_lists(out, o, values, decimals):  # type: ignore[no-untyped-def]
    for i in range(len(values)):
        out[o] = COMMA if i else OPEN_ARRAY
        o = _put_list(out, o + 1, values[i], decimals)
    out[o] = CLOSE_ARRAY
    return o + 1


@lean_njit
def _put_list(out, o, values, decimals):  # type: ignore[no-untyped-def]
    for k in range(len(values)):
        out[o] = COMMA if k else OPEN_ARRAY
        o = put_decimals(out, o + 1, values[k], decimals)
    out[o] = CLOSE_ARRAY
    return o + 1


@lean_njit
def _put_reals(out, o, values, digits):  # type: ignore[no-untyped-def]
    out[o] = OPEN_ARRAY
    o += 1
    for k in range(len(values)):
        if k:
            out[o] = COMMA
            o += 1
        o = put_significant(out, o, values[k], digits)
    out[o] = CLOSE_ARRAY
    return o + 1
