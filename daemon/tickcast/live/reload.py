"""A reload (SIGHUP, `systemctl reload`): settings and keys are read again. It changes what can change while ticks flow:
the log, and who may give commands.

Every other difference is named in the log and waits for a restart; settings or keys that are wrong change nothing.
"""

from collections.abc import Callable
from typing import Any

import structlog

from tickcast.clock import Clock
from tickcast.errors import BadSettings
from tickcast.io.systemd import Notifier
from tickcast.io.telemetry import set_up_logging
from tickcast.settings import Settings


class Reload:
    def __init__(
        self, settings: Settings, read_again: Callable[[], Settings], *, notifier: Notifier, clock: Clock,
        renew_keys: Callable[[], None],
    ) -> None:  # fmt: skip
        self._running = settings
        self._read_again = read_again
        self._notifier = notifier
        self._clock = clock
        self._renew_keys = renew_keys

    def __call__(self) -> None:
        self._notifier.reloading()
        log = structlog.get_logger()
        try:
            fresh = self._read_again()
        except BadSettings as refused:
            log.error("settings_refused", reason=str(refused))
            self._notifier.ready("live; the settings that were read again are refused, the old ones stay")
            return
        set_up_logging(fresh.log, clock=self._clock)
        said = self._keys_said()
        later = [key for key in differences(self._running, fresh) if not key.startswith("log.")]
        log.info("settings_reloaded", after_restart=later)
        said += [f"after a restart: {', '.join(later)}"] if later else []
        self._notifier.ready("; ".join(["live", *said]))

    def _keys_said(self) -> list[str]:
        try:
            self._renew_keys()
        except BadSettings as refused:
            structlog.get_logger().error("keys_refused", reason=str(refused))
            return ["the keys that were read again are refused, the old ones stay"]
        return []


def differences(one: Settings, other: Settings) -> list[str]:
    """Names of the settings that differ."""
    ours, theirs = _flat(one.model_dump()), _flat(other.model_dump())
    return sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return leaves
