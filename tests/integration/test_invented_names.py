"""A flood of names that nobody trades, against the whole daemon: new symbols still find a place and are answered."""

from pathlib import Path

import pytest

from livekit import Live, live_settings, running
from tickcast.errors import Reason

SECOND = 10**9
T0 = 1_700_000_000 * SECOND
LIMIT, INVENTED = 5_000, 25_000
REAL, HONEST = [f"REAL{n}" for n in range(3)], [f"HONEST{n}" for n in range(3)]
SMALL = {
    "window__lookback": 6, "forecast__horizon": 3, "store__unit_ms": 50, "symbols__limit": LIMIT,
    "topics__ticks": '["ticks"]',
}  # fmt: skip


def tick(symbol: str, second: float) -> bytes:
    price = 100 + (int(second) * 3 + len(symbol)) % 7 / 10
    return b'{"symbol":"%s","ts":%d,"price":%.1f,"size":1}' % (symbol.encode(), T0 + int(second * SECOND), price)


def ticks(names: list[str], first: int, end: int) -> list[bytes]:
    return [tick(name, second) for second in range(first, end) for name in names]


async def answered(live: Live, names: list[str], first: int, end: int) -> set[str]:
    await live.send(ticks(names, first, end))
    return {forecast["symbol"] for forecast in await live.forecasts()}


@pytest.mark.slow
async def test_new_symbols_find_a_place_after_a_flood_of_names_and_a_restart_knows_them(tmp_path: Path) -> None:
    settings = live_settings(tmp_path, **SMALL)
    async with running(settings) as live:
        await answered(live, REAL, 0, 20)
        await live.send([tick(f"X{n}", 20) for n in range(INVENTED)], chunk=4_000)
        full = live.daemon.health()
        assert full.symbols == LIMIT
        assert full.reasons["symbol_limit"] == INVENTED + len(REAL) - LIMIT
        assert await answered(live, REAL, 21, 100) == {*REAL}
        assert await answered(live, [*REAL, *HONEST], 101, 130) == {*REAL, *HONEST}
        health = live.daemon.health()
        assert health.symbols <= LIMIT == len(live.daemon.session.serving.symbols)
        assert health.consumed == health.accepted + health.rejected + health.late + health.held
        assert {*REAL, *HONEST} <= {*live.daemon.session.serving.symbols.names()}
        sql = "SELECT count(*) FROM dead_letters WHERE reason = 'symbol_limit'"
        await live.stored()
        assert (await live.daemon.session.store.query(sql)).rows == [(health.reasons["symbol_limit"],)]
        sql = "SELECT symbol, count(*), min(as_of_ns) FROM bars WHERE symbol NOT LIKE 'X%' GROUP BY 1 ORDER BY 1"
        rows = (await live.daemon.session.store.query(sql)).rows
        assert [(name, bars, (at - T0) // SECOND) for name, bars, at in rows] == [
            *((name, 28, 102) for name in HONEST), *((name, 20 + 79 + 1 + 28 + 1, 1) for name in REAL)
        ]  # fmt: skip
        sql = "SELECT max(n) FROM (SELECT count(*) n FROM bars WHERE symbol LIKE 'X%' GROUP BY symbol)"
        assert (await live.daemon.session.store.query(sql)).rows == [(1,)]
    async with running(settings) as live:  # from the store, which holds more names than there are places
        assert {*REAL, *HONEST} <= {*live.daemon.session.serving.symbols.names()}
        assert await answered(live, [*REAL, *HONEST, "LATER"], 131, 160) == {*REAL, *HONEST, "LATER"}
        assert live.daemon.health().reasons.get("symbol_rate", 0) == 0
        assert Reason.SYMBOL_LIMIT.name.lower() not in live.daemon.health().reasons
