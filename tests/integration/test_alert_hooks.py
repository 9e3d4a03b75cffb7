"""Whom alerts are told beside the bus: a real socket and real children, that take them, refuse them, or hang."""

import asyncio
import json
import os
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from livekit import live_settings, running, until
from netkit import HOST, Certificates, free_port
from tickcast.errors import BadSettings
from tickcast.io.alert_hooks import MOST_WAITING, Hook, Program, Webhook, hooks
from tickcast.settings.alerts import AlertSettings

LIMIT_S = 30.0
RECORD = b'{"name":"disk_low"}'
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(answer: bytes | None, **options: Any) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that keeps what it was sent and gives this answer, None = none ever: its port, and what came."""
    came: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        came.append(head + await reader.readexactly(length))
        if answer is None:
            await reader.read()  # until the other side has had enough
        else:
            writer.write(answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, HOST, 0, **options)
    async with server:
        yield server.sockets[0].getsockname()[1], came


@asynccontextmanager
async def at_work(hook: Hook) -> AsyncIterator[Hook]:
    task = asyncio.create_task(hook.run())
    try:
        yield hook
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def only(settings: AlertSettings, folder: Path) -> Hook:
    (hook,) = hooks(settings, folder)
    return hook


async def done(hook: Hook, **counts: int) -> None:
    await until(lambda: dict(hook.counts) == {"sent": 0, "failed": 0, "dropped": 0} | counts, f"{counts}")


async def test_a_webhook_gets_each_record_as_it_is_and_its_token_where_the_url_wants_it(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret/1\n")
    async with serving(b"HTTP/1.1 204 No Content\r\n\r\n") as (port, came):
        for place in ("/in/{token}?a=b", "/bearer"):
            settings = AlertSettings(webhook=f"http://{HOST}:{port}{place}", webhook_token_file=tmp_path / "token")
            async with at_work(only(settings, tmp_path)) as hook:
                hook.offer(RECORD)
                hook.offer(b'{"second":1}')
                await done(hook, sent=2)
    first, second, bearer, _ = (message.partition(b"\r\n\r\n") for message in came)
    assert first[0].startswith(b"POST /in/s3cret/1?a=b HTTP/1.1\r\n")
    assert b"authorization" not in first[0].lower()
    assert (first[2], second[2]) == (RECORD, b'{"second":1}')
    assert f"\r\nHost: {HOST}:{port}\r\n".encode() in first[0]
    assert b"\r\nContent-Type: application/json\r\n" in first[0]
    assert bearer[0].startswith(b"POST /bearer HTTP/1.1\r\n")
    assert b"\r\nAuthorization: Bearer s3cret/1" in bearer[0]


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n", b"HTTP/1.1 500 no\r\n\r\n", b"", b"x" * 9000, b"SSH-2\r\n"],
)
async def test_an_answer_that_takes_nothing_is_a_failure_that_is_counted_and_logs_no_secret(
    tmp_path: Path, answer: bytes
) -> None:
    (tmp_path / "token").write_text("s3cret")
    async with serving(answer) as (port, came):
        url = f"http://{HOST}:{port}/{{token}}"
        settings = AlertSettings(webhook=url, webhook_token_file=tmp_path / "token")
        with capture_logs() as logs:
            async with at_work(only(settings, tmp_path)) as hook:
                hook.offer(RECORD)
                await done(hook, failed=1)
    assert len(came) == 1
    assert [line["event"] for line in logs] == ["alert_hook_failed"]
    assert "s3cret" not in str(logs)


async def test_nobody_there_a_missing_token_and_one_that_is_none_are_failures(tmp_path: Path) -> None:
    (tmp_path / "split").write_text("a\r\nX-Evil: 1")
    for file in (None, tmp_path / "missing", tmp_path / "split"):
        settings = AlertSettings(webhook=f"http://{HOST}:{free_port()}/", webhook_token_file=file)
        with capture_logs() as logs:
            async with at_work(only(settings, tmp_path)) as hook:
                hook.offer(RECORD)
                await done(hook, failed=1)
        assert "X-Evil" not in str(logs)


async def test_a_server_whose_certificate_nobody_vouches_for_gets_nothing(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path / "certificates")
    certificates.make()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.certificate("server"), certificates.key("server"))
    async with serving(b"HTTP/1.1 200 OK\r\n\r\n", ssl=context) as (port, came):
        async with at_work(only(AlertSettings(webhook=f"https://{HOST}:{port}/"), tmp_path)) as hook:
            hook.offer(RECORD)
            await done(hook, failed=1)
        trusting = ssl.create_default_context(cafile=str(certificates.ca))
        webhook = Webhook.of(f"https://{HOST}:{port}/", None)._replace(tls=trusting)
        async with at_work(Hook("webhook", webhook.send, LIMIT_S)) as hook:
            hook.offer(RECORD)
            await done(hook, sent=1)
    assert [message.endswith(RECORD) for message in came] == [True]


def script(folder: Path, text: str) -> list[str]:
    (folder / "hook.py").write_text(text)
    return [sys.executable, "-I", str(folder / "hook.py")]


async def test_a_command_reads_the_record_and_sees_no_secret_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TICKCAST_KAFKA__SECURITY__PASSWORD", "s3cret")
    text = "import os, sys; open('heard', 'ab').write(sys.stdin.buffer.read() + str([*os.environ]).encode())"
    settings = AlertSettings(command=[*script(tmp_path, text), "; touch evil"])
    async with at_work(only(settings, tmp_path)) as hook:
        hook.offer(RECORD)
        await done(hook, sent=1)
    heard = (tmp_path / "heard").read_bytes()
    assert heard.startswith(RECORD)
    assert b"TICKCAST" not in heard
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import sys; print('out of paper' * 5000); sys.exit(3)", "ended with 3: out of paper"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", "ended with -15: "),
    ],
)
async def test_a_command_that_fails_is_counted_with_the_first_of_what_it_said(
    tmp_path: Path, text: str, said: str
) -> None:
    with capture_logs() as logs:
        async with at_work(only(AlertSettings(command=script(tmp_path, text)), tmp_path)) as hook:
            hook.offer(RECORD * 10_000)  # more than a pipe holds, and nobody reads it
            await done(hook, failed=1)
    assert said in logs[0]["reason"]
    assert len(logs[0]["reason"]) < 400


async def test_a_program_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    async with at_work(only(AlertSettings(command=[str(tmp_path / "none")]), tmp_path)) as hook:
        hook.offer(RECORD)
        await done(hook, failed=1)


HANGS = """
import os, subprocess, sys, time
inner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open("pids", "w").write(f"{os.getpid()} {inner.pid}")
time.sleep(600)
"""


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_a_command_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    settings = AlertSettings(command=script(tmp_path, HANGS), hook_timeout_s=1.5)
    async with at_work(only(settings, tmp_path)) as hook:
        hook.offer(RECORD)
        await done(hook, failed=1)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    await until(lambda: not any(map(is_running, pids)), "both to be gone")


async def test_what_finds_no_room_is_dropped_and_counted(tmp_path: Path) -> None:
    hook = Hook("command", Program(["true"], tmp_path).run, LIMIT_S)
    for _ in range(MOST_WAITING + 5):
        hook.offer(RECORD)
    assert hook.counts["dropped"] == 5


async def test_hooks_that_hang_change_nothing_in_serving(tmp_path: Path) -> None:
    folder = tmp_path / "hook"
    folder.mkdir()
    async with serving(None) as (port, came):
        settings = live_settings(
            tmp_path, window__lookback=4, forecast__horizon=2, score__publish_every_s=0.05,
            alerts__disk_free_share=1, alerts__webhook=f"http://{HOST}:{port}/", alerts__hook_timeout_s=600,
            alerts__command=json.dumps(script(folder, "import time; time.sleep(600)")),
        )  # fmt: skip
        async with running(settings) as live:  # it drains without them, too
            await until(lambda: bool(came), "the webhook to be told")
            tick = b'{"symbol":"A","ts":%d,"price":100}'
            await live.send([tick % (1_700_000_000_000_000_000 + n * 10**9) for n in range(200)])
            assert len(await live.forecasts()) > 190
            assert live.daemon.health().state == "live"
            assert live.daemon.health().alerts == {"disk_low": "warning"}
            told = (await live.daemon.command("status", section="alerts")).result["alerts"]["hooks"]
            assert told == {name: {"sent": 0, "failed": 0, "dropped": 0} for name in ("webhook", "command")}
    assert not [pid for pid in os.listdir("/proc") if pid.isdigit() and "hook/hook.py" in cmdline(pid)]


def cmdline(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


@pytest.mark.parametrize(
    "wrong",
    [
        {"webhook": "http://example.com/x"}, {"webhook": "ftp://127.0.0.1/"}, {"webhook": "https://"},
        {"webhook": "https://u:p@example.com/"}, {"webhook": "https://example.com:x/"}, {"webhook": "https://a/ b"},
        {"webhook": "https://{token}.example.com/"}, {"webhook_token_file": "f"}, {"command": '[""]'},
        {"hook_timeout_s": 0}, {"webhook": "https://example.com/\\u000d\\u000aX: y"},
    ],
)  # fmt: skip
def test_what_cannot_be_sent_safely_is_refused(tmp_path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(BadSettings):
        live_settings(tmp_path, **{f"alerts__{key}": value for key, value in wrong.items()})
    for url in (
        "https://example.com/{token}",
        "http://localhost:1/x",
        "http://[::1]:80/",
        "http://127.1.2.3/?q={token}",
    ):
        assert live_settings(tmp_path, alerts__webhook=url).alerts.webhook == url
