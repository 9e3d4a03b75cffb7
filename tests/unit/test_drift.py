"""What drifts is found by the family that is there for it, by ticks alone, and remembered across a restart."""

import msgspec
import numpy as np
import pytest

from driftkit import Referred, alarms, history_of, reference_of, report, ticks_of, values_of, walks
from kit import T0, Served, rung, settings
from tickcast.engine.core import channels as c
from tickcast.errors import BadModel
from tickcast.questions import Answers, Questions
from tickcast.records import Command, Drift
from tickcast.reference import EDGES, Reference
from tickcast.settings import Settings

SMALL = {
    "window__lookback": 8, "forecast__horizon": 2, "bars__every_ms": 1000, "symbols__limit": 16,
    "drift__mean_bars_between_false_alarms": 1000, "drift__cooldown_bars": 200,
    "features__set": '[{kind = "rsi", period = 5}, {kind = "realised_volatility", window = 10}]',
}  # fmt: skip
BARS, SYMBOLS, CHANGE = 1200, 4, 600


@pytest.fixture(scope="module")
def s() -> Settings:
    return settings(**SMALL)


@pytest.fixture(scope="module")
def reference(s: Settings) -> Reference:
    return reference_of(walks(4000, SYMBOLS, seed=1), s)


def wilder(factor: float, *, seed: int = 2) -> dict[str, np.ndarray]:
    """Walks whose moves are so many times as large from CHANGE on."""
    return walks(BARS, SYMBOLS, seed=seed, sigma=np.where(np.arange(BARS) < CHANGE, 1e-3, factor * 1e-3))


@pytest.fixture(scope="module")
def wild(s: Settings, reference: Reference) -> Served:
    return Served(s, ticks_of(wilder(2.0)), chunk=1000, runners=[Referred(reference, s), rung("naive", s)])


def test_values_are_placed_and_found_odd_and_far_as_by_a_plain_look(s: Settings, reference: Reference) -> None:
    closes = wilder(2.0)
    closes["S1"][300:330] = closes["S1"][300]
    history = history_of(closes)
    history.bars.mask[::50] = 0
    values, rows = values_of(history, s), np.arange(len(history))
    sketches = c.sketches_of(reference)
    found = c.measured(sketches, history.bars, values, history.symbol, history.ordinal, history.first)
    scores = np.zeros(values.shape)
    for row in rows:
        real = history.bars.mask[row] == 1
        before = row - 1 if history.ordinal[row] > 0 and history.bars.mask[row - 1] else None
        for f in range(3):
            value = values[row, f]
            if not real or np.isnan(value):
                assert found.place[row, f] == c.MISSING
                continue
            k = int(np.clip(np.searchsorted(reference.edges[f], value, side="right") - 1, 0, EDGES - 2))
            odd = not reference.low[f] <= value <= reference.high[f]
            odd |= not reference.repeats[f] and before is not None and values[before, f] == value
            assert found.place[row, f] == k + (c.ODD if odd else 0)
            low, high = reference.edges[f, k : k + 2]
            part = np.clip((value - low) / (high - low), 0, 1)
            scores[row, f] = c.SCORES[k] + part * (c.SCORES[k + 1] - c.SCORES[k]) - reference.center[f]
    whole = (found.place != c.MISSING).all(axis=1)
    squares = ((scores @ reference.whiten.T) ** 2).sum(axis=1)
    np.testing.assert_array_equal(found.far[whole], squares[whole] > reference.distance[0])
    assert (found.far[~whole] == c.MISSING).all()
    near = c.squared_distance(reference.whiten, scores[whole][0], np.inf)
    assert near == pytest.approx(squares[whole][0])
    again = found.far.copy()
    c.find_far(sketches, scores, again)
    np.testing.assert_array_equal(again, found.far)
    assert c.measure.py_func is not None


