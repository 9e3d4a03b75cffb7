"""Places in the symbol table pass from silent symbols to new ones: when, how many, and with nothing of them left."""

import json
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from snapshotkit import SECOND
from tickcast.columns import BarBatch, Forecasts, RawBatch, Scores
from tickcast.engine.core import scoring, tally
from tickcast.engine.core.events import Outcome
from tickcast.engine.core.places import BLOCK, NEWCOMER_NS
from tickcast.errors import Reason
from tickcast.io.memory_bus import raw_batch
from tickcast.loop.build import Serving, build
from tickcast.records import Command
from tickcast.settings import Settings, load
from tickcast.symbols import SymbolTable

T0 = 1_700_000_000 * SECOND
LIMIT = 8


def small(**overrides: object) -> Settings:
    fixed: dict[str, object] = {
        "symbols.limit": LIMIT, "symbols.silent_ms": 600_000, "window.lookback": 6, "forecast.horizon": 3,
        "quality.max_jump_ms": 86_400_000, "uncertainty.memory_bars": 50,
    }  # fmt: skip
    dotted = fixed | {key.replace("__", "."): value for key, value in overrides.items()}
    return load(overrides={key: str(value) for key, value in dotted.items()}, environ={})[0]


def tick(symbol: str, second: float, price: float = 100.0) -> bytes:
    ts = T0 + int(second * SECOND)
    return json.dumps({"symbol": symbol, "ts": ts, "price": price, "size": 1}).encode()


def moves(symbol: str, first: float, count: int, *, seed: int = 1) -> list[bytes]:
    price = 100 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, 1e-3, count)))
    return [tick(symbol, first + n, float(p)) for n, p in enumerate(price)]


class Engine:
    """A serving, fed message by message, and what it did under the names of its time."""

    def __init__(self, settings: Settings, serving: Serving | None = None) -> None:
        self.serving = serving or build(settings)
        self.engine = self.serving.engine
        self.passed = 0
        self.seen: list[tuple[object, ...]] = []
        self._next = {0: 0, 1: 0}

    def feed(self, messages: Sequence[bytes], *, chunk: int = 1000, partition: int = 0) -> "Engine":
        for first in range(0, len(messages), chunk):
            part = [*messages[first : first + chunk]]
            self.take(raw_batch("t", partition, part, first_offset=self._next[partition], stamp_ns=-1))
        return self

    def take(self, raw: RawBatch) -> None:
        self._next[raw.partition] = int(raw.offsets[-1]) + 1
        outcome = self.engine.turn([raw], T0)
        self.seen += self.rows(outcome)
        while outcome.left:
            self.engine.pass_places()
            self.passed += 1
            outcome = self.engine.turn(outcome.left, T0)
            self.seen += self.rows(outcome)

    def rows(self, outcome: Outcome) -> Iterator[tuple[object, ...]]:
        """Whatever comes out, row by row, under names."""
        for kind in (outcome.bars, outcome.forecasts, outcome.scores):
            for batch in kind:
                yield from named(batch, self.serving)
        for letter in outcome.letters:
            for row, reason in zip(letter.rejects.row.tolist(), letter.rejects.reason.tolist(), strict=True):
                yield "letter", letter.raw.partition, int(letter.raw.offsets[row]), Reason(reason).name

    def of(self, symbol: str) -> list[tuple[object, ...]]:
        return [row for row in self.seen if row[1] == symbol]

    def letters(self) -> list[str]:
        return [str(row[3]) for row in self.seen if row[0] == "letter"]

    def names(self) -> list[str]:
        return self.serving.symbols.names()

    def count(self, reason: Reason) -> int:
        return int(self.engine.builder.counts()[reason])


def named(batch: BarBatch | Forecasts | Scores, serving: Serving) -> Iterator[tuple[object, ...]]:
    columns = [name for name in type(batch).__slots__ if name not in ("symbol", "partition", "mark")]
    for row in range(len(batch)):
        values = [np.asarray(getattr(batch, name)[row]).tobytes() for name in columns]
        yield type(batch).__name__, serving.symbols.name(int(batch.symbol[row])), *values


