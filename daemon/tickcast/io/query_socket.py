"""Serves SELECTs of `tickcast query` over a unix socket, and asks them. It knows no SQL and opens no database.

One request a connection: a line `{"sql": ...}`. The reply is that of `query_reply`, as somebody else writes it.
"""

import asyncio
import os
import socket
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any, Protocol

import msgspec

from tickcast.errors import BadRequest, BadSettings, BadStore, StoreStalled, TickcastError
from tickcast.io.store.query_reply import refusal

REQUEST_BYTES = 1 << 20
CLIENT_WAIT_S = 10.0  # for a client that neither sends nor reads
PATH_BYTES = 107  # what the kernel takes as the name of a unix socket
GRACE_S = 5.0  # beyond the deadlines of copy and query

Columns = list[str]
Rows = list[tuple[Any, ...]]


class AnswersQueries(Protocol):
    def reply(self, sql: str) -> AsyncGenerator[bytes]: ...


class QueryServer:
    def __init__(self, answers: AnswersQueries, path: Path) -> None:
        self._answers = answers
        self._path = path

    async def serve(self) -> None:
        """Until cancelled. Only the user that runs the daemon may connect."""
        listener = _listen(self._path)
        try:
            server = await asyncio.start_unix_server(self._talk, sock=listener, limit=REQUEST_BYTES)
            async with server:
                await server.serve_forever()
        finally:
            listener.close()
            self._path.unlink(missing_ok=True)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(CLIENT_WAIT_S):
                line = await reader.readline()
            await self._answer(line, writer)
        except (TimeoutError, ConnectionError):
            pass  # the client is gone or stuck: nobody is left to be told
        except ValueError:
            await _send(writer, refusal(BadRequest(f"a query may have {REQUEST_BYTES} bytes")) + b"\n")
        finally:
            writer.close()

    async def _answer(self, line: bytes, writer: asyncio.StreamWriter) -> None:
        try:
            async with aclosing(self._answers.reply(_parse(line))) as parts:
                async for part in parts:
                    await _send(writer, part)
        except TickcastError as error:
            await _send(writer, refusal(error) + b"\n")


def ask(path: Path, sql: str, *, timeout_s: float = 30.0) -> tuple[Columns, Rows]:
    """The answer of the daemon that listens at `path`; ConnectionError where none does. Blocks."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as talk:
        talk.settimeout(2 * timeout_s + GRACE_S)  # the copy may take as long as the query
        try:
            talk.connect(_address(path))
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise ConnectionRefusedError(f"no daemon listens at {path}") from error
        try:
            talk.sendall(msgspec.json.encode({"sql": sql}) + b"\n")
            return _read_reply(talk)
        except TimeoutError:
            raise StoreStalled("the daemon does not answer", remedy="see its log") from None


def _read_reply(talk: socket.socket) -> tuple[Columns, Rows]:
    rows: Rows = []
    with talk.makefile("rb") as lines:
        head = _decode(lines.readline())
        if "error" in head:
            kinds = {kind.code: kind for kind in (BadRequest, StoreStalled, BadStore)}
            raise kinds.get(head["error"], BadRequest)(head["message"], remedy=head["remedy"])
        for line in lines:
            part = _decode(line)
            if isinstance(part, dict):
                return head["columns"], rows
            rows.extend(tuple(row) for row in part)
    raise StoreStalled("the daemon broke off its answer", remedy="ask again")


def _decode(line: bytes) -> Any:
    try:
        return msgspec.json.decode(line)
    except msgspec.DecodeError:
        raise StoreStalled("the daemon broke off its answer", remedy="ask again") from None


def _parse(line: bytes) -> str:
    try:
        sql: str = msgspec.json.decode(line, type=dict[str, str])["sql"]
    except (msgspec.MsgspecError, KeyError):
        raise BadRequest('a request is one line {"sql": "SELECT ..."}') from None
    return sql


async def _send(writer: asyncio.StreamWriter, part: bytes) -> None:
    async with asyncio.timeout(CLIENT_WAIT_S):
        writer.write(part)
        await writer.drain()


def _listen(path: Path) -> socket.socket:
    """Bound, closed to other users, and only then listening."""
    address = _address(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(path, address)
        listener.bind(address)
        os.chmod(path, 0o600)
        listener.listen()
    except OSError as error:
        listener.close()
        raise BadSettings(f"cannot listen at {path}: {error.strerror}", remedy="see runtime.folder") from None
    except BadSettings:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def _remove_stale(path: Path, address: str) -> None:
    """A socket that nobody answers on is what a killed daemon left behind."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(address)
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            path.unlink()
            return
    raise BadSettings(f"another daemon listens at {path}", remedy="give each daemon its own runtime.folder")


def _address(path: Path) -> str:
    """The shorter of the absolute and the relative name: the kernel takes 107 bytes."""
    absolute = os.path.abspath(path)
    name = min(absolute, os.path.relpath(absolute), key=lambda name: len(os.fsencode(name)))
    if len(os.fsencode(name)) > PATH_BYTES:
        raise BadSettings(
            f"{path} is too long for the name of a socket ({PATH_BYTES} bytes)", remedy="set a shorter runtime.folder"
        )
    return name
