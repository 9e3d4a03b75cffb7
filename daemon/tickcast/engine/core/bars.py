"""Ticks -> checked ticks -> closed bars: one kernel that walks the ticks of a partition in order.

Everything is judged tick by tick against state that only earlier ticks made, so chunk borders change nothing.
The kernel writes closed bars into the rings and stops early when a symbol's ring could lose a bar that is still
needed; the caller then works off what was closed and calls again. It never reads a clock.

Event times lie between EARLIEST_NS and LATEST_NS, checked before anything is computed with one: so no sum or difference
of two of them and a span of the settings leaves 64 bits.
"""

import numpy as np

from tickcast.compiled import inlined_njit, lean_njit
from tickcast.engine.core.fold_state import HELD_MOST, NEVER
from tickcast.engine.core.schedule import is_closed, trading_time
from tickcast.errors import Reason

KINDS = {"time": 0, "tick": 1, "volume": 2}
GAPS = {"carry": 0, "join": 1, "cold": 2}
NEVER_JUMPS = (1 << 63) - 1
HEARTBEAT = -1  # as a symbol: the row moves the watermark and is no tick
EARLIEST_NS, LATEST_NS = -2_208_988_800 * 10**9, 4_102_444_800 * 10**9  # the years 1900 and 2100
OTHER_UNIT_NS = 50 * 86_400 * 10**9  # positive times before 1970-02-20 are seconds, ms or us taken for ns
LARGEST = 1e150  # price or size: their products and sums are still numbers
OUTLIER_MEMORY = 0.98  # of the running one-tick move
OUTLIER_WARM_TICKS = 50

R_ACCEPTED, R_LATE, R_HELD = int(Reason.ACCEPTED), int(Reason.LATE), int(Reason.HELD)
R_NON_FINITE, R_NON_POSITIVE, R_NEGATIVE_SIZE = (
    int(Reason.NON_FINITE),
    int(Reason.NON_POSITIVE),
    int(Reason.NEGATIVE_SIZE),
)
R_WRONG_UNIT, R_FUTURE, R_ANCIENT = int(Reason.WRONG_UNIT), int(Reason.FUTURE), int(Reason.ANCIENT)
R_JUMP, R_OUTLIER, R_CROSSED = int(Reason.JUMP), int(Reason.OUTLIER), int(Reason.CROSSED)
R_DUPLICATE, R_CLOSED, R_MOVED = int(Reason.DUPLICATE), int(Reason.MARKET_CLOSED), int(Reason.SYMBOL_IN_TWO_PARTITIONS)


@inlined_njit
def _static_fault(rules, price, size, bid, ask, ts, stamp, latest):  # type: ignore[no-untyped-def]
    """What is wrong with a tick whatever came before it; 0 = nothing."""
    if not (abs(price) <= LARGEST and abs(size) <= LARGEST):  # so is NaN
        return R_NON_FINITE
    if rules.positive and price <= 0.0:
        return R_NON_POSITIVE
    if size < 0.0:
        return R_NEGATIVE_SIZE
    if ts < EARLIEST_NS or ts > LATEST_NS or 0 <= ts < OTHER_UNIT_NS:
        return R_WRONG_UNIT
    if ts > latest:
        return R_FUTURE
    if 0 <= stamp <= LATEST_NS:
        if rules.future_ns > 0 and ts - stamp > rules.future_ns:
            return R_FUTURE
        if rules.ancient_ns > 0 and stamp - ts > rules.ancient_ns:
            return R_ANCIENT
    if rules.reject_crossed and bid > ask:  # false where either is NaN
        return R_CROSSED
    return 0


@inlined_njit
def _is_outlier(rules, s, price):  # type: ignore[no-untyped-def]
    """Further from the last price than so many running moves. A second one in a row is believed: the level moved."""
    if rules.outlier_sigmas <= 0.0 or s.ticks < OUTLIER_WARM_TICKS or s.price <= 0.0 or price <= 0.0 or s.doubted:
        return False
    return abs(np.log(price) - np.log(s.price)) > rules.outlier_sigmas * max(s.move, 1e-9)


@lean_njit
def _adjusted(rules, s, ts, price, size):  # type: ignore[no-untyped-def]
    """Price and size in the units of the symbol's first day."""
    factor = 1.0
    for i in range(s.adjust_from, s.adjust_to):
        if rules.adjust_ns[i] <= ts:
            factor *= rules.adjust_factor[i]
    return price / factor, size * factor