def flood(count: int, second: float, *, first: int = 0) -> list[bytes]:
    return [tick(f"X{first + n}", second) for n in range(count)]


@pytest.mark.parametrize("bars", [{}, {"bars__kind": "tick", "bars__every_ticks": 2}])
def test_who_comes_to_a_place_after_another_is_served_as_on_an_empty_table(bars: dict[str, object]) -> None:
    options = small(**bars, features__set='[{kind = "ema", span = 2}]', symbols__groups='{"new" = ["N*"]}')
    used = Engine(options)
    for n in range(LIMIT):
        used.feed(moves(f"N-OLD{n}", 0, 60, seed=n))  # with windows, open questions and labels of their own
    used.feed(moves("N-OLD7", 700, 60))
    others = set(used.names())
    used.feed(moves("GO", 1000, 90), partition=1)
    fresh = Engine(options)
    fresh.feed(moves("GO", 1000, 90), partition=1)
    assert used.passed == 1
    assert others - set(used.names()) == others - {"N-OLD7"}
    assert used.of("GO") == fresh.of("GO") != []
    assert {row[0] for row in used.of("GO")} == {"BarBatch", "Forecasts", "Scores"}


def test_of_names_that_came_once_the_longest_silent_give_their_places_to_honest_ones() -> None:
    engine = Engine(small())
    engine.feed([*moves("REAL", 0, 30), *flood(100, 30)])
    assert engine.count(Reason.SYMBOL_LIMIT) == 100 - (LIMIT - 1)
    second = 121 + NEWCOMER_NS / SECOND
    engine.feed([*moves("REAL", 31, 90), *[tick("PAD", second)] * BLOCK])
    engine.feed([m for s in range(20) for name in ("NEW1", "NEW2") for m in moves(name, second + s, 1)])
    assert {"REAL", "NEW1", "NEW2", "PAD"} <= set(engine.names())
    assert len(engine.names()) == LIMIT
    assert any(row[0] == "Forecasts" for row in engine.of("NEW1"))


def test_a_symbol_with_bars_keeps_its_place_until_it_was_silent_for_the_set_time() -> None:
    for silent_ms, second, kept in ((600_000, 599, True), (600_000, 700, False), (0, 80_000, True)):
        engine = Engine(small(symbols__limit=2, symbols__silent_ms=silent_ms))
        engine.feed([*moves("A", 0, 10), *moves("B", 0, 10), *moves("B", second, 2), tick("C", second + 2)])
        assert ("A" in engine.names()) == kept
        assert engine.letters() == (["SYMBOL_LIMIT"] if kept else [])


def test_open_questions_of_who_leaves_are_void_once_and_nothing_is_pending() -> None:
    engine = Engine(small(symbols__limit=1))
    engine.feed(moves("A", 0, 10))
    before = len([row for row in engine.of("A") if row[0] == "Scores"])
    assert engine.engine.scorekeeper.pending() > 0
    engine.feed(moves("B", 0, 1), partition=1)  # too early: refused
    assert engine.names() == ["A"]
    other = Engine(small(symbols__limit=2)).feed([*moves("A", 0, 10), *moves("Z", 0, 3), *moves("Z", 900, 3)])
    asked = sum(row[0] == "Forecasts" for row in other.of("A"))
    other.feed([tick("B", 903)])
    scored = [row for row in other.of("A") if row[0] == "Scores"]
    assert len(scored) == asked > before
    assert other.engine.scorekeeper.pending() == sum(row[0] == "Forecasts" for row in other.of("Z")) - sum(
        row[0] == "Scores" for row in other.of("Z")
    )
    (figures,) = [a for a in other.engine.scorekeeper.accuracy(T0, window="all") if a.horizon == 3]
    assert figures.void >= 3


def churn(seed: int, count: int) -> list[bytes]:
    """A few symbols that go on, and a stream of names that come for a while."""
    rng = np.random.default_rng(seed)
    messages, second = [], 0.0
    for _ in range(count):
        second += float(rng.exponential(1.5)) + (300 if rng.random() < 0.01 else 0)
        fresh = rng.random() < 0.5
        name = f"X{int(second // 40)}-{rng.integers(0, 6)}" if fresh else f"S{rng.integers(0, 3)}"
        bad = rng.random() < 0.05
        messages.append(b"{" if bad else tick(name, second, 100 + float(rng.normal())))
    return messages