def test_a_reference_expects_of_each_symbol_what_was_its_own(s: Settings) -> None:
    closes = walks(3000, 2, seed=3) | {"wild": walks(3000, 1, seed=4, sigma=3e-3)["S0"]}
    found = reference_of(closes, s)
    assert found.names() == ["S0", "S1", "wild"]
    assert found.odd[2, 0] > 0.2 > 0.05 > found.odd[0, 0]
    assert found.odd[3, 0] == pytest.approx(0.1, abs=0.005)
    quiet = walks(1500, 1, seed=5, sigma=3e-3)["S0"]
    served = Served(s, ticks_of({"wild": quiet}), chunk=500, runners=[Referred(found, s), rung("naive", s)])
    assert not alarms(served)
    stranger = Served(s, ticks_of({"other": quiet}), chunk=500, runners=[Referred(found, s), rung("naive", s)])
    assert "range" in {drift.family for drift in alarms(stranger)}  # as wild as no symbol may be that nobody knows


def families_of(found: list[Drift]) -> dict[str, Drift]:
    """The first alarm of each family."""
    return {drift.family: drift for drift in reversed(found) if drift.event == "raised"}


def test_doubled_moves_are_found_in_the_channels_that_they_change(wild: Served) -> None:
    first = families_of(alarms(wild))["range"]
    assert CHANGE * 10**9 < first.as_of_ns - T0 < (CHANGE + 150) * 10**9
    assert (first.state, first.topic, first.partition, first.alarms, first.bars) == ("alarm", "t", 0, 1, 0)
    assert first.statistic >= first.threshold == 1000
    assert first.since_ns == first.as_of_ns
    assert first.watched == 3
    named = [stream for stream in first.streams if stream.named]
    assert "realised_volatility_10" in {stream.channel for stream in named} <= {"target", "realised_volatility_10"}
    for stream in named:
        assert stream.share > stream.limit > 0.1
        assert (stream.model, stream.group, stream.block_bars) == ("referred@1", "all", pytest.approx(40, abs=20))
        assert stream.autocorrelation is not None
        assert stream.autocorrelation < 0.1
        assert stream.psi is not None
        assert stream.ks is not None
        assert stream.wasserstein is not None
        assert min(stream.psi, stream.ks, stream.wasserstein) > 0
    assert all(not drift.event for drift in report(wild))


def test_a_channel_that_stands_still_is_found(s: Settings, reference: Reference) -> None:
    closes = walks(BARS, SYMBOLS, seed=6)
    for close in closes.values():
        close[CHANGE:] = close[CHANGE]
    served = Served(s, ticks_of(closes), chunk=1000, runners=[Referred(reference, s), rung("naive", s)])
    first = families_of(alarms(served))["range"]
    assert CHANGE * 10**9 < first.as_of_ns - T0 < (CHANGE + 100) * 10**9


class Worse(Referred):
    """From CHANGE on its point is off by so many one-bar moves, and its spread so many times as wide."""

    def __init__(self, s: Settings, *, off: float = 0.0, spread: float = 1.0) -> None:
        super().__init__(None, s)
        self._off, self._spread = off, spread

    def answer(self, questions: Questions) -> Answers:
        said = super().answer(questions).quantiles.copy()
        worse = questions.ordinal >= CHANGE
        said[worse] = self._spread * said[worse] + (self._off * questions.scale[worse, None, None])
        return Answers(said)


@pytest.mark.parametrize(("family", "how"), [("skill", {"off": 1.5}), ("coverage", {"spread": 0.4})])
def test_a_model_that_gets_worse_is_found_without_any_reference(family: str, how: dict[str, float]) -> None:
    s = settings(**SMALL | {"uncertainty__enabled": family != "coverage", "window__lookback": 128})
    served = Served(s, ticks_of(walks(BARS, 4, seed=10)), chunk=1000, runners=[Worse(s, **how), rung("naive", s)])
    first = families_of(alarms(served))[family]
    assert CHANGE * 10**9 < first.as_of_ns - T0 < (CHANGE + 200) * 10**9
    assert [(stream.model, stream.named, stream.autocorrelation) for stream in first.streams] == [
        ("referred@1", True, None)]  # fmt: skip
    assert {drift.family for drift in report(served)} == {"coverage", "skill"}