@inlined_njit
def _unfit(rules, price, size):  # type: ignore[no-untyped-def]
    """Adjusted to the first day, a number may have left what can be held."""
    if not (abs(price) <= LARGEST and size <= LARGEST):
        return R_NON_FINITE
    return R_NON_POSITIVE if rules.positive and price <= 0.0 else R_ACCEPTED


@lean_njit
def store(bars, closed, p, offsets, stamps):  # type: ignore[no-untyped-def]
    """Put closed bars of partition p into the rings, and note which message closed them."""
    for c in closed:
        c.partition, c.offset, c.stamp = p, offsets[c.row], stamps[c.row]
        at = bars.start[c.symbol] + (c.ordinal & bars.wrap)
        bars.open[at], bars.high[at], bars.low[at], bars.close[at] = c.open, c.high, c.low, c.close
        bars.volume[at], bars.mask[at], bars.as_of[at] = c.volume, c.mask, c.as_of


@lean_njit
def split(closed, out):  # type: ignore[no-untyped-def]
    """Closed bars as columns, each record read once."""
    for i in range(len(out.symbol)):
        c = closed[i]
        out.ordinal[i], out.as_of[i], out.symbol[i], out.tie[i] = c.ordinal, c.as_of, c.symbol, c.tie
        out.open[i], out.high[i], out.low[i], out.close[i] = c.open, c.high, c.low, c.close
        out.volume[i], out.ticks[i], out.mask[i], out.gap[i] = c.volume, c.ticks, c.mask, c.gap
        out.first[i], out.void_before[i], out.mark[i] = c.first, c.void_before, c.mark
        out.partition[i], out.offset[i], out.stamp[i] = c.partition, c.offset, c.stamp


@inlined_njit
def _emit(closed, s, code, o, as_of, mask, gap, mark, row):  # type: ignore[no-untyped-def]
    """Write the open bar `o` as a closed one; with mask 0 the last close is carried instead."""
    s.tie = s.tie + 1 if as_of == s.as_of and s.next > 0 else 0
    s.as_of = as_of
    if gap:
        s.void_before = s.next
    if mask:
        closed.open, closed.high, closed.low, closed.close = o.open, o.high, o.low, o.close
        closed.volume, closed.ticks = o.volume, o.ticks
        s.close = o.close
    else:
        closed.open, closed.high, closed.low, closed.close = s.close, s.close, s.close, s.close
        closed.volume, closed.ticks = 0.0, 0
    closed.symbol, closed.ordinal, closed.as_of, closed.tie = code, s.next, as_of, s.tie
    closed.mask, closed.gap, closed.mark, closed.row = mask, gap, mark, row
    closed.first, closed.void_before = s.first, s.void_before
    s.next += 1
    s.closed += 1


@inlined_njit
def _room_for(rows, s, rules, capacity, used, batch):  # type: ignore[no-untyped-def]
    """Whether the symbol may close so many bars more before the caller has worked off what was closed."""
    if s.batch != batch:
        s.batch = batch
        s.closed = 0
    return s.closed + rows <= rules.slack and used + rows <= capacity


