"""`tickcast query` through the socket of a running daemon."""

import asyncio
import socket
import stat
import threading
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from storekit import open_store, store_settings, unit
from tickcast.errors import BadRequest, BadSettings, BadStore, StoreStalled
from tickcast.io.query_socket import PATH_BYTES, QueryServer, ask
from tickcast.io.store.query import query_direct
from tickcast.io.store.query_process import Queries
from tickcast.io.store.query_reply import reply
from tickcast.ui.query import SOCKET, run_query


@asynccontextmanager
async def serving(server: QueryServer, path: Path):
    task = asyncio.create_task(server.serve())
    async with asyncio.timeout(5):
        while not path.exists():
            await asyncio.sleep(0.01)
            if task.done():
                await task
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Canned:
    """A store that answers with what it was given."""

    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.asked: list[str] = []

    async def reply(self, sql: str):
        self.asked.append(sql)
        if isinstance(self.answer, Exception):
            raise self.answer
        for line in reply(*self.answer):
            yield line + b"\n"


async def test_the_answer_by_socket_equals_the_direct_one(tmp_path):
    settings = store_settings(tmp_path)
    store, path = open_store(settings), settings.runtime.folder / SOCKET
    await store.write(unit(0, 700))
    sql = "SELECT *, sum(ordinal) OVER () AS total, 'nan'::DOUBLE AS nan FROM forecasts ORDER BY as_of_ns"
    async with serving(QueryServer(Queries(store, settings), path), path):
        by_socket = await asyncio.to_thread(run_query, settings, sql)
    await store.close()
    assert by_socket == query_direct(settings, sql) == run_query(settings, sql)
    assert len(by_socket[1]) == 700


async def test_only_the_daemons_user_may_connect_and_the_socket_goes_with_the_daemon(tmp_path):
    path = tmp_path / "run" / "q.sock"
    async with serving(QueryServer(Canned((["a"], [])), path), path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert await asyncio.to_thread(ask, path, "SELECT 1") == (["a"], [])
    assert not path.exists()


@pytest.mark.parametrize("error", [BadRequest("no", remedy="ask better"), StoreStalled("full"), BadStore("gone")])
async def test_a_refusal_arrives_as_the_same_error(tmp_path, error):
    path = tmp_path / "q.sock"
    async with serving(QueryServer(Canned(error), path), path):
        with pytest.raises(type(error)) as raised:
            await asyncio.to_thread(ask, path, "SELECT 1")
    assert str(raised.value) == str(error)


def talk(path: Path, request: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(10)
        client.connect(str(path))
        client.sendall(request)
        client.shutdown(socket.SHUT_WR)
        return client.makefile("rb").read()


@pytest.mark.parametrize(
    "request_line", [b"SELECT 1\n", b"{}\n", b'{"sql": 3}\n', b"\xff\n", b"", b"x" * (3 << 20) + b"\n"]
)
async def test_a_malformed_request_is_answered_with_a_refusal(tmp_path, request_line):
    path, store = tmp_path / "q.sock", Canned((["a"], []))
    async with serving(QueryServer(store, path), path):
        try:
            reply = await asyncio.to_thread(talk, path, request_line)
        except (BrokenPipeError, ConnectionResetError):
            assert len(request_line) > 1 << 20  # refused before all of it was read
        else:
            assert msgspec.json.decode(reply)["error"] == "bad_request"
        assert await asyncio.to_thread(ask, path, "still there?") == (["a"], [])
    assert store.asked == ["still there?"]


async def test_a_client_that_leaves_or_sticks_holds_nobody_up(tmp_path, monkeypatch):
    monkeypatch.setattr("tickcast.io.query_socket.CLIENT_WAIT_S", 0.2)
    path = tmp_path / "q.sock"
    long = (["a"], [("x" * 1000,)] * 20_000)
    async with serving(QueryServer(Canned(long), path), path):
        for request in (b"", b'{"sql": "SELECT 1"}\n'):  # says nothing; asks, and never reads
            stuck = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            stuck.connect(str(path))
            stuck.sendall(request)
            assert len((await asyncio.to_thread(ask, path, "SELECT 1"))[1]) == 20_000
            await asyncio.sleep(0.4)
            stuck.close()


async def test_a_large_answer_is_passed_on_as_it_comes_and_as_it_is_read(tmp_path):
    """No more of it is held than what lies in the pipe: the next part is taken once the client has read the last."""
    path, parts = tmp_path / "q.sock", [b"x" * (1 << 20)] * 50
    taken = 0

    class Parts:
        async def reply(self, sql: str):
            nonlocal taken
            for part in parts:
                taken += 1
                yield part

    async with serving(QueryServer(Parts(), path), path):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            await asyncio.to_thread(client.connect, str(path))
            client.sendall(b'{"sql": "SELECT 1"}\n')
            got, ahead = 0, 0
            while part := await asyncio.to_thread(client.recv, 1 << 16):
                got += len(part)
                ahead = max(ahead, (taken << 20) - got)
    assert got == 50 << 20
    assert ahead < 10 << 20


async def test_a_socket_left_by_a_killed_daemon_is_replaced_and_a_living_one_is_not(tmp_path):
    path = tmp_path / "q.sock"
    left = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    left.bind(str(path))
    left.close()
    with pytest.raises(ConnectionRefusedError):
        ask(path, "SELECT 1")
    server = QueryServer(Canned((["a"], [])), path)
    task = asyncio.create_task(server.serve())
    async with asyncio.timeout(5):
        while True:
            try:
                await asyncio.to_thread(ask, path, "SELECT 1")
                break
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)
    with pytest.raises(BadSettings, match="another daemon listens"):
        await QueryServer(Canned((["b"], [])), path).serve()
    assert await asyncio.to_thread(ask, path, "SELECT 1") == (["a"], [])
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_long_path_is_reached_by_its_relative_name_or_refused(tmp_path, monkeypatch):
    deep = tmp_path / ("d" * PATH_BYTES)
    deep.mkdir()
    with pytest.raises(BadSettings, match="too long"):
        await QueryServer(Canned((["a"], [])), deep / "q.sock").serve()
    monkeypatch.chdir(deep)
    async with serving(QueryServer(Canned((["a"], [])), deep / "q.sock"), deep / "q.sock"):
        assert await asyncio.to_thread(ask, deep / "q.sock", "SELECT 1") == (["a"], [])


@pytest.mark.parametrize("reply", [b"", b'{"columns": ["a"]}\n[[1]]\n', b'{"columns": ["a"]}\n[[1', b"nonsense\n"])
def test_a_daemon_that_breaks_off_is_told_of(tmp_path, reply):
    path = tmp_path / "q.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(1000)
                client.sendall(reply)

        daemon = threading.Thread(target=answer)
        daemon.start()
        with pytest.raises(StoreStalled, match="broke off"):
            ask(path, "SELECT 1")
        daemon.join(10)