@pytest.mark.slow
@pytest.mark.parametrize("rate", [1000, 3])
def test_whose_the_places_are_does_not_depend_on_the_batches(rate: int) -> None:
    messages = churn(5, 1500)
    runs = [Engine(small(symbols__new_per_minute=rate)).feed(messages, chunk=c) for c in (1, 7, 200, 1500)]
    whole = runs[-1]
    assert whole.passed > 10
    assert set(whole.letters()) == {"MALFORMED", "SYMBOL_LIMIT"} | ({"SYMBOL_RATE"} if rate == 3 else set())
    for run in runs[:-1]:
        assert sorted(run.seen) == sorted(whole.seen)
        assert run.names() == whole.names()


def test_a_snapshot_goes_on_with_the_same_places_also_from_before_they_pass() -> None:
    options, messages = small(symbols__new_per_minute=20), churn(6, 900)
    whole = Engine(options)
    first = Engine(options)
    cut_at = None
    for n in range(0, 900, 30):
        raw = raw_batch("t", 0, messages[n : n + 30], first_offset=n, stamp_ns=-1)
        outcome = first.engine.turn([raw], T0)
        first.seen += first.rows(outcome)
        if outcome.left and n > 300:
            cut_at = first.engine.positions["t", 0]
            break
        while outcome.left:
            first.engine.pass_places()
            outcome = first.engine.turn(outcome.left, T0)
            first.seen += first.rows(outcome)
    assert cut_at is not None
    assert first.engine.snapshot().positions == {("t", 0): cut_at}
    again = build(options)
    again.engine.resume(first.engine.snapshot())
    second = Engine(options, again)
    second.take(raw_batch("t", 0, messages[cut_at:], first_offset=cut_at, stamp_ns=-1))
    whole.feed(messages)
    assert whole.passed > second.passed > 0
    assert sorted(first.seen + second.seen) == sorted(whole.seen)
    third = Engine(options, build(options))
    third.engine.resume(whole.engine.snapshot())  # with places that are spare or were reused
    assert third.names() == whole.names()
    third._next[0] = whole._next[0]
    more = churn(7, 200)
    before = len(whole.seen)
    third.feed(more)
    whole.feed(more)
    assert third.seen == whole.seen[before:]


def test_the_rate_bounds_how_many_places_pass_within_a_minute_and_none_is_refused_while_there_are_free_ones() -> None:
    engine = Engine(small(symbols__limit=400, symbols__new_per_minute=5))
    engine.feed(flood(400, 0))
    assert engine.letters() == []
    engine.feed([tick("X0", 100), *flood(3 * BLOCK, 110, first=1000)])
    assert len(set(engine.names()) & {f"X{1000 + n}" for n in range(3 * BLOCK)}) == 5
    assert engine.count(Reason.SYMBOL_RATE) == 3 * BLOCK - 5
    engine.feed([tick("X0", 170), *flood(BLOCK, 171, first=2000)])
    assert len(set(engine.names()) & {f"X{2000 + n}" for n in range(BLOCK)}) == 5
    shut = Engine(small(symbols__limit=2, symbols__new_per_minute=0)).feed(
        [*flood(2, 0), tick("X0", 9000), tick("N", 9001)]
    )
    assert shut.letters() == ["SYMBOL_RATE"]


def test_names_whose_ticks_are_all_refused_hold_no_place() -> None:
    engine = Engine(small(symbols__limit=4))
    engine.feed([tick(f"X{n}", 0, -1.0) for n in range(40)])
    engine.feed([tick("A", 1), *moves("A", 2, 3)])
    assert "A" in engine.names()


def test_a_tick_that_is_held_and_an_open_bar_keep_their_places() -> None:
    engine = Engine(small(symbols__limit=3, quality__max_jump_ms=3_600_000))
    engine.feed([tick("A", 0), tick("A", 1), tick("O", 1), tick("H", 90_000), tick("N", 1)])
    assert engine.names() == ["A", "O", "H"]
    assert engine.letters() == ["SYMBOL_LIMIT"]
    assert engine.count(Reason.HELD) == 1


