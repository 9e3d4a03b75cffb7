"""Has each query of somebody else answered by a process of its own over a copy of the store, one at a time.

Serving feels of it a copy of the log between two transactions, and no checkpoint while the database is copied.
"""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path

import msgspec

from tickcast.errors import BadRequest, StoreStalled
from tickcast.io.store.query_child import COPIED, LOG, READY, QueryRequest
from tickcast.io.store.query_reply import refusal
from tickcast.io.store.store import Store
from tickcast.settings import Settings

CHILD = (sys.executable, "-P", "-m", f"{__package__}.query_child")
FOLDER = "queries"  # below runtime.folder; whatever is there is a copy
ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "PYTHONPATH", "LD_LIBRARY_PATH")  # and no password
CHUNK_BYTES = 1 << 16
GRACE_S = 2.0  # beyond its own deadline a query is killed
WAITING = 16
KILLED = "the query was ended: it took more time or memory than it may have"


class Queries:
    """`open` it, and ask for the reply to a query as it comes."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store, self._settings = store, settings
        self._folder = settings.runtime.folder.absolute() / FOLDER
        self._turn, self._waiting = asyncio.Lock(), 0
        shutil.rmtree(self._folder, ignore_errors=True)  # of a daemon that was killed

    async def reply(self, sql: str) -> AsyncGenerator[bytes]:
        if self._waiting >= WAITING:
            raise StoreStalled(f"{WAITING} queries wait already", remedy="ask again later")
        self._waiting += 1
        try:
            async with self._turn, self._child() as (child, folder):
                async with aclosing(self._answer(child, folder, sql)) as parts:
                    async for part in parts:
                        yield part
        finally:
            self._waiting -= 1

    async def _answer(self, child: Process, folder: Path, sql: str) -> AsyncGenerator[bytes]:
        timeout_s = self._settings.store.query_timeout_s
        said = False
        try:
            async with asyncio.timeout(timeout_s) as limit:
                first = await self._copy(child, folder, sql)
                limit.reschedule(asyncio.get_running_loop().time() + timeout_s + GRACE_S)
                assert child.stdout is not None
                while part := first or await child.stdout.read(CHUNK_BYTES):
                    first, said = b"", True
                    limit.reschedule(None)  # it was answered; how long the client reads is the socket's business
                    yield part
        except TimeoutError:
            pass
        if not said:
            yield refusal(BadRequest(KILLED, remedy="ask for less, or raise store.query_timeout_s")) + b"\n"

    async def _copy(self, child: Process, folder: Path, sql: str) -> bytes:
        """Lets the child make its copy; what it said instead, where it refused."""
        settings = self._settings.model_dump(mode="json", exclude_defaults=True)
        settings = {name: settings[name] for name in ("store", "runtime") if name in settings}
        await _tell(child, msgspec.json.encode(QueryRequest(sql, settings, str(folder))) + b"\n")
        if said := await _hear(child, READY):
            return said
        with self._store.without_checkpoint():
            async with self._store.between_transactions():
                await _tell(child, LOG)
                if said := await _hear(child, LOG):
                    return said
            return await _hear(child, COPIED)

    @asynccontextmanager
    async def _child(self) -> AsyncIterator[tuple[Process, Path]]:
        """Nothing of it is left, whatever becomes of the query."""
        folder = await asyncio.to_thread(self._make_folder)
        try:
            environ = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
            child = await asyncio.create_subprocess_exec(
                *CHILD, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=environ, start_new_session=True
            )
            try:
                yield child, folder
            finally:
                if child.returncode is None:  # Process.kill() would look first, and so take the end from who waits
                    with suppress(ProcessLookupError):
                        os.kill(child.pid, signal.SIGKILL)
                await child.wait()
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    def _make_folder(self) -> Path:
        try:
            self._folder.mkdir(parents=True, mode=0o700, exist_ok=True)
            return Path(tempfile.mkdtemp(dir=self._folder))
        except OSError as error:
            raise StoreStalled(f"no room for a query in {self._folder}: {error.strerror}") from None


async def _tell(child: Process, line: bytes) -> None:
    assert child.stdin is not None
    with suppress(ConnectionError):  # that it died is found when it says nothing
        child.stdin.write(line)
        await child.stdin.drain()


async def _hear(child: Process, word: bytes) -> bytes:
    """Empty where it says the word; what it says instead."""
    assert child.stdout is not None
    said = await child.stdout.readline()
    return b"" if said == word else said
