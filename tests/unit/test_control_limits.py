"""How often one may ask, and be told off: replies and log lines are bounded whatever comes; and no time is negative."""

from typing import Any

from controlkit import Desk, echo, sealed, working
from tickcast.live.commands.inbox import Context

ECHO = dict.fromkeys(("status", "forecast", "pause", "train"), echo)


async def test_commands_of_a_key_are_limited_per_minute_and_of_another_are_not() -> None:
    async with working(Desk(ECHO, per_minute=3)) as desk:
        await desk.give(*(sealed(id=f"c{n}") for n in range(5)), sealed(id="other", role="read"))
        replies = await desk.replied(6)
    assert sorted(r.id for r in replies if r.error_code == "too_many") == ["c3", "c4"]
    assert next(r for r in replies if r.id == "other").ok
    assert set(desk.ledger.rows) == {"c0", "c1", "c2", "other"}


async def test_replies_to_refusals_and_repeats_are_limited_too() -> None:
    async with working(Desk(ECHO, per_minute=3)) as desk:
        await desk.give(sealed(id="good"), *[sealed("sell")] * 10)
        await desk.replied(4)
        assert desk.inbox.counts["unknown_command"] == 10
        assert sum(reply.error_code == "unknown_command" for reply in desk.replies) == 3
        await desk.give(*[sealed(id="good")] * 10)
        assert desk.inbox.counts["repeated"] == 3
    assert len(desk.replies) == 1 + 3 + 3


async def test_a_flood_of_refusals_does_not_flood_the_log() -> None:
    desk = Desk(ECHO)
    await desk.give(*[b"{"] * 500)
    assert desk.inbox.counts == {"malformed": 500}
    assert len(desk.told) == 60


async def test_a_clock_that_is_set_back_meanwhile_makes_no_time_negative() -> None:
    async def set_back(given: Any, context: Context) -> dict[str, Any]:
        desk.clock.now -= 3600 * 10**9
        return {}

    async with working(Desk({"status": set_back})) as desk:
        await desk.give(sealed("status"))
        (reply,) = await desk.replied(1)
    assert reply.elapsed_ms >= 0
    row = desk.ledger.rows["one"]
    assert row.done_ns >= row.received_ns