def test_a_route_is_a_names_and_does_not_stay_with_the_place() -> None:
    options = small(symbols__limit=2, model__ladder='["naive", "holt"]', model__default="naive")
    engine = Engine(options)
    engine.feed([*moves("A", 0, 12), *moves("B", 0, 12)])
    engine.engine.turn([Command(id="1", command="use_model", args={"model": "holt", "route": "symbol:A"})], T0)
    engine.feed([*moves("B", 700, 12), *moves("C", 712, 20)])
    assert engine.names() == ["C", "B"]
    holt = [card.name for card in engine.serving.cards].index("holt")

    def models_of(symbol: str) -> list[int]:
        at = 2 + [name for name in Forecasts.__slots__ if name not in ("symbol", "partition", "mark")].index("model")
        return [int(np.frombuffer(row[at], np.int32)[0]) for row in engine.of(symbol) if row[0] == "Forecasts"]  # type: ignore[call-overload]

    assert holt in models_of("A")
    assert holt not in models_of("C")
    already = len(models_of("A"))
    engine.feed([*moves("C", 1400, 12), *moves("A", 1412, 20)])
    assert engine.names() == ["C", "A"]
    assert holt in models_of("A")[already:]


def test_a_table_gives_its_lowest_spare_place_first_and_finds_all_others() -> None:
    table = SymbolTable(6)
    names = ["A", "B", "C", "D", "E", "F"]
    assert [table.code(name) for name in names] == [*range(6)]
    assert table.names() == names
    table.free(np.array([1, 4]))
    assert (table.names(), table.spare, len(table)) == (["A", "", "C", "D", "", "F"], 2, 6)
    assert (table.find("B"), table.find(""), table.find("F")) == (-1, -1, 5)
    copy = SymbolTable(8)
    copy.resume(table.snapshot())
    for one in (table, copy):
        assert [one.code(name) for name in ("F", "N1", "A", "N2", "N3")] == [5, 1, 0, 4, -1 if one is table else 6]
        assert one.names()[:6] == ["A", "N1", "C", "D", "N2", "F"]
        assert one.find("N2") == 4


def test_what_no_bar_will_settle_is_void_and_what_was_settled_stays() -> None:
    book, sums = scoring.fresh_book(3, [1, 2], 3), tally.fresh_tally(1, 2, 3, marks=2)
    out, symbol, wrap = scoring.settled_room(4, 2), 2, book.header.shape[1] - 1
    for ordinal in (3, 4):
        question = book.header[symbol, ordinal & wrap]
        question["ordinal"], question["open"], question["anchor"], question["as_of"] = ordinal, 1, 100.0, 10 * ordinal
    book.labels[symbol, 3 & wrap, 0, scoring.LOSS] = 0.5  # settled by bar 4, the last that there was
    book.close[symbol, 4 & wrap] = 101.0
    frame = scoring.Frame(
        levels=np.array([0.1, 0.5, 0.9]), horizons=np.array([1, 2]), median=1, transform=1, groups=1, cells=1,
        widening=False, gamma=0.01, memory=50.0, bound=20.0, per_bar=True, last_value=0, marks_per_cell=1,
        class_step=1, class_edge=np.full(1, -1.0), last_value_raw=np.zeros((2, 3)), correcting=False,
    )  # fmt: skip
    scoring.void_open(
        book, sums, out, frame, np.array([symbol]), np.array([5]), np.array([0], np.int32), np.array([99])
    )
    rows = sorted(zip(out.as_of[: out.used[0]].tolist(), out.actual.tolist(), out.settled_ns.tolist(), strict=False))
    assert [row[0] for row in rows] == [30, 40]
    assert np.array_equal([row[1] for row in rows], [[101.0, np.nan], [np.nan, np.nan]], equal_nan=True)
    assert [row[2] for row in rows] == [99, 99]
    assert sums.current[0, :, tally.VOID].tolist() == [1.0, 2.0]
    assert not book.header["open"].any()
