"""Takes commands in, each once, and answers each. It carries none out itself, reads no topic and writes no log.

A command is let in (or refused), kept in the ledger, carried out in its turn, marked done with its reply, and answered.
One that only reads is carried out and answered while the ledger takes it: most of its time would be the disk's, and to
answer it twice does no harm. That its id is new is known without the disk for as long as a copy of it is not stale.
One that accepts begins a job: its turn is over then, and its final reply comes when it ends. Who cannot prove that he
is known and means us gets no reply: an answer to strangers tells them which keys exist, and doubles what they send.
"""

import asyncio
import hashlib
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol, TypeVar

import msgspec

from tickcast.clock import Clock
from tickcast.errors import CommandFault, CommandRefused, Fatal, TickcastError
from tickcast.live.commands import arguments, envelope
from tickcast.live.commands.envelope import FLEET, SignedCommand
from tickcast.live.commands.keys import ROLES, Keys, Role
from tickcast.records import Command, CommandRow, Reply
from tickcast.settings.service import ControlSettings

MINUTE_NS, NS_PER_MS = 60 * 10**9, 10**6
REPLY_BYTES = 900_000  # brokers take messages of 1 MB by default
ERROR_LENGTH = 2000  # an error may quote what it was given
NOTED_PER_MINUTE = 60  # refusals that are told of; all are counted
LARGE_BYTES = 1 << 14  # an envelope is read on a thread beyond this

T = TypeVar("T")
At = tuple[str, int, int]  # topic, partition, offset
Tell = Callable[[Reply], Awaitable[None]]


class CommandLedger(Protocol):
    async def add_command(self, row: CommandRow) -> CommandRow | None:
        """Keep the row for good; where its id was used before, keep nothing and return the row of then."""

    async def finish_command(self, id: str, reply: Reply) -> None:
        """The row is done, with this reply, `reply.elapsed_ms` after it was received."""

    async def unfinished(self) -> Sequence[CommandRow]:
        """Rows that are not done, in the order in which they were received."""

    async def ids_since(self, received_ns: int) -> Sequence[str]:
        """Of the rows that were received then or later."""


class Note(Protocol):
    def __call__(self, event: str, /, **fields: object) -> None: ...


@dataclass(frozen=True, slots=True)
class Context:
    """What a handler may know of its command beside the arguments."""

    id: str
    command: str
    key: str
    role: Role
    received_ns: int
    accepted: Callable[[dict[str, Any]], Awaitable[None]]
    """Says that a job has begun, with its id: the next command's turn comes, and no timeout ends this one."""


Handler = Callable[
    [Any, Context], Awaitable[dict[str, Any]]
]  # what it returns is the result; what it raises, the error


@dataclass(frozen=True, slots=True)
class Gate:
    """Who is let in, and how we are addressed."""

    keys: Keys
    audience: str  # envelope.own_audience
    settings: ControlSettings


class Rate:
    """At most so many of each name in any minute."""

    def __init__(self, per_minute: int, clock: Clock) -> None:
        self._per_minute, self._clock = per_minute, clock
        self._taken: defaultdict[str, deque[int]] = defaultdict(deque)

    def takes(self, name: str) -> bool:
        taken, now = self._taken[name], self._clock.monotonic_ns()
        while taken and taken[0] <= now - MINUTE_NS:
            taken.popleft()
        if len(taken) >= self._per_minute:
            return False
        taken.append(now)
        return True


@dataclass(slots=True, eq=False)
class _Work:
    """A command on its way through the ledger to its reply."""

    order: SignedCommand
    arguments: arguments.Arguments
    received_ns: int
    began_ns: int  # by the clock that nobody sets
    tell: list[Tell]
    keeping: asyncio.Future[CommandRow | None] | None = None  # while the ledger takes it, and it is carried out
    turn_is_over: asyncio.Event = field(default_factory=asyncio.Event)


