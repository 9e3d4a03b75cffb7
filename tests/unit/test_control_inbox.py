"""Each command once, in its turn, with one final reply; refusals counted, and told to friends alone."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from controlkit import NOW_MS, SETTINGS, Desk, MemoryLedger, changed, echo, sealed, working
from tickcast.errors import BadRequest, CommandFault, EngineFailed, StoreStalled
from tickcast.live.commands import envelope
from tickcast.live.commands.inbox import LARGE_BYTES, Context
from tickcast.records import Command, CommandRow, Reply

ECHO = dict.fromkeys(("status", "forecast", "pause", "train"), echo)


class Gate:
    """A handler that waits until it is let go, and keeps what happened in order."""

    def __init__(self) -> None:
        self.happened: list[str] = []
        self.open = asyncio.Event()

    async def __call__(self, given: Any, context: Context) -> dict[str, Any]:
        self.happened.append(f"begin {context.id}")
        await self.open.wait()
        self.happened.append(f"end {context.id}")
        return {}


class JobGate(Gate):
    async def __call__(self, given: Any, context: Context) -> dict[str, Any]:
        await context.accepted({"job": context.id})
        return await super().__call__(given, context)


async def test_a_command_is_kept_carried_out_marked_done_and_answered() -> None:
    async with working(Desk(ECHO)) as desk:
        await desk.give(sealed("forecast", {"symbols": ["A"]}, role="read"))
        (reply,) = await desk.replied(1)
    assert (reply.id, reply.command, reply.ok, reply.final, reply.served_by) == (
        "one", "forecast", True, True, "tickcast/0",
    )  # fmt: skip
    taken = {"symbols": ["A"], "model": "", "horizon": 0, "confidence_level": None, "low": None, "high": None}
    assert reply.result == {"arguments": taken, "key": "read", "role": "read"}
    row = desk.ledger.rows["one"]
    assert (row.state, row.key, row.role, row.args_json) == ("done", "read", "read", '{"symbols":["A"]}')
    assert msgspec.json.decode(row.reply_json, type=Reply) == reply
    assert desk.inbox.counts == {"done": 1}


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"x" * ((1 << 20) + 1), "oversized"),
        (b"{", "malformed"),
        (changed(sealed(), key="nobody"), "unknown_key"),
        (changed(sealed(), id="two"), "bad_signature"),
        (sealed(audience="tickcast/1"), "wrong_audience"),
    ],
)
async def test_a_stranger_and_one_who_means_another_are_counted_and_not_answered(raw: bytes, code: str) -> None:
    async with working(Desk(ECHO)) as desk:
        await desk.give(raw, sealed(id="after"))
        await desk.replied(1)
    assert [reply.id for reply in desk.replies] == ["after"]
    assert desk.inbox.counts == {code: 1, "done": 1}
    assert [fields["code"] for _, fields in desk.told] == ([] if code == "wrong_audience" else [code])
    assert set(desk.ledger.rows) == {"after"}


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (sealed(now_ms=NOW_MS - 400_000), "stale"),
        (sealed("pause", role="promote"), "role_too_low"),
        (sealed("sell"), "unknown_command"),
        (sealed("drain"), "unknown_command"),
        (sealed("forecast"), "bad_argument"),
        (sealed("status", {"section": "x" * 10_000}), "bad_argument"),
    ],
)
async def test_a_friend_is_told_once_and_nothing_is_kept(raw: bytes, code: str) -> None:
    async with working(Desk(ECHO)) as desk:
        await desk.give(raw)
        (reply,) = await desk.replied(1)
    assert (reply.id, reply.ok, reply.final, reply.error_code) == ("one", False, True, code)
    assert 0 < len(reply.error) <= 2000
    assert desk.inbox.counts == {code: 1}
    assert not desk.ledger.rows


async def test_a_large_envelope_is_read_off_the_event_loop_and_a_small_one_on_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop, readers = threading.get_ident(), list[bool]()

    def noted(call: Any) -> Any:
        def read(*args: Any, **given: Any) -> Any:
            readers.append(threading.get_ident() == loop)
            return call(*args, **given)

        return read

    for name in ("verify", "read"):
        monkeypatch.setattr(envelope, name, noted(getattr(envelope, name)))
    async with working(Desk(ECHO)) as desk:
        await desk.give(sealed(), sealed("forecast", {"symbols": ["A" * LARGE_BYTES]}, id="large"))
        await desk.replied(2)
    assert readers == [True, True, False, False]
    assert {reply.id for reply in desk.replies} == {"one", "large"}


async def test_a_role_too_low_learns_nothing_about_arguments() -> None:
    async with working(Desk(ECHO)) as desk:
        await desk.give(sealed("pause", {"wrong": 1}, role="read"))
        (reply,) = await desk.replied(1)
    assert reply.error_code == "role_too_low"


async def test_a_message_that_comes_again_is_answered_as_it_was_and_carried_out_once() -> None:
    calls = []

    async def once(given: Any, context: Context) -> dict[str, Any]:
        calls.append(context.id)
        return {"call": len(calls)}

    raw = sealed()
    async with working(Desk({"status": once})) as desk:
        await desk.give(raw)
        await desk.replied(1)
        await desk.give(raw, raw)
        first, *again = await desk.replied(3)
    assert again == [first, first]
    assert calls == ["one"]
    assert desk.inbox.counts == {"done": 1, "repeated": 2}


async def test_a_message_that_comes_again_while_it_is_carried_out_gets_no_second_reply() -> None:
    gate = Gate()
    async with working(Desk({"status": gate})) as desk:
        await desk.give(sealed(), sealed())
        gate.open.set()
        await desk.give(sealed("status", id="after"))
        await desk.replied(2)
    assert [reply.id for reply in desk.replies] == ["one", "after"]


class SlowLedger(MemoryLedger):
    """Adds and finishes only once it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.may_add, self.may_finish = asyncio.Event(), asyncio.Event()

    async def add_command(self, row: CommandRow) -> CommandRow | None:
        await self.may_add.wait()
        return await super().add_command(row)

    async def finish_command(self, id: str, reply: Reply) -> None:
        await self.may_finish.wait()
        await super().finish_command(id, reply)


