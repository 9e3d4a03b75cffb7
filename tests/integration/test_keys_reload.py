"""SIGHUP reads again who may give commands; a keys file that is wrong changes nothing."""

import base64
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from controlkit import SIGNERS, sealed
from livekit import Live, live_settings, running, until
from tickcast.clock import SystemClock
from tickcast.io.systemd import Notifier
from tickcast.live.commands.envelope import own_audience
from tickcast.live.serve import Reload
from tickcast.settings import Settings

CLOCK = SystemClock()


def entry(role: str) -> str:
    public = base64.b64encode(SIGNERS[role].public()).decode()  # type: ignore[index]
    return f'[[keys]]\nid = "{role}"\nalgorithm = "ed25519"\nrole = "{role}"\npublic = "{public}"\n'


class Said(Notifier):
    """Keeps what it would tell systemd."""

    def __init__(self) -> None:
        super().__init__({}, CLOCK)
        self.texts: list[str] = []

    def ready(self, status: str) -> None:
        self.texts.append(status)


async def gives(live: Live, role: str, id: str, outcome: str) -> None:
    """A command by that key is counted so."""
    inbox, settings = live.daemon.session.commands.inbox, live.daemon.settings
    before = inbox.counts[outcome]
    audience = own_audience(settings.kafka.group, settings.kafka.slot)
    raw = sealed("status", role=role, id=id, audience=audience, now_ms=CLOCK.now_ns() // 10**6)
    await inbox.receive(raw, ("control", 0, 0))
    await until(lambda: inbox.counts[outcome] == before + 1, f"{outcome} of {role}")


@pytest.mark.slow
async def test_keys_are_read_again_and_a_bad_file_keeps_the_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tickcast.live.serve.set_up_logging", lambda *_, **__: None)  # it is every test's
    keys = tmp_path / "keys.toml"
    keys.write_text(entry("read"))
    settings: Settings = live_settings(tmp_path, control__keys_file=keys, window__lookback=8)
    said = Said()
    async with running(settings) as live:
        reload = Reload(settings, lambda: settings, notifier=said, clock=CLOCK, renew_keys=live.daemon.renew_keys)
        await gives(live, "read", "1", "done")
        await gives(live, "admin", "2", "unknown_key")
        keys.write_text(entry("admin"))
        reload()
        await gives(live, "admin", "3", "done")
        await gives(live, "read", "4", "unknown_key")
        keys.write_text("[[keys]]\nid = 5\n")
        with capture_logs() as logs:
            reload()
        await gives(live, "admin", "5", "done")
    assert said.texts == ["live", "live; the keys that were read again are refused, the old ones stay"]
    assert [line["event"] for line in logs] == ["keys_refused", "settings_reloaded"]
