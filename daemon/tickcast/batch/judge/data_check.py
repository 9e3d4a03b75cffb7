"""What is wrong with a history, and with features over it, a verdict a line. It repairs none.

It reads the data as training does, through the engine's own folding, and computes the deployment's features over them.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from tickcast import remedies
from tickcast.batch.bar_history import history_of, read_closed
from tickcast.batch.train.history import BarHistory
from tickcast.clock import moment
from tickcast.columns import F64, I64
from tickcast.engine.codec.decode import Decoder
from tickcast.engine.core.features import FeatureSet
from tickcast.errors import Reason
from tickcast.io.tape.columns import TICKS_PER_BAR
from tickcast.io.tape.tape import Tape
from tickcast.settings import Settings
from tickcast.symbols import SymbolTable

Mask = npt.NDArray[np.bool_]

REFUSED_SHARE = 0.05  # of the ticks: beyond it the settings do not fit the data
CARRIED_SHARE = 0.5  # of a symbol's bars
STALE_RUN = 30  # bars of a symbol whose close does not change
STALE_SHARE = 0.9
SAME = 0.9999  # correlation of two channels that say the same
UNUSUAL, FORESIGHT = 0.3, 0.5  # rank correlation with the next move: a bounce between bid and ask ends at half
CHANCE = 6.0  # standard errors that it must be above, besides
LEAST_MOVES = 100
FORESIGHT_ADVICE = {
    "ok": "",
    "look": "prices that bounce between bid and ask, or that know a little of the future",
    "bad": "a value from the future, a price that was smoothed, or a bar's time that is not its start",
}


class Finding(NamedTuple):
    """One line of the table."""

    check: str
    subject: str  # a symbol, a channel, or all
    measured: str
    verdict: Literal["ok", "look", "bad"]
    advice: str = ""


def check_data(settings: Settings, data: Path) -> list[Finding]:
    """All that is looked at, in the order of the path: ticks, bars, features."""
    closed = read_closed(settings, data, any_spacing=True)  # it is one of the findings
    history = history_of(closed.table, on_gap=settings.bars.on_gap)
    features = FeatureSet(settings.features.set, settings.forecast.transform)
    values = features.compute(history.bars, history.symbol, history.ordinal, history.first)
    tape = Tape(data, settings)
    return [
        _refused(settings, closed.counts, tape.first_time), *_mixed(tape), *_spacing(settings, tape), _repeated(tape),
        *check_history(history, values, features.names),
    ]  # fmt: skip


def check_history(history: BarHistory, values: F64, names: list[str]) -> list[Finding]:
    """What closed bars, and the values of their channels, can show."""
    return [_gaps(history), _stale(history), *_channels(history, values, names), *_foresight(history, values, names)]


def _refused(settings: Settings, counts: I64, first_time: str) -> Finding:
    read = int(counts.sum() - counts[Reason.OTHER_EVENT])
    reasons = {
        reason.name.lower(): int(counts[reason])
        for reason in Reason
        if reason not in (Reason.ACCEPTED, Reason.OTHER_EVENT) and counts[reason]
    }
    refused = sum(reasons.values())
    said = f"{refused:,} of {read:,}" + "".join(f", {name} {count:,}" for name, count in reasons.items())
    verdict = _worst(refused > 0, refused > REFUSED_SHARE * read)
    worst = max(reasons, key=reasons.__getitem__, default="accepted")
    seen = first_time if worst in ("wrong_unit", "bad_time") else ""
    return Finding("refused ticks", "all", said, verdict, remedies.remedy(Reason[worst.upper()], settings, seen))


def _mixed(tape: Tape) -> Iterator[Finding]:
    if tape.mixed:
        symbol, said = tape.mixed.split(" ", 1)
        yield Finding("one name", symbol, said, "look", "two venues want two names, or a folder each")


def _spacing(settings: Settings, tape: Tape) -> Iterator[Finding]:
    """Of bars, or of ticks that come at even steps, beside that of the deployment's bars."""
    every_ns = settings.bars.every_ms * 10**6
    even_ticks = tape.kind == "ticks" and tape.interval_ns > every_ns
    if settings.bars.kind != "time" or not (even_ticks or (tape.kind == "bars" and tape.interval_ns)):
        return
    said = f"{tape.interval_ns / 1e9:g} s in the file, {every_ns / 1e9:g} s in bars.every_ms"
    fits = every_ns % tape.interval_ns == 0
    advice = "" if fits else f"bars would be made up: --set bars.every_ms={tape.interval_ns // 10**6}"
    yield Finding("spacing", "all", said, _worst(False, not fits), advice)


def _repeated(tape: Tape) -> Finding:
    """Bars of one time, or ticks that are equal in all they say."""
    decoder = Decoder(tape.settings.codec, SymbolTable(tape.settings.symbols.limit))
    batches = [decoder.decode(raw)[0] for raw in tape]
    bars = tape.kind == "bars"
    wanted = ("symbol", "ts") if bars else ("symbol", "ts", "price", "size", "sequence")
    frame = pl.DataFrame({name: np.concatenate([getattr(batch, name) for batch in batches]) for name in wanted})
    more = (frame.height - frame.n_unique()) // (TICKS_PER_BAR if bars else 1)
    if not more:
        return Finding("duplicates", "all", "none", "ok")
    if bars:
        return Finding("duplicates", "all", f"{more:,} bars repeat a time", "bad", "keep one bar of each time")
    said = f"{more:,} of {frame.height:,} ticks say what another says"
    return Finding("duplicates", "all", said, "look", "equal fills, or codec.fields.sequence tells copies apart")