async def test_what_only_reads_is_answered_while_it_is_kept_and_marked_done() -> None:
    ledger = SlowLedger()
    async with working(Desk(ECHO, ledger=ledger)) as desk:
        raw = sealed(role="read")
        coming = asyncio.create_task(desk.give(raw))
        (reply,) = await desk.replied(1)
        assert reply.ok
        assert not coming.done(), "its message may be forgotten only once it is kept"
        again = asyncio.create_task(desk.give(raw))
        await asyncio.sleep(0.01)
        assert not ledger.rows
        ledger.may_add.set()
        await asyncio.gather(coming, again)
        assert ledger.rows["one"].state == "received"
        command = Command(id="two", command="status")
        assert (await desk.inbox.call(command, by="here", role="read")).ok, "its turn came meanwhile"
        ledger.may_finish.set()
        await asyncio.sleep(0.01)
        await desk.give(raw)
        await desk.replied(2)
    assert [reply.id for reply in desk.replies] == ["one", "one"]
    assert ledger.rows["one"].state == ledger.rows["two"].state == "done"


async def test_what_changes_something_waits_for_the_ledger_before_and_after() -> None:
    ledger, gate = SlowLedger(), Gate()
    gate.open.set()
    async with working(Desk({"pause": gate}, ledger=ledger)) as desk:
        coming = asyncio.create_task(desk.give(sealed("pause")))
        await asyncio.sleep(0.01)
        assert not gate.happened
        ledger.may_add.set()
        await coming
        await asyncio.sleep(0.01)
        assert gate.happened == ["begin one", "end one"]
        assert not desk.replies
        ledger.may_finish.set()
        await desk.replied(1)


