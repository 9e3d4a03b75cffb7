"""What the engine's state holds, and that another engine goes on from it."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from kit import T0, Folding, TickFeed, rung, walk
from kit import settings as kit_settings
from snapshotkit import KINDS, SECOND, Running, differences, small_settings, tape, turns
from tickcast.columns import RawBatch
from tickcast.engine.core.engine import Engine
from tickcast.engine.core.features import FeatureSet
from tickcast.engine.core.ladder import Ladder
from tickcast.engine.core.schedule import ClosedTime
from tickcast.errors import BadStore, Reason
from tickcast.io.memory_bus import raw_batch
from tickcast.io.store import snapshot
from tickcast.plugin import Runner
from tickcast.questions import Answers, Questions
from tickcast.records import Command
from tickcast.settings import Settings
from tickcast.state import Arrays, State, copied
from tickcast.symbols import SymbolTable, find_or_add

# Of FORMAT 8. When this differs, the engine remembers something else than older files hold: raise snapshot.FORMAT.
# Only a part that they may lack, as drift was, changes this alone.
LAYOUT = "3c6c0823e5e70e79"


@pytest.fixture(scope="module")
def options() -> Settings:
    return small_settings(**KINDS[1])


@pytest.fixture(scope="module")
def running(options: Settings) -> Running:
    """An engine that has seen everything; no test may give it another turn."""
    return Running(options).take(turns(tape(3), 3))


@pytest.fixture(scope="module")
def state(running: Running) -> State:
    return running.engine.snapshot()


def resumed(state: State, options: Settings) -> Running:
    fresh = Running(options)
    fresh.engine.resume(state)
    return fresh


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_engine_holds_all_that_the_first_one_holds(kind: dict[str, object]) -> None:
    options = small_settings(**kind)
    first = Running(options).take(turns(tape(2), 2))
    assert not [*differences(first.engine, resumed(first.engine.snapshot(), options).engine)]


def test_the_comparison_sees_a_field_that_a_snapshot_forgot(running: Running, state: State, options: Settings) -> None:
    other = resumed(state, options)
    other.engine.scorekeeper.bias = np.ones(3)  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="bias"):
        [*differences(other.engine, running.engine)]
    other = resumed(state, options)
    other.engine.builder._state.partition["marked"][1] += 1
    other.engine.positions["t", 0] += 1
    found = {path.rpartition("._state")[2] for path in differences(other.engine, running.engine)}  # parts know parts
    assert len(found) == 2


def test_every_array_of_a_snapshot_is_put_back_where_it_came_from(state: State, options: Settings) -> None:
    flipped = {name: array.copy() for name, array in state.arrays.items() if not name.startswith("symbols.")}
    for array in flipped.values():
        array.reshape(-1).view(np.uint8)[:] ^= 1
    symbol = flipped["folder.fold.symbol"]
    symbol["adjust_from"] = symbol["adjust_to"] = 0  # rows of a file: found anew
    again = resumed(State(state.arrays | flipped, state.facts), options).engine.snapshot()
    assert not [*differences({name: again.arrays[name] for name in flipped}, flipped)]


def test_a_snapshot_shares_no_memory_with_the_engine_that_goes_on(options: Settings) -> None:
    running = Running(options)
    running.take(turns(tape(4), 4)[:10])
    state = running.engine.snapshot()
    before = {name: array.copy() for name, array in state.arrays.items()}
    running.take(turns(tape(4), 4)[10:])
    assert not [*differences(before, state.arrays)]
    after = running.engine.snapshot()
    assert [name for name in before if [*differences(before[name], after.arrays[name])]]


def test_only_symbols_that_are_known_and_bars_that_are_looked_back_on_are_copied(
    state: State, running: Running
) -> None:
    known, lookback = len(running.serving.symbols), running.serving.features.lookback
    assert lookback > 6
    assert state.arrays["ring.close"].shape == (known, lookback)
    assert state.arrays["ring.values"].shape == (known, 6, 3)
    assert len(state.arrays["folder.fold.symbol"]) == known
    assert {len(state.arrays[name]) for name in state.arrays if name.startswith("score.book")} == {known}


def test_the_facts_are_json_and_name_sources_watermarks_positions_models_and_order(state: State) -> None:
    assert json.loads(json.dumps(state.facts)) == state.facts
    assert {(topic, partition) for topic, partition, _ in state.facts["folder"]["sources"]} == set(state.positions)
    assert all(watermark_ns > T0 for *_, watermark_ns in state.facts["folder"]["sources"])
    assert sum(state.positions.values()) >= 1500
    assert len(state.facts["ladder"]["models"]) == 3
    assert sorted(state.facts["ladder"]["order"]) == [0, 1, 2]


def test_another_layout_of_the_state_needs_another_format(state: State) -> None:
    layout = sorted((name, str(array.dtype), array.ndim) for name, array in state.arrays.items())
    facts = {part: sorted(told) for part, told in state.facts.items() if isinstance(told, dict)}
    digest = hashlib.sha256(json.dumps([layout, facts, sorted(state.facts)]).encode()).hexdigest()
    assert (snapshot.FORMAT, digest[:16]) == (8, LAYOUT)


def test_a_snapshot_of_before_regimes_is_gone_on_with_and_they_are_learnt_anew(state: State, options: Settings) -> None:
    header = state.arrays["score.book.header"]
    names = [name for name in header.dtype.names or () if name not in ("regime", "odd")]
    layout = np.dtype([(name, header.dtype[name]) for name in names], align=True)
    older = np.zeros(header.shape, layout)
    for name in names:
        older[name] = header[name]
    arrays = {name: array for name, array in state.arrays.items() if not name.startswith("regimes.")}
    facts = {name: told for name, told in state.facts.items() if name != "regimes"}
    other = resumed(State(arrays | {"score.book.header": older}, facts), options)
    assert set(other.engine.regimes.counts().values()) == {0}
    book = other.engine.snapshot().arrays["score.book.header"]
    assert not [*differences(book[names], header[names])]
    assert (book["regime"] == 1).all()
    assert (book["odd"] == 255).all()


def test_the_preferred_model_goes_on_answering(options: Settings) -> None:
    first = Running(options)
    first.take([[Command(id="1", command="use_model", args={"model": "seasonal"})]])
    assert first.serving.ladder is not None
    other = resumed(first.engine.snapshot(), options)
    assert other.serving.ladder is not None
    assert [*other.serving.ladder.choose(np.array([50]))] == [*first.serving.ladder.choose(np.array([50]))] == [1]


class Counting(Runner):
    """A stepped model: its quantiles widen with every call."""

    def __init__(self, settings: Settings) -> None:
        self._like = rung("naive", settings)
        self.card = self._like.card
        self._calls = np.zeros(1)

    def answer(self, questions: Questions) -> Answers:
        self._calls += 1
        return Answers(self._like.answer(questions).quantiles * np.float32(self._calls[0]))

    def state(self) -> Arrays:
        return {"calls": self._calls.copy()}

    def set_state(self, state: Arrays) -> None:
        self._calls = state["calls"].copy()


def test_a_stepped_model_goes_on_from_its_own_state(options: Settings) -> None:
    def engine() -> Engine:
        symbols = SymbolTable(options.symbols.limit)
        ladder = Ladder([Counting(options)], Counting(options), options)
        features = FeatureSet(options.features.set, options.forecast.transform)
        return Engine(options, symbols, TickFeed(symbols), features, ladder)

    first, other = engine(), engine()
    batches = first._decoder.batches(walk(400, 3, seed=1), 50)  # type: ignore[attr-defined]
    for batch in batches[:4]:
        first.turn([batch], T0)
    other.resume(first.snapshot())
    other._decoder = first._decoder
    assert not [*differences([first.turn([b], T0) for b in batches[4:]], [other.turn([b], T0) for b in batches[4:]])]
    assert first.snapshot().arrays["ladder.0.calls"] > 4


@pytest.mark.parametrize(("later_s", "reasons"), [(9, ["jump"]), (2 * 3600 + 1, [])])
def test_a_tick_held_at_the_cut_is_confirmed_or_refused_with_its_own_message_and_key(
    later_s: int, reasons: list[str]
) -> None:
    options = small_settings(**KINDS[0], quality__future_ms=0)

    def message(second: int) -> bytes:
        return json.dumps({"symbol": "A", "ts": T0 + second * SECOND, "price": 1.0, "sequence": second}).encode()

    def keyed(second: int, offset: int) -> RawBatch:
        raw = raw_batch("t", 0, [b"before", message(second), b"KEY"], first_offset=offset - 1, stamp_ns=5)
        key = raw.starts[2:], raw.ends[2:]
        return RawBatch("t", 0, raw.data, raw.starts[1:2], raw.ends[1:2], raw.offsets[1:2], raw.stamps_ns[1:2], key)

    first = Running(options).take([[keyed(0, 1)], [keyed(2 * 3600, 2)]])
    other = resumed(first.engine.snapshot(), options)
    held = first.engine.builder.counts()[Reason.HELD]
    for one in (first, other):
        one.take([[raw_batch("t", 0, [message(later_s)], first_offset=3, stamp_ns=6)]])
    assert held == 1
    assert not [*differences(first.outcomes[2:], other.outcomes)]
    letters = other.outcomes[0].letters
    assert [Reason(int(reason)).name.lower() for letter in letters for reason in letter.rejects.reason] == reasons
    for letter in letters:
        (start,), (end,) = letter.raw.keys or ([0], [0])
        assert letter.raw.message(0) == message(2 * 3600)
        assert (letter.raw.data[start:end].tobytes(), int(letter.raw.offsets[0]), int(letter.raw.stamps_ns[0])) == (
            b"KEY", 2, 5)  # fmt: skip


def test_symbols_keep_their_codes_whatever_their_bytes(options: Settings) -> None:
    first = SymbolTable(8)
    for name in (b"BTC", b"\xff\xfe", b"x" * 48, "é".encode()):
        find_or_add(first.arrays, np.frombuffer(name, np.uint8), 0, len(name))
    larger = SymbolTable(100)
    larger.resume(first.snapshot())
    assert larger.names() == first.names()
    assert [larger.code(name) for name in ("BTC", "é", "new")] == [0, 3, 4]
    with pytest.raises(BadStore, match=r"symbol 2 of the state finds no room.*symbols.limit"):
        SymbolTable(2).resume(first.snapshot())
    with pytest.raises(BadStore, match="before the first symbol"):
        larger.resume(first.snapshot())


def test_a_state_of_other_models_or_arrays_is_refused(state: State, options: Settings) -> None:
    ladder = state.facts["ladder"] | {"models": ["another"]}
    with pytest.raises(BadStore, match="which is not loaded"):
        resumed(State(state.arrays, state.facts | {"ladder": ladder}), options)
    fewer = {name: array for name, array in state.arrays.items() if name != "folder.fold.crossed"}
    with pytest.raises(BadStore, match="where symbol, open, partition"):
        resumed(State(fewer, state.facts), options)
    for wrong in (state.arrays["score.book.header"][:, :1], state.arrays["score.book.header"].view("u1")):
        with pytest.raises(BadStore, match="the state's header is"):
            resumed(State(state.arrays | {"score.book.header": wrong}, state.facts), options)


def test_a_split_may_be_added_for_later_but_not_changed_for_the_past(tmp_path: Path) -> None:
    file, before, after = tmp_path / "splits.csv", T0 + SECOND, T0 + 3600 * SECOND
    options = small_settings(bars__every_ms=500, bars__adjustments=f'"{file}"')

    def running(*rows: str) -> Running:
        file.write_text("\n".join(("symbol,ts,factor", *rows)) + "\n")
        return Running(options)

    some = turns(tape(5, 400), 5)
    first = running(f"S1,{before},0.5", f"S2,{before},2").take(some[:5])
    state = first.engine.snapshot()
    other = running(f"S0,{after},0.25", f"S1,{before},0.5", f"S2,{before},2")
    other.engine.resume(state)
    assert not [*differences(first.take(some[5:]).outcomes[5:], other.take(some[5:]).outcomes)]
    for rows in ((f"S1,{before},0.5",), (f"S1,{before},0.25", f"S2,{before},2"), (f"S1,{before},.5", f"S3,{before},2")):
        with pytest.raises(BadStore, match="splits or trading hours changed"):
            running(*rows).engine.resume(state)


def test_trading_hours_may_be_added_for_later_but_not_changed_for_the_past() -> None:
    day = 24 * 3600 * SECOND

    def folding(*closed: tuple[int, int]) -> Folding:
        start, end = (np.array([T0 + span[k] * day for span in closed]) for k in range(2))
        made = Folding(kit_settings(bars__calendar="x"), closed_time=ClosedTime(start, end, np.zeros(len(closed), int)))
        made.symbols.code("A")
        return made

    state = folding((-9, -8)).feed([("A", T0, 1.0, 1.0)]).builder.snapshot()
    folding((-9, -8), (5, 6)).builder.resume(state)
    for changed in ([], [(-9, -7)], [(-9, -8), (-1, 1)]):
        with pytest.raises(BadStore, match="splits or trading hours changed"):
            folding(*changed).builder.resume(state)


def test_copied_takes_every_field_of_a_group(running: Running) -> None:
    book = running.engine.scorekeeper._book
    assert [*copied(book).arrays] == [*book._fields]