class Inbox:
    """`start`, then `run` beside what receives; what comes before the start waits for it."""

    def __init__(
        self, ledger: CommandLedger, handlers: Mapping[str, Handler], reply: Tell, *, clock: Clock, gate: Gate,
        note: Note, left: Callable[[str], str] = lambda id: "",
    ) -> None:  # fmt: skip
        """`left` says what goes on of a command of a run before this one, by its id."""
        self.counts: Counter[str] = Counter()  # by fault, and `done`, `failed` and `repeated`: Health.commands
        self._ledger, self._handlers, self._reply = ledger, handlers, reply
        self._clock, self._gate, self._note, self._left = clock, gate, note, left
        self._queue: asyncio.Queue[_Work] = asyncio.Queue(maxsize=gate.settings.per_minute)
        self._underway: dict[str, _Work] = {}
        self._seen: OrderedDict[str, int] = OrderedDict()  # id -> when
        self._replayable_ns = 2 * gate.settings.max_age_s * 10**9  # its time may lie ahead of ours
        per_minute = gate.settings.per_minute
        self._fresh, self._repeats, self._refusals = (Rate(per_minute, clock) for _ in range(3))
        self._noted = Rate(NOTED_PER_MINUTE, clock)
        self._started = asyncio.Event()

    async def start(self) -> None:
        """Answer what a run before this one left without an end, and know its ids."""
        for id in await self._ledger.ids_since(self._clock.now_ns() - self._replayable_ns):
            self._remember(id)
        for row in await self._ledger.unfinished():
            passed_ms = (self._clock.now_ns() - row.received_ns) / NS_PER_MS
            fault = CommandRefused(
                CommandFault.INTERRUPTED, "the daemon ended before the command did",
                remedy=self._left(row.id) or "see what it did; ask anew",
            )  # fmt: skip
            reply = self._error(row.id, row.command, fault, passed_ms)
            await self._ledger.finish_command(row.id, reply)
            await self._reply(reply)
        self._started.set()

    async def run(self) -> None:
        """Carry commands out until cancelled, one after the other but for what has accepted."""
        async with asyncio.TaskGroup() as group:
            while True:
                work = await self._queue.get()
                group.create_task(self._carry_out(work))
                await work.turn_is_over.wait()

    def renew(self, keys: Keys) -> None:
        """From now on these are the keys; what was let in by another is carried out all the same."""
        self._gate = replace(self._gate, keys=keys)

    async def receive(self, raw: bytes, at: At) -> None:
        """Returns when the message is needed no more: it is refused, or kept in the ledger."""
        audiences, settings = (FLEET, self._gate.audience), self._gate.settings
        try:
            verify = partial(envelope.verify, raw, self._gate.keys, audiences=audiences, settings=settings)
            genuine = await _beside(raw, verify)
        except CommandRefused as refused:
            self._count(refused, at=at)
            return
        try:
            now_ms = self._clock.now_ns() // NS_PER_MS
            order = await _beside(raw, partial(envelope.read, genuine, now_ms=now_ms, settings=settings))
        except CommandRefused as refused:
            await self._decline(genuine.envelope.id, "", genuine.key.id, refused, self._reply)
            return
        await self._take(order, self._reply)

    async def call(self, command: Command, *, by: str, role: Role) -> Reply:
        """The final reply to a command of this process, without an envelope: `by` stands in the ledger as its key."""
        text = msgspec.json.encode(command, order="sorted")
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        async def tell(reply: Reply) -> None:
            if reply.final and not answer.done():
                answer.set_result(reply)

        await self._take(
            SignedCommand(
                id=command.id, audience=self._gate.audience, key=by, role=role, command=command.command,
                args=command.args, timestamp=self._clock.now_ns() // NS_PER_MS, digest=hashlib.sha256(text).hexdigest(),
            ),
            tell,
        )  # fmt: skip
        return await answer

    async def _take(self, order: SignedCommand, tell: Tell) -> None:
        """Into the ledger and the queue, or declined, or answered as it was before."""
        await self._started.wait()  # a row of ours must not be taken for one that was left behind
        try:
            given = self._admit(order)
            known = order.id in self._seen
            if not (self._repeats if known else self._fresh).takes(order.key):
                raise CommandRefused(
                    CommandFault.TOO_MANY, f"more than {self._gate.settings.per_minute} commands in a minute",
                    remedy="wait a minute, or raise control.per_minute",
                )  # fmt: skip
            work = _Work(order, given, self._clock.now_ns(), self._clock.monotonic_ns(), [tell])
            if _only_reads(order) and not known:
                work.keeping = asyncio.ensure_future(self._ledger.add_command(_row(work)))
                await self._enqueue(work)
                await asyncio.shield(work.keeping)
            elif (earlier := await self._keep(work)) is not None:
                await self._repeat(order, earlier, tell)
            else:
                await self._enqueue(work)
        except CommandRefused as refused:
            await self._decline(order.id, order.command, order.key, refused, tell)

    async def _keep(self, work: _Work) -> CommandRow | None:
        """As `Ledger.add_command`, after the one of the same id whose row is on its way."""
        first = self._underway.get(work.order.id)
        if first is not None and first.keeping is not None:
            await asyncio.shield(first.keeping)
        return await self._ledger.add_command(_row(work))

    async def _enqueue(self, work: _Work) -> None:
        self._remember(work.order.id)
        self._underway[work.order.id] = work
        await self._queue.put(work)

    def _admit(self, order: SignedCommand) -> arguments.Arguments:
        needed = arguments.role_of(order.command)
        if ROLES.index(order.role) < ROLES.index(needed):
            raise CommandRefused(
                CommandFault.ROLE_TOO_LOW, f"{order.command} needs the role {needed}; '{order.key}' has {order.role}"
            )
        given = arguments.parse(order.command, order.args)
        if order.command not in self._handlers:
            raise CommandRefused(CommandFault.UNKNOWN_COMMAND, f"this daemon does not offer {order.command}")
        return given

    async def _repeat(self, order: SignedCommand, earlier: CommandRow, tell: Tell) -> None:
        """A message that came twice is answered as the first time; an id that meant something else is refused."""
        self._remember(order.id)
        if (earlier.digest, earlier.key) != (order.digest, order.key):
            raise CommandRefused(
                CommandFault.REPLAYED, f"the id {order.id} was used before", remedy="give each command a fresh one"
            )
        self.counts["repeated"] += 1
        if earlier.state == "done":
            await tell(msgspec.json.decode(earlier.reply_json, type=Reply))
        elif (work := self._underway.get(order.id)) is None:
            raise CommandRefused(CommandFault.INTERRUPTED, "the daemon ended before the command did")
        elif tell not in work.tell:
            work.tell.append(tell)

    async def _carry_out(self, work: _Work) -> None:
        told = 0
        try:
            reply = await self._outcome(work)
            if _only_reads(work.order):
                work.turn_is_over.set()
                told = await self._tell(work, reply)
            if work.keeping is None or await work.keeping is None:  # else the id was used long ago: its row stays
                await self._ledger.finish_command(work.order.id, reply)
        finally:
            del self._underway[work.order.id]
            work.turn_is_over.set()
        self.counts["done" if reply.ok else reply.error_code] += 1
        await self._tell(work, reply, after=told)

    async def _tell(self, work: _Work, reply: Reply, *, after: int = 0) -> int:
        """Whoever asked, but for the first `after` of them; returns how many know it now."""
        waiting = work.tell[after:]
        for tell in waiting:
            await tell(reply)
        return after + len(waiting)

    async def _outcome(self, work: _Work) -> Reply:
        """The handler's result or error as the final reply. What is fatal is raised: the daemon dies of it."""
        order = work.order
        try:
            async with asyncio.timeout(self._gate.settings.timeout_s) as limit:
                accepted = partial(self._accept, work, limit)
                context = Context(order.id, order.command, order.key, order.role, work.received_ns, accepted)
                result = await self._handlers[order.command](work.arguments, context)
            size = len(msgspec.json.encode(result))
        except Fatal:
            raise
        except TickcastError as error:
            return self._failed(work, error)
        except Exception as error:
            if isinstance(error, TimeoutError) and limit.expired():
                fault = CommandRefused(
                    CommandFault.TIMED_OUT, f"it took longer than {self._gate.settings.timeout_s} s",
                    remedy="ask for less, or raise control.timeout_s",
                )  # fmt: skip
                return self._failed(work, fault)
            self._note("command_failed", command=order.command, id=order.id, key=order.key, reason=repr(error))
            return self._failed(work, CommandRefused(CommandFault.FAILED, repr(error)))
        if size > REPLY_BYTES:
            fault = CommandRefused(
                CommandFault.ANSWER_TOO_LARGE, f"the answer has {size} bytes; {REPLY_BYTES} fit a message",
                remedy="it was done; ask for less of it",
            )  # fmt: skip
            return self._failed(work, fault)
        return self._answer(work, result)

    async def _accept(self, work: _Work, limit: asyncio.Timeout, result: dict[str, Any]) -> None:
        limit.reschedule(None)
        reply = self._answer(work, result, final=False)
        await self._tell(work, reply)
        work.turn_is_over.set()

    async def _decline(self, id: str, command: str, key: str, refused: CommandRefused, tell: Tell) -> None:
        self._count(refused, id=id, key=key)
        if tell is not self._reply or self._refusals.takes(key):
            await tell(self._error(id, command, refused, 0.0))

    def _count(self, refused: CommandRefused, **fields: object) -> None:
        self.counts[refused.code] += 1
        if refused.code != CommandFault.WRONG_AUDIENCE and self._noted.takes(""):
            self._note("command_refused", code=refused.code, reason=str(refused), **fields)

    def _remember(self, id: str) -> None:
        now = self._clock.now_ns()
        self._seen[id] = now
        while next(iter(self._seen.values())) < now - self._replayable_ns:
            self._seen.popitem(last=False)

    def _answer(self, work: _Work, result: dict[str, Any], *, final: bool = True) -> Reply:
        return Reply(
            id=work.order.id, command=work.order.command, ok=True, final=final, result=result,
            served_by=self._gate.audience, elapsed_ms=self._elapsed_ms(work),
        )  # fmt: skip

    def _failed(self, work: _Work, error: TickcastError) -> Reply:
        return self._error(work.order.id, work.order.command, error, self._elapsed_ms(work))

    def _error(self, id: str, command: str, error: TickcastError, elapsed_ms: float) -> Reply:
        return Reply(
            id=id, command=command, ok=False, error_code=error.code, error=str(error)[:ERROR_LENGTH],
            served_by=self._gate.audience, elapsed_ms=elapsed_ms,
        )  # fmt: skip

    def _elapsed_ms(self, work: _Work) -> float:
        return (self._clock.monotonic_ns() - work.began_ns) / NS_PER_MS


async def _beside(raw: bytes, work: Callable[[], T]) -> T:
    """What is small is done at once; serving must not wait for what is large."""
    return await asyncio.to_thread(work) if len(raw) > LARGE_BYTES else work()


def _only_reads(order: SignedCommand) -> bool:
    return arguments.role_of(order.command) == "read"


def _row(work: _Work) -> CommandRow:
    order = work.order
    return CommandRow(
        id=order.id, audience=order.audience, key=order.key, role=order.role, command=order.command,
        args_json=msgspec.json.encode(order.args).decode(), digest=order.digest, received_ns=work.received_ns,
    )  # fmt: skip