async def answered(ledger: MemoryLedger, result: dict[str, Any], *, later_s: int = 0, **envelope: Any) -> Reply:
    """By a run of its own, whose handler gives this result."""

    async def give(given: Any, context: Context) -> dict[str, Any]:
        return result

    desk = Desk({"status": give}, ledger=ledger)
    desk.clock.advance_to((NOW_MS + later_s * 1000) * 10**6)
    async with working(desk):
        await desk.give(sealed(now_ms=NOW_MS + later_s * 1000, **envelope))
        (reply,) = await desk.replied(1)
        await asyncio.sleep(0.01)
    assert desk.replies == [reply]
    return reply


async def test_what_was_read_in_a_run_before_is_answered_as_it_was() -> None:
    ledger = MemoryLedger()
    assert (await answered(ledger, {"run": 1})) == (await answered(ledger, {"run": 2}))


async def test_an_id_of_long_ago_is_answered_and_its_row_stays() -> None:
    ledger, long_ago_s = MemoryLedger(), 2 * SETTINGS.max_age_s + 1
    first = await answered(ledger, {"run": 1})
    assert (await answered(ledger, {"run": 2}, later_s=long_ago_s)).result == {"run": 2}
    assert msgspec.json.decode(ledger.rows["one"].reply_json, type=Reply) == first


@pytest.mark.parametrize("again", [sealed("pause"), sealed(now_ms=NOW_MS + 1), sealed(role="shared")])
async def test_an_id_that_was_used_for_something_else_is_replayed(again: bytes) -> None:
    ledger = MemoryLedger()
    for desk in (Desk(ECHO, ledger=ledger), Desk(ECHO, ledger=ledger)):  # the second has forgotten what the first knew
        async with working(desk):
            await desk.give(sealed(), again)
            answers = await desk.replied(2)
        assert sorted((reply.ok, reply.error_code) for reply in answers) == [(False, "replayed"), (True, "")]
    assert len(ledger.rows) == 1


async def test_commands_are_carried_out_one_after_the_other_in_their_order() -> None:
    gate = Gate()
    async with working(Desk({"status": gate})) as desk:
        await desk.give(*(sealed(id=f"c{n}") for n in range(3)))
        await asyncio.sleep(0.01)
        assert gate.happened == ["begin c0"]
        gate.open.set()
        await desk.replied(3)
    assert gate.happened == [f"{what} c{n}" for n in range(3) for what in ("begin", "end")]


async def test_a_job_is_accepted_at_once_and_others_have_their_turn_until_its_last_reply() -> None:
    gate = JobGate()
    async with working(Desk({"train": gate, "status": echo})) as desk:
        await desk.give(sealed("train", id="job"), sealed(id="next"))
        accepted, after = (await desk.replied(2))[:2]
        assert (accepted.id, accepted.ok, accepted.final, accepted.result) == ("job", True, False, {"job": "job"})
        assert (after.id, after.final) == ("next", True)
        assert desk.ledger.rows["job"].state == "received"
        gate.open.set()
        *_, last = await desk.replied(3)
    assert (last.id, last.ok, last.final) == ("job", True, True)
    assert desk.ledger.rows["job"].state == "done"


async def test_what_takes_too_long_is_ended_and_said_so_but_not_a_job() -> None:
    gate, job = Gate(), JobGate()
    async with working(Desk({"status": gate, "train": job}, timeout_s=0.02)) as desk:
        await desk.give(sealed("train", id="job"), sealed(id="slow"))
        replies = await desk.replied(2)
        assert [(r.id, r.error_code) for r in replies] == [("job", ""), ("slow", "timed_out")]
        job.open.set()
        *_, last = await desk.replied(3)
    assert (last.id, last.ok) == ("job", True)
    assert gate.happened == ["begin slow"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BadRequest("no such thing"), "bad_request"),
        (StoreStalled("disk full"), "store_stalled"),
        (ValueError("ours"), "failed"),
        (TimeoutError("a handler's own"), "failed"),
    ],
)
async def test_an_error_of_a_handler_is_the_reply_and_the_next_command_is_carried_out(
    error: Exception, code: str
) -> None:
    async def fail(given: Any, context: Context) -> dict[str, Any]:
        raise error

    async with working(Desk({"status": fail, "pause": echo})) as desk:
        await desk.give(sealed(), sealed("pause", id="after"))
        first, after = await desk.replied(2)
    assert (first.ok, first.error_code) == (False, code)
    assert str(error) in first.error
    assert after.ok
    assert [event for event, _ in desk.told] == (["command_failed"] if code == "failed" else [])