def _gaps(history: BarHistory) -> Finding:
    """Of the symbol with most bars that nobody traded in."""
    carried = np.bincount(history.symbol, history.bars.mask == 0)
    share = carried / np.bincount(history.symbol)
    worst, jumps = int(share.argmax()), int(history.gap.sum())
    said = f"{share[worst]:.1%} of its bars carried; in all {int(carried.sum()):,} carried, {jumps:,} longer gaps"
    verdict = _worst(bool(carried.sum() or jumps), bool(share[worst] > CARRIED_SHARE))
    advice = "" if verdict == "ok" else "bars.every_ms, bars.calendar for hours, or bars.on_gap"
    return Finding("gaps", history.names[worst], said, verdict, advice)


def _stale(history: BarHistory) -> Finding:
    """Of the symbol whose price stood still longest, while there were ticks."""
    longest, share, begun = max((_still(history, s) for s in range(len(history.names))), key=lambda found: found[0])
    symbol = int(history.symbol[begun])
    since = f" from {moment(int(history.bars.as_of[begun]))}" if longest else ""
    said = f"{longest:,} bars unchanged{since}; {share:.1%} of its bars are"
    verdict = _worst(longest >= STALE_RUN, share > STALE_SHARE)
    advice = "" if verdict == "ok" else "a feed that stood still repeats its last price"
    return Finding("stale prices", history.names[symbol], said, verdict, advice)


def _still(history: BarHistory, symbol: int) -> tuple[int, float, int]:
    """The longest run of real bars with the close before them, their share, and the row where that run begins."""
    begin, end = int(history.bars.start[symbol]), int(history.ends[symbol])
    rows = begin + np.flatnonzero(history.bars.mask[begin:end] == 1)
    same = np.diff(history.bars.close[rows]) == 0
    if not same.any():
        return 0, 0.0, begin
    edges = np.flatnonzero(np.diff(np.concatenate([[0], same.astype(np.int8), [0]])))
    starts, lengths = edges[::2], edges[1::2] - edges[::2]
    longest = int(lengths.argmax())
    return int(lengths[longest]), float(same.mean()), int(rows[starts[longest]])


def _channels(history: BarHistory, values: F64, names: list[str]) -> Iterator[Finding]:
    """Channels that tell nothing, or nothing that another does not."""
    rows = np.isfinite(values).all(axis=1) & (history.bars.mask == 1)
    if not rows.any():
        yield Finding("features", "all", "no bar has all lookbacks", "bad", "give more history")
        return
    seen = values[rows]
    moves = np.ptp(seen, axis=0) > 0
    ranks = _ranks(seen)
    for number, name in enumerate(names):
        if not moves[number]:
            yield Finding("constant feature", name, f"always {seen[0, number]:g}", "bad", "remove it from features.set")
            continue
        for other in np.flatnonzero(moves[:number]).tolist():
            alike = _correlation(ranks[:, number], ranks[:, other])
            if abs(alike) > SAME and abs(_correlation(seen[:, number], seen[:, other])) > SAME:
                said = f"correlates {alike:.5f} with {names[other]}"
                yield Finding("duplicate feature", name, said, "bad", "remove one of the two")
                break
        else:
            yield Finding("feature", name, f"{seen[:, number].min():.4g} .. {seen[:, number].max():.4g}", "ok")


def _foresight(history: BarHistory, values: F64, names: list[str]) -> Iterator[Finding]:
    """How well each channel ranks the next move, in the symbol where it does so most surely."""
    following, known = _next_moves(history)
    for number, name in enumerate(names):
        found: list[tuple[float, float, int, str]] = []
        for symbol, title in enumerate(history.names):
            rows = slice(int(history.bars.start[symbol]), int(history.ends[symbol]))
            there = known[rows] & np.isfinite(values[rows, number])
            if (n := int(there.sum())) >= LEAST_MOVES:
                both = _ranks(np.column_stack([values[rows, number][there], following[rows][there]]))
                strength = _correlation(both[:, 0], both[:, 1])
                found.append((abs(strength) - CHANCE / n**0.5, strength, n, title))
        if not found:
            yield Finding("leakage", name, f"no symbol has {LEAST_MOVES} moves", "look", "give more history")
            continue
        beyond_chance, strength, n, title = max(found)
        sure = abs(strength) if beyond_chance > 0 else 0.0
        said = f"{strength:+.3f} with the next move of {title}, n = {n:,}"
        verdict = _worst(sure > UNUSUAL, sure > FORESIGHT)
        yield Finding("leakage", name, said, verdict, FORESIGHT_ADVICE[verdict])


def _next_moves(history: BarHistory) -> tuple[F64, Mask]:
    """The move that follows each bar, and where both are real and nothing lies between."""
    close, real = history.bars.close, history.bars.mask == 1
    following = np.zeros(len(close))
    following[:-1] = close[1:] - close[:-1]
    following /= np.where(close != 0, np.abs(close), 1.0)
    known = np.zeros(len(close), bool)
    known[:-1] = real[:-1] & real[1:] & (history.gap[1:] == 0) & (history.symbol[1:] == history.symbol[:-1])
    return following, known


def _ranks(values: F64) -> F64:
    """Of each column; equal values share theirs."""
    columns: list[Any] = [pl.Series(values[:, c]).rank("average").to_numpy() for c in range(values.shape[1])]
    return np.column_stack(columns)


def _correlation(one: F64, other: F64) -> float:
    """0 where one of them is constant."""
    one, other = one - one.mean(), other - other.mean()
    scale = float(np.sqrt((one @ one) * (other @ other)))
    return float(one @ other) / scale if scale > 0 else 0.0


def _worst(odd: bool, bad: bool) -> Literal["ok", "look", "bad"]:
    return "bad" if bad else "look" if odd else "ok"
