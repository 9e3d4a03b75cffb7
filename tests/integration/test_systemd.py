"""What systemd is told by the real daemon, what its watchdog sees, and how tightly the units are closed."""

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from livekit import live_settings, running
from needs import need
from tickcast import errors
from tickcast.io.mqtt.client import GOODBYE_S
from tickcast.live.commands.keys import Signer, read_keys
from tickcast.settings import Settings, load
from tickcast.ui.install_units import NAMES, folder, install_units, secrets

WAIT_S = 120.0
MOST_EXPOSURE = 1.5


class NotifySocket:
    """systemd's end: what the daemon says, message by message."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + name[1:] if name.startswith("@") else name)

    def next(self, limit_s: float = WAIT_S) -> dict[str, str]:
        self._socket.settimeout(limit_s)
        return dict(line.split("=", 1) for line in self._socket.recv(4096).decode().split("\n"))

    def until(self, key: str) -> dict[str, str]:
        """The next message that has this key."""
        give_up = time.monotonic() + WAIT_S
        while time.monotonic() < give_up:
            if key in (said := self.next()):
                return said
        raise TimeoutError(f"{key} was not said")

    def heard(self) -> list[dict[str, str]]:
        """All that was said and not yet taken."""
        messages = []
        try:
            while True:
                messages.append(self.next(0))
        except BlockingIOError:
            return messages

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["file", "abstract"])
def notify(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NotifySocket]:
    name = (
        str(tmp_path / "notify") if request.param == "file" else f"@tickcast-test-{os.getpid()}-{time.monotonic_ns()}"
    )
    listener = NotifySocket(name)
    yield listener
    listener.close()


def config(folder: Path, **lines: str) -> Path:
    file = folder / "tickcast.toml"
    file.write_text(
        f'store.path = "{folder / "store.duckdb"}"\nruntime.folder = "{folder / "run"}"\nscore.publish_every_s = 0.2\n'
        + "".join(f"{name.replace('__', '.')} = {value}\n" for name, value in lines.items())
    )
    return file


@pytest.mark.slow
def test_the_daemon_tells_systemd_of_its_start_its_life_its_reload_and_its_end(
    notify: NotifySocket, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "tickcast", "run", "--config", str(config(tmp_path, log__level='"warning"'))]
    environ = os.environ | {"NOTIFY_SOCKET": notify.name, "WATCHDOG_USEC": "600000"}
    environ.pop("WATCHDOG_PID", None)
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True) as child:
        try:
            said = notify.until("READY")
            assert said["STATUS"] == "live: 0 ticks, 0 forecasts, 0 symbols of which 0 are cold"
            for _ in range(4):
                assert notify.until("WATCHDOG") == {"WATCHDOG": "1"}
            assert notify.until("STATUS")["STATUS"].startswith("live: 0 ticks")

            config(tmp_path, log__level='"info"', window__lookback="7")
            child.send_signal(signal.SIGHUP)
            assert int(notify.until("RELOADING")["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
            assert notify.until("READY")["STATUS"] == "live; after a restart: window.lookback"

            config(tmp_path, window__lookback="-1")
            child.send_signal(signal.SIGHUP)
            notify.until("RELOADING")
            assert "refused" in notify.until("READY")["STATUS"]
            assert notify.until("WATCHDOG")

            child.send_signal(signal.SIGTERM)
            assert notify.until("STOPPING")["STATUS"].startswith("draining")
            assert child.wait(WAIT_S) == 0
            assert child.stderr is not None
            log = child.stderr.read()
            assert "settings_reloaded" in log  # its level came with the reload: before, only warnings were let through
            assert "daemon_started" not in log
            left = [path for path in tmp_path.rglob("*") if path.name not in ("notify", "tickcast.toml")]
            assert {"store.duckdb", "run"} <= {path.name for path in left}
            assert not [path for path in left if path.stat().st_mode & 0o027]
            (refused,) = (line for line in log.splitlines() if "settings_refused" in line)
            assert "window.lookback" in refused
        finally:
            child.kill()


@pytest.mark.slow
async def test_the_watchdog_goes_unfed_while_the_engine_thread_is_stuck_and_is_fed_again_after(
    notify: NotifySocket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", notify.name)
    monkeypatch.setenv("WATCHDOG_USEC", "300000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    go_on = threading.Event()
    async with running(live_settings(tmp_path)) as live:
        await asyncio.to_thread(notify.until, "WATCHDOG")
        try:
            stuck = asyncio.create_task(live.daemon.session.thread.call(go_on.wait))
            await asyncio.sleep(0.5)  # what was on its way when it stuck is over
            notify.heard()
            await asyncio.sleep(1.0)
            assert not [said for said in notify.heard() if "WATCHDOG" in said]
        finally:
            go_on.set()
        await stuck
        await asyncio.to_thread(notify.until, "WATCHDOG")


def test_a_watchdog_of_another_process_is_not_ours_and_without_a_socket_nothing_is_said(tmp_path: Path) -> None:
    from tickcast.clock import SystemClock
    from tickcast.io.systemd import Notifier

    def watchdog_s(**environ: str) -> float | None:
        return Notifier(environ, SystemClock()).watchdog_s

    here = str(tmp_path / "notify")
    assert watchdog_s(NOTIFY_SOCKET=here, WATCHDOG_USEC="2000000") == 2
    assert watchdog_s(NOTIFY_SOCKET=here, WATCHDOG_USEC="2000000", WATCHDOG_PID=str(os.getpid())) == 2
    assert watchdog_s(NOTIFY_SOCKET=here, WATCHDOG_USEC="2000000", WATCHDOG_PID="1") is None
    assert watchdog_s(WATCHDOG_USEC="2000000") is None
    Notifier({}, SystemClock()).ready("nobody listens")
    Notifier({"NOTIFY_SOCKET": here}, SystemClock()).ready("the listener is gone")


@pytest.fixture
def analyze() -> str:
    program = shutil.which("systemd-analyze")
    need(program is not None, "systemd: apt-get install systemd")
    return str(program)


def written(tmp_path: Path, *files: Path) -> list[Path]:
    settings = load(list(files), environ={})[0]
    return install_units(settings, files, to=tmp_path / "units")


@pytest.mark.parametrize("where", ["checkout", "this machine"])
def test_the_units_are_closed_tightly_and_without_fault(analyze: str, tmp_path: Path, where: str) -> None:
    units = written(tmp_path) if where == "this machine" else [folder() / name for name in NAMES]
    for unit in units:
        command = [analyze, "security", "--offline=yes", "--no-pager", str(unit)]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        (exposure,) = re.findall(r"Overall exposure level for \S+: ([\d.]+)", told)
        assert float(exposure) <= MOST_EXPOSURE, told
    if where == "this machine":  # the checkout's name a python that need not be there
        checked = subprocess.run([analyze, "verify", str(units[0])], capture_output=True, text=True)
        assert (checked.returncode, "tickcast" in checked.stderr) == (0, False), checked.stderr


def keys_of(unit: Path) -> list[tuple[str, str]]:
    return [(key, value) for key, value in re.findall(r"^(\w+)=(.*)$", unit.read_text(), re.MULTILINE)]


def test_the_unit_of_a_slot_differs_only_in_what_belongs_to_the_slot() -> None:
    one, slot = (folder() / name for name in NAMES)
    differ = {key for key, _ in set(keys_of(one)) ^ set(keys_of(slot))}
    assert differ == {"Description", "ExecStart", "WorkingDirectory", "StateDirectory"}
    assert dict(keys_of(slot))["ExecStart"].endswith("--set kafka.slot=%i")


@pytest.mark.parametrize("name", NAMES)
def test_units_and_daemon_agree_on_exit_codes_and_times(name: str) -> None:
    unit = dict(keys_of(folder() / name))
    assert unit["RestartPreventExitStatus"].split() == [str(errors.EXIT_FENCED), str(errors.EXIT_REFUSED)]
    assert unit["SuccessExitStatus"] == str(errors.EXIT_SECOND_SIGNAL)
    assert int(unit["TimeoutStopSec"]) > Settings().runtime.drain_s + GOODBYE_S


def test_installed_units_name_this_python_the_settings_and_a_credential_for_each_secret(tmp_path: Path) -> None:
    place = tmp_path / "100% my settings"
    place.mkdir()
    secret = place / "word"
    toml = config(
        place, mqtt__password_file=f'"{secret}"', kafka__security__key_file=f'"{secret}"',
        alerts__webhook='"https://example.com"', alerts__webhook_token_file=f'"{secret}"',
    )  # fmt: skip
    units = written(tmp_path, toml)
    assert [unit.name for unit in units] == list(NAMES)
    for unit in units:
        values = keys_of(unit)
        (start,) = (value for key, value in values if key == "ExecStart")
        assert start.startswith(f"{sys.executable} -m tickcast run --config ")
        assert f'"{toml}"'.replace("%", "%%") in start
        loads = {value for key, value in values if key == "LoadCredential"}
        names = {"mqtt-password_file", "kafka-security-key_file", "alerts-webhook_token_file"}
        assert loads == {f"{name}:{secret}".replace("%", "%%") for name in names}
        assert all(f"=%d/{name}" in start for name in names)
        assert ("kafka.slot=%i" in start) == ("@" in unit.name)
    assert set(secrets(load([toml], environ={})[0])) == {
        "mqtt.password_file", "kafka.security.key_file", "alerts.webhook_token_file",
    }  # fmt: skip


def keys_toml(place: Path, *more: str) -> Path:
    keys = place / "keys.toml"
    bot = '[[keys]]\nid = "bot"\nalgorithm = "hmac-sha256"\nrole = "read"\nsecret_file = "bot.key"\n'
    keys.write_text("".join([bot, *more]))
    (place / "bot.key").write_text(Signer("hmac-sha256", b"s" * 40).line())
    (place / "bot.key").chmod(0o400)
    return keys


def test_the_keys_file_is_read_where_it_is_and_its_secrets_are_credentials(tmp_path: Path) -> None:
    """So a key that is taken out of it is gone with the next reload, and who signs with a secret is known."""
    keys = keys_toml(tmp_path)
    for unit in written(tmp_path, config(tmp_path, control__keys_file=f'"{keys}"')):
        values = keys_of(unit)
        (start,) = (value for key, value in values if key == "ExecStart")
        loads = [value for key, value in values if key == "LoadCredential"]
        assert loads == [f"bot.key:{tmp_path / 'bot.key'}"]
        assert f"--set control.keys_file={keys}" in start
        assert "--set control.secrets_folder=%d" in start
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (tmp_path / "bot.key").rename(credentials / "bot.key")
    assert list(read_keys(keys, secrets=credentials)) == ["bot"]


def test_a_keys_file_that_the_units_could_not_read_again_is_refused(tmp_path: Path) -> None:
    keys = keys_toml(tmp_path)
    toml = config(tmp_path, control__keys_file=f'"{keys}"')
    keys.chmod(0o600)
    with pytest.raises(errors.BadSettings, match=r"chmod o\+r"):
        written(tmp_path, toml)
    keys = keys_toml(tmp_path, '[[keys]]\nid = "b"\nalgorithm = "hmac-sha256"\nrole = "read"\nsecret_file = "a/b"\n')
    keys.chmod(0o644)
    with pytest.raises(errors.BadSettings, match="beside the keys file"):
        written(tmp_path, toml)


def test_a_job_may_keep_itself_within_its_folder_under_the_units() -> None:
    """Landlock is in none of systemd's sets that this version knows: what is not named is refused."""
    for name in NAMES:
        allowed = next(value for key, value in keys_of(folder() / name) if key == "SystemCallFilter").split()
        assert {"landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"} < set(allowed)


@pytest.mark.parametrize("name", NAMES)
def test_the_units_bound_memory_and_tasks_and_outlive_a_job_that_took_too_much(name: str) -> None:
    unit = dict(keys_of(folder() / name))
    assert unit["MemoryMax"].endswith("%")
    assert int(unit["TasksMax"]) > 0
    assert unit["OOMPolicy"] == "continue"


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.BadSettings, match="cannot be written"):
        install_units(Settings(), [], to=tmp_path / "file")