async def test_a_fatal_error_ends_the_run_and_leaves_the_command_unfinished() -> None:
    async def die(given: Any, context: Context) -> dict[str, Any]:
        raise EngineFailed("gone")

    desk = Desk({"status": die})
    await desk.inbox.start()
    await desk.give(sealed())
    with pytest.raises(ExceptionGroup) as ended:
        await desk.inbox.run()
    assert ended.group_contains(EngineFailed)
    assert not desk.replies
    assert desk.ledger.rows["one"].state == "received"


@pytest.mark.parametrize("result", [{"a": {1, 2}, "b": object()}, {"a": "x" * 1_000_000}])
async def test_a_result_that_cannot_be_sent_is_an_error_reply(result: dict[str, Any]) -> None:
    async def give(given: Any, context: Context) -> dict[str, Any]:
        return result

    async with working(Desk({"status": give})) as desk:
        await desk.give(sealed())
        (reply,) = await desk.replied(1)
    assert reply.error_code == ("failed" if "b" in result else "answer_too_large")


async def test_what_a_killed_run_left_is_answered_at_the_next_start_and_never_again() -> None:
    ledger = MemoryLedger()
    first = Desk({"status": Gate()}, ledger=ledger)
    async with working(first):
        await first.give(sealed(id="begun"), sealed(id="waiting"))
        await asyncio.sleep(0.01)
    assert not first.replies
    for expected in (["begun", "waiting"], []):
        async with working(Desk(ECHO, ledger=ledger)) as desk:
            assert [(r.id, r.error_code) for r in desk.replies] == [(id, "interrupted") for id in expected]
    async with working(Desk(ECHO, ledger=ledger)) as desk:
        await desk.give(sealed(id="begun"))  # the message comes again, as its position was not committed
        (reply,) = await desk.replied(1)
    assert (reply.id, reply.error_code) == ("begun", "interrupted")


async def test_what_comes_while_the_start_is_under_way_is_not_taken_for_left_behind() -> None:
    ledger = MemoryLedger()
    first = Desk({"status": Gate()}, ledger=ledger)
    async with working(first):
        await first.give(sealed(id="left"))
    desk = Desk(ECHO, ledger=ledger)
    coming = asyncio.create_task(desk.give(sealed(id="new")))
    await asyncio.sleep(0.01)
    async with working(desk):
        await coming
        replies = await desk.replied(2)
    assert [(reply.id, reply.error_code) for reply in replies] == [("left", "interrupted"), ("new", "")]


async def test_the_process_itself_gives_commands_without_an_envelope_by_the_same_rules() -> None:
    async with working(Desk(ECHO)) as desk:
        command = Command(id="own", command="forecast", args={"symbols": ["A"]})
        reply = await desk.inbox.call(command, by="here", role="read")
        assert reply.ok
        assert await desk.inbox.call(command, by="here", role="read") == reply
        other = Command(id="own", command="status")
        assert (await desk.inbox.call(other, by="here", role="read")).error_code == "replayed"
        assert (await desk.inbox.call(Command(id="x", command="pause"), by="here", role="read")).error_code == (
            "role_too_low"
        )
    assert not desk.replies
    assert desk.ledger.rows["own"].key == "here"


async def test_two_who_ask_the_same_at_once_get_the_one_reply() -> None:
    gate = Gate()
    async with working(Desk({"status": gate})) as desk:
        command = Command(id="own", command="status")
        both = [asyncio.create_task(desk.inbox.call(command, by="here", role="read")) for _ in range(2)]
        await asyncio.sleep(0.01)
        gate.open.set()
        first, second = await asyncio.gather(*both)
    assert first == second
    assert gate.happened == ["begin own", "end own"]


def test_every_fault_is_one_that_some_test_here_or_beside_asks_for() -> None:
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_control_*.py"))
    assert not [fault for fault in CommandFault if f'"{fault.value}"' not in text]
