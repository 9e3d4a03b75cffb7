"""What tests of commands share: keys of each role, sealed envelopes, a ledger in memory, an inbox that answers."""

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from tickcast.clock import SetClock
from tickcast.live.commands.envelope import own_audience, read, seal, verify
from tickcast.live.commands.inbox import Context, Gate, Handler, Inbox
from tickcast.live.commands.keys import ROLES, Key, Signer
from tickcast.records import CommandRow, Reply
from tickcast.settings.service import ControlSettings

NOW_MS = 1_700_000_000_000
HERE = own_audience("tickcast", 0)
SIGNERS = {role: Signer("ed25519", bytes([number + 1]) * 32) for number, role in enumerate(ROLES)}
SECRET = Signer("hmac-sha256", b"s" * 40)
KEYS = {role: Key(role, "ed25519", role, signer.public()) for role, signer in SIGNERS.items()} | {
    "shared": Key("shared", "hmac-sha256", "admin", SECRET.secret)
}
SETTINGS = ControlSettings()
AT = ("tickcast.control", 0, 0)


def sealed(command: str = "status", args: dict[str, Any] | None = None, *, role: str = "admin", **given: Any) -> bytes:
    """An envelope of now to this daemon, by the key that is named as its role."""
    signer = SECRET if role == "shared" else SIGNERS[role]  # type: ignore[index]
    fields = {"id": "one", "audience": HERE, "key": role, "private": signer, "now_ms": NOW_MS} | given
    return seal(command, args or {}, **fields)  # type: ignore[arg-type]


def opened(raw: bytes, *, settings: ControlSettings = SETTINGS, now_ms: int = NOW_MS) -> Any:
    genuine = verify(raw, KEYS, audiences=("fleet", HERE), settings=settings)
    return read(genuine, now_ms=now_ms, settings=settings)


def changed(raw: bytes, **fields: Any) -> bytes:
    """The envelope with other fields and the signature that it had; None takes a field out."""
    envelope = msgspec.json.decode(raw) | fields
    return msgspec.json.encode({name: value for name, value in envelope.items() if value is not None})


def signed_anew(raw: bytes, *, role: str = "admin", **fields: Any) -> bytes:
    """With other fields, as somebody who holds the key may write them."""
    envelope = msgspec.json.decode(raw) | {"key": role} | fields
    text = f"{envelope['id']}.{envelope['timestamp']}.{envelope['audience']}.{envelope['body']}".encode()
    signer = SECRET if role == "shared" else SIGNERS[role]  # type: ignore[index]
    return msgspec.json.encode(envelope | {"signature": base64.b64encode(signer.sign(text)).decode()})


class MemoryLedger:
    """The ledger's contract, in a dictionary."""

    def __init__(self) -> None:
        self.rows: dict[str, CommandRow] = {}

    async def add_command(self, row: CommandRow) -> CommandRow | None:
        await asyncio.sleep(0)
        return None if self.rows.setdefault(row.id, row) is row else self.rows[row.id]

    async def finish_command(self, id: str, reply: Reply) -> None:
        await asyncio.sleep(0)
        row = self.rows[id]
        assert row.state == "received"
        done_ns = row.received_ns + round(reply.elapsed_ms * 1e6)
        text = msgspec.json.encode(reply).decode()
        self.rows[id] = msgspec.structs.replace(row, state="done", reply_json=text, done_ns=done_ns)

    async def ids_since(self, received_ns: int) -> list[str]:
        return [row.id for row in self.rows.values() if row.received_ns >= received_ns]

    async def unfinished(self) -> list[CommandRow]:
        return [row for row in self.rows.values() if row.state == "received"]


class Desk:
    """An inbox with what it was given, what it answered and what it told of."""

    def __init__(self, handlers: Mapping[str, Handler], *, ledger: MemoryLedger | None = None, **control: Any) -> None:
        self.clock = SetClock(NOW_MS * 10**6)
        self.ledger = ledger or MemoryLedger()
        self.replies: list[Reply] = []
        self.told: list[tuple[str, dict[str, object]]] = []
        gate = Gate(KEYS, HERE, ControlSettings().model_copy(update=control))
        self.inbox = Inbox(self.ledger, handlers, self._reply, clock=self.clock, gate=gate, note=self._note)

    async def _reply(self, reply: Reply) -> None:
        self.replies.append(reply)

    def _note(self, event: str, /, **fields: object) -> None:
        self.told.append((event, fields))

    async def give(self, *envelopes: bytes) -> None:
        for number, raw in enumerate(envelopes):
            await self.inbox.receive(raw, (AT[0], AT[1], number))

    async def replied(self, count: int) -> list[Reply]:
        """All replies, once there are so many."""
        async with asyncio.timeout(20):
            while len(self.replies) < count:
                await asyncio.sleep(0.001)
        return self.replies


@asynccontextmanager
async def working(desk: Desk) -> AsyncIterator[Desk]:
    """Its commands are carried out inside the block."""
    await desk.inbox.start()
    task = asyncio.create_task(desk.inbox.run())
    try:
        yield desk
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def echo(given: Any, context: Context) -> dict[str, Any]:
    """A handler that says what it was given and by whom."""
    return {"arguments": msgspec.json.decode(msgspec.json.encode(given)), "key": context.key, "role": context.role}