@lean_njit
def _close_time_bar(state, rules, closed_time, out, code, slot, mark, row, batch):  # type: ignore[no-untyped-def]
    """Close one symbol's open interval, filling the gap before it. False = no room in this batch."""
    s = state.symbol[code]
    o = state.open[code, slot]
    missing = 0
    if s.next > 0:
        span = trading_time(closed_time, o.interval) - trading_time(closed_time, s.interval)
        missing = max(0, span // rules.every_ns - 1)  # a restored bar may lie in what is closed time by now
    fill = missing if rules.on_gap == 0 and missing <= rules.longest_fill else 0
    n = out.used[0]
    if not _room_for(fill + 1, s, rules, len(out.bars), n, batch):
        return False
    end = s.interval + rules.every_ns
    for k in range(fill):
        end += rules.every_ns
        while is_closed(closed_time, end - 1):
            end = closed_time.end[np.searchsorted(closed_time.start, end - 1, side="right") - 1] + rules.every_ns
        _emit(out.bars[n + k], s, code, o, end, 0, False, mark, row)
    gap = missing > 0 and fill == 0
    if s.next == 0 or (gap and rules.on_gap != 1):
        s.first = s.next
    s.interval = o.interval
    _emit(out.bars[n + fill], s, code, o, o.interval + rules.every_ns, 1, gap, mark, row)
    out.used[0] = n + fill + 1
    o.ticks = 0
    return True


@lean_njit
def _close_until(state, rules, closed_time, out, p, watermark, row, batch):  # type: ignore[no-untyped-def]
    """Close every interval of the partition that ends at or before the watermark. False = no room; call again."""
    part = state.partition[p]
    target = (watermark // rules.every_ns) * rules.every_ns
    for _ in range(rules.slots):  # ticks lie in at most so many intervals
        if part.closed_to >= target:
            break
        slot = (part.closed_to // rules.every_ns) % rules.slots
        code = state.head[p, slot]
        some = code >= 0
        while code >= 0:
            following = state.open[code, slot].next
            if not _close_time_bar(state, rules, closed_time, out, code, slot, part.mark, row, batch):
                return False
            state.head[p, slot] = following
            code = following
        if some:
            state.tail[p, slot] = -1
            part.mark += 1
        part.closed_to += rules.every_ns
    part.closed_to = max(part.closed_to, target)
    return True


@lean_njit
def _join_interval(state, p, code, slot):  # type: ignore[no-untyped-def]
    """A bar has opened: the symbol joins the partition's list of the interval, in order of appearance."""
    state.open[code, slot].next = -1
    last = state.tail[p, slot]
    if last < 0:
        state.head[p, slot] = code
    else:
        state.open[last, slot].next = code
    state.tail[p, slot] = code


@inlined_njit
def _add(o, ts, price, size):  # type: ignore[no-untyped-def]
    """Fold a tick into an open bar; the close is the tick of the largest (event time, offset)."""
    if o.ticks == 0:
        o.open, o.high, o.low, o.close = price, price, price, price
        o.open_ts, o.close_ts = ts, ts
        o.volume = 0.0
    else:
        o.high = max(o.high, price)
        o.low = min(o.low, price)
        if ts >= o.close_ts:
            o.close = price
            o.close_ts = ts
        if ts < o.open_ts:
            o.open = price
            o.open_ts = ts
    o.volume += size
    o.ticks += 1


@inlined_njit
def _remember(rules, part, s, p, ts, price, sequence):  # type: ignore[no-untyped-def]
    """What later ticks of the symbol are judged by."""
    if rules.outlier_sigmas > 0.0 and s.price > 0.0 and price > 0.0:
        s.move = OUTLIER_MEMORY * s.move + (1.0 - OUTLIER_MEMORY) * abs(np.log(price) - np.log(s.price))
    s.newest = max(s.newest, ts) if s.ticks > 0 else ts
    s.price = price
    s.doubted = 0
    if s.partition != p:
        s.partition = p
        part.symbols += 1
    if s.ticks < OUTLIER_WARM_TICKS:
        s.ticks += 1
    s.sequence = max(s.sequence, sequence)


@inlined_njit
def _judge(rules, p, part, s, ts, price, sequence):  # type: ignore[no-untyped-def]
    """What is wrong with a tick in the light of what came before; R_HELD = too far ahead to believe alone."""
    if s.partition >= 0 and s.partition != p:
        return R_MOVED
    if 0 <= sequence <= s.sequence:
        return R_DUPLICATE
    if rules.kind == 0:
        if ts < part.closed_to or (s.next > 0 and ts < s.interval + rules.every_ns):  # the latter: a restored bar
            return R_LATE
    elif s.ticks > 0 and ts < s.newest - rules.lateness_ns:
        return R_LATE
    if part.newest != NEVER and ts - (part.newest - rules.lateness_ns) > rules.jump_ns:
        return R_HELD
    if _is_outlier(rules, s, price):
        return R_OUTLIER
    return R_ACCEPTED


@lean_njit
def _advance(state, rules, closed_time, out, p, ts, row, batch):  # type: ignore[no-untyped-def]
    """Event time has moved on to ts: close what it passes. False = no room."""
    part = state.partition[p]
    if part.closed_to == NEVER:
        part.closed_to = ((ts - rules.lateness_ns) // rules.every_ns) * rules.every_ns
    return _close_until(state, rules, closed_time, out, p, max(part.newest, ts) - rules.lateness_ns, row, batch)


@lean_njit
def fold(  # type: ignore[no-untyped-def]
    state, rules, closed_time, out, p, ticks, stamps, latest, first, batch, outcome, waiting
):
    """Fold ticks[first:] of partition p; returns the first tick that was not taken, for want of room or because it
    confirms the held ones, which the caller then folds by themselves. `latest`: no event time is believed beyond it.

    `outcome[i]` becomes the Reason of tick i. `waiting[k]` is the tick of this batch that is the k-th held; -1 = it is
    of an earlier one. What looks like one function is spread out here on purpose: handing groups of arrays to a callee
    costs more than folding the tick.
    """
    symbol, tss, prices, sizes, bids, asks, sequences, rows = ticks
    symbols, opens, counts, crossed, held = state.symbol, state.open, state.counts[p], state.crossed, state.held[p]
    closed, used = out.bars, out.used
    part = state.partition[p]
    for i in range(first, len(symbol)):
        code, ts, price, size, row = symbol[i], tss[i], prices[i], sizes[i], rows[i]
        if code == HEARTBEAT:
            if part.newest != NEVER and rules.kind == 0 and EARLIEST_NS <= ts <= LATEST_NS:
                if not _advance(state, rules, closed_time, out, p, ts, row, batch):
                    return i
                part.newest = max(part.newest, ts)
            continue
        s = symbols[code]
        verdict = _static_fault(rules, price, size, bids[i], asks[i], ts, stamps[row], latest)
        if verdict == R_ACCEPTED and s.adjust_to > s.adjust_from:
            price, size = _adjusted(rules, s, ts, price, size)
            verdict = _unfit(rules, price, size)
        if verdict == R_ACCEPTED:
            verdict = _judge(rules, p, part, s, ts, price, sequences[i])
            if part.holds and verdict != R_MOVED and verdict != R_DUPLICATE:  # those two say nothing of the time
                if verdict != R_HELD or ts < held[0].ts - rules.jump_ns:
                    _refuse_held(part, counts, outcome, waiting)
                elif part.holds == HELD_MOST or (s.partition == p and (code != held[0].symbol or part.symbols == 1)):
                    part.confirmed = 1
                    return i
            if verdict == R_ACCEPTED and rules.has_calendar and is_closed(closed_time, ts):
                verdict = R_CLOSED
        if verdict == R_ACCEPTED:
            slot = 0
            if rules.kind == 0:
                passes = part.closed_to == NEVER or ts - rules.lateness_ns >= part.closed_to + rules.every_ns
                if passes and not _advance(state, rules, closed_time, out, p, ts, row, batch):
                    return i
                slot = (ts // rules.every_ns) % rules.slots
            elif not _room_for(1, s, rules, len(closed), used[0], batch):
                return i
            part.newest = max(part.newest, ts)
            _remember(rules, part, s, p, ts, price, sequences[i])
            o = opens[code, slot]
            if rules.kind == 0 and o.ticks == 0:
                o.interval = (ts // rules.every_ns) * rules.every_ns
                _join_interval(state, p, code, slot)
            _add(o, ts, price, size)
            if (rules.kind == 1 and o.ticks >= rules.every_ticks) or (rules.kind == 2 and o.volume >= rules.every_size):
                _emit(closed[used[0]], s, code, o, s.newest, 1, False, part.mark, row)
                used[0] += 1
                o.ticks = 0
                part.marked += 1
                if part.marked >= rules.adapt_every:
                    part.mark += 1
                    part.marked = 0
        elif verdict == R_HELD:
            h = held[part.holds]
            h.symbol, h.ts, h.price, h.size, h.sequence = code, ts, prices[i], sizes[i], sequences[i]
            waiting[part.holds] = i
            part.holds += 1
        elif verdict == R_OUTLIER:
            s.doubted = 1
        outcome[i] = verdict
        counts[verdict] += 1
        if bids[i] > asks[i]:
            crossed[0] += 1
    return len(symbol)


@lean_njit
def _refuse_held(part, counts, outcome, waiting):  # type: ignore[no-untyped-def]
    """Somebody contradicts the held ticks: it was a false jump. The caller tells of those of earlier batches."""
    counts[R_HELD] -= part.holds
    counts[R_JUMP] += part.holds
    for k in range(part.holds):
        if waiting[k] >= 0:
            outcome[waiting[k]] = R_JUMP
        else:
            part.refused += 1
        waiting[k] = -1
    part.holds = 0