def test_quiet_markets_raise_nothing_and_are_told_all_the_same(reference: Reference) -> None:
    s = settings(**SMALL | {"drift__mean_bars_between_false_alarms": 10_000})
    runners = [Referred(reference, s), rung("naive", s)]
    served = Served(s, ticks_of(walks(3000, SYMBOLS, seed=7)), chunk=1000, runners=runners)
    assert not alarms(served)
    found = report(served)
    assert [drift.family for drift in found] == ["coverage", "skill", "range", "joint"]
    assert all(drift.state == "quiet" and 0 < drift.statistic < drift.threshold for drift in found)
    assert found[0].streams[0].autocorrelation == 0.0
    drift = served.engine.drift
    assert (drift.news(), drift.news()) == (found, [])
    served.turn(ticks_of(walks(3060, SYMBOLS, seed=7))[3000 * SYMBOLS :], now_ns=T0)
    assert [one.family for one in drift.news()] == ["coverage", "skill", "range", "joint"]
    assert found[0].streams[0].limit == pytest.approx(0.12)
    assert found[1].streams[0].share == pytest.approx(0.5, abs=1e-3)  # it is last value


@pytest.mark.parametrize("chunk", [1, 7, 4000])
def test_alarms_are_the_same_whatever_the_chunks(s: Settings, reference: Reference, wild: Served, chunk: int) -> None:
    other = Served(s, ticks_of(wilder(2.0)), chunk=chunk, runners=[Referred(reference, s), rung("naive", s)])
    assert alarms(other) == alarms(wild)
    assert report(other) == report(wild)


@pytest.mark.parametrize("kind", [{}, {"bars__kind": "tick", "score__adapt_every_bars": 16}])
def test_a_restart_goes_on_bit_by_bit(kind: dict[str, object], reference: Reference) -> None:
    s, ticks = settings(**SMALL | kind, symbols__groups='{"few" = ["S1"]}'), ticks_of(wilder(2.0))
    half = len(ticks) // 2 + 1001
    whole = Served(s, [], chunk=1, runners=[Referred(reference, s), rung("naive", s)])
    found = [drift for raw in whole.feed.batches(ticks, 500) for drift in whole.engine.turn([raw], T0).drift]
    one, other = (Served(s, [], chunk=1, runners=[Referred(reference, s), rung("naive", s)]) for _ in range(2))
    parts = [drift for raw in one.feed.batches(ticks[:half], 500) for drift in one.engine.turn([raw], T0).drift]
    state = one.engine.snapshot()
    other.engine.resume(state)
    again = other.engine.snapshot().part("drift")
    assert all((again.arrays[name] == array).all() for name, array in state.part("drift").arrays.items())
    assert [other.symbols.code(f"S{k}") for k in range(4)] == [*range(4)]
    parts += [drift for raw in other.feed.batches(ticks[half:], 500) for drift in other.engine.turn([raw], T0).drift]
    assert parts == found
    assert found
    assert report(other) == report(whole)


def test_another_model_that_is_tried_first_brings_its_own_reference_and_ends_alarms_about_the_old(
    s: Settings, reference: Reference
) -> None:
    runners = [Referred(reference, s), rung("naive", s)]
    served = Served(s, ticks_of(wilder(2.0))[: 4 * (CHANGE + 150)], chunk=1000, runners=runners)
    before = {drift.family: drift for drift in report(served)}
    assert before["range"].state == "alarm"
    wilder_ones = reference_of(walks(4000, SYMBOLS, seed=8, sigma=2e-3), s)
    served.engine.install(Referred(wilder_ones, s, digest="newer"))
    assert {drift.family: drift for drift in report(served)} == before
    use = Command(id="1", command="use_model", args={"model": "newer"})
    later = served.feed.batches(ticks_of(wilder(2.0))[4 * (CHANGE + 150) :], 500)
    outcome = served.engine.turn([use, *later], T0)
    alarmed = {family for family, drift in before.items() if drift.state == "alarm"}
    assert alarmed > {"range"}  # also what is watched of every model: it was about one that serves no more
    assert {(drift.family, drift.event, drift.state) for drift in outcome.drift} == {
        (family, "ended", "quiet") for family in alarmed
    }
    after = {drift.family: drift for drift in report(served)}
    assert after["range"].state == "quiet"
    assert after["range"].streams[0].model == "newer@1"
    assert {stream.model for stream in after["coverage"].streams} == {"newer@1"}


def test_a_model_that_takes_the_route_of_a_group_ends_alarms_too(reference: Reference) -> None:
    """Of who answered there before no block would close any more, so its alarm would stand for ever."""
    s = settings(**SMALL, symbols__groups='{"few" = ["S1"]}')
    runners = [Referred(reference, s), rung("naive", s)]
    served = Served(s, ticks_of(wilder(2.0))[: 4 * (CHANGE + 150)], chunk=1000, runners=runners)
    alarmed = {drift.family for drift in report(served) if drift.state == "alarm"}
    served.engine.install(Referred(reference, s, digest="newer"))
    use = Command(id="1", command="use_model", args={"model": "newer", "route": "group:few"})
    outcome = served.engine.turn([use, *served.feed.batches(ticks_of(wilder(2.0))[4 * (CHANGE + 150) :], 500)], T0)
    assert {drift.family for drift in outcome.drift if drift.event == "ended"} == alarmed
    assert alarmed


def test_switched_off_it_holds_nothing_and_says_nothing(reference: Reference) -> None:
    s = settings(**SMALL | {"drift__enabled": False})
    served = Served(s, ticks_of(wilder(2.0)), chunk=1000, runners=[Referred(reference, s), rung("naive", s)])
    assert not alarms(served)
    assert not report(served)
    state = served.engine.snapshot()
    assert not state.part("drift").arrays
    on = Served(settings(**SMALL), [], chunk=1, runners=[Referred(reference, s), rung("naive", s)])
    on.engine.resume(state)
    on.engine.drift.news()
    assert not [*on.engine.snapshot().part("drift").arrays["place"]]


def test_an_alarm_ends_after_the_cooldown_and_hysteresis_holds_it(reference: Reference) -> None:
    ended = {}
    for cooldown, hysteresis in ((200, 0.5), (200, 0.001), (500, 0.5)):
        given = {"drift__cooldown_bars": cooldown, "drift__hysteresis": hysteresis}
        s = settings(**SMALL | given)
        closes = walks(1800, 2, seed=9, sigma=np.where(abs(np.arange(1800) - 500) < 100, 4e-3, 1e-3))
        found = alarms(Served(s, ticks_of(closes), chunk=1000, runners=[Referred(reference, s), rung("naive", s)]))
        last = [drift for drift in found if drift.family == "range"][-1]
        ended[cooldown, hysteresis] = last.as_of_ns - T0 if last.event == "ended" else None
    first = ended[200, 0.5]
    assert first is not None
    assert ended[200, 0.001] is None
    assert ended[500, 0.5] is not None
    assert ended[500, 0.5] >= first + 250 * 10**9


@pytest.mark.parametrize("name", sorted(set(Reference.__slots__) - {"symbols"}))
def test_a_reference_of_another_shape_or_without_a_number_is_refused(reference: Reference, name: str) -> None:
    arrays = reference.arrays()
    assert Reference.of(arrays, channels=3).arrays().keys() == arrays.keys()
    for wrong in (arrays[name][..., None], arrays[name][:-1], arrays[name].astype(np.float32)):
        with pytest.raises(BadModel, match=name):
            Reference.of({**arrays, name: wrong}, channels=3)
    if name != "repeats":
        with pytest.raises(BadModel, match=f"{name} is not finite"):
            Reference.of({**arrays, name: np.full_like(arrays[name], np.nan)}, channels=3)
    with pytest.raises(BadModel, match="does not hold what it should"):
        Reference.of({key: array for key, array in arrays.items() if key != name}, channels=3)


@pytest.mark.parametrize("symbols", [b"", b"{}", b"[1]", b'["a"', b"\xff"])
def test_a_reference_whose_symbols_are_no_list_of_names_is_refused(reference: Reference, symbols: bytes) -> None:
    arrays = reference.arrays() | {"symbols": np.frombuffer(symbols, np.uint8)}
    with pytest.raises(BadModel, match="names no symbols"):
        Reference.of(arrays, channels=3)


def test_every_drift_is_json_without_what_is_no_number(wild: Served) -> None:
    for drift in [*alarms(wild), *report(wild)]:
        assert msgspec.json.decode(msgspec.json.encode(drift), type=Drift) == drift
