"""Settings of the alerts: how often they are repeated, where they begin, and whom else they are told."""

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from tickcast.settings.section import Natural, Positive, Section

Share = Annotated[float, Field(ge=0, le=1)]


class AlertSettings(Section):
    repeat_every_s: Annotated[int, Field(gt=0, le=86_400)] = 3600
    """An alert that lasts is said again this often."""
    quiet_s: Natural = 60
    """An alert ends when what raised it has not been so for this long."""
    silent_s: Natural = 300
    """A partition that brings nothing for this long, and for three time bars, is silent; 0 = never."""
    behind_s: Annotated[float, Field(gt=0)] = 60.0
    """Age of what is read, while more waits, from which the source is behind."""
    bad_share: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Share of the ticks that are refused for one reason, or of the forecasts that a model failed at, from which that
    is an alert."""
    disk_free_share: Share = 0.05
    """Free share of a disk below which it is nearly full; 0 = never."""
    memory_share: Annotated[float, Field(gt=0)] = 0.9
    """Share of the memory that the process may take (its control group's, else the machine's) from which it is high."""
    loop_lag_ms: Annotated[float, Field(ge=0)] = 250.0
    """Lateness of the event loop, p99 of the last minute, from which the machine is overloaded; 0 = never."""
    least_labels: Positive = 500
    """Settled forecasts of a model, group and step, below which its skill and coverage raise nothing."""
    skill_below: Annotated[float, Field(le=1)] = -0.02
    """Rolling skill against last value below which that is an alert."""
    coverage_off: Share = 0.05
    """How far the rolling coverage of the outer band may be from what it says."""
    webhook: str = ""
    """URL that each alert is sent to as JSON: https, or http on this machine. `{token}` in it stands for what
    `webhook_token_file` holds."""
    webhook_token_file: Path | None = None
    """File of a secret: put in the place of `{token}`, and where there is none sent as a bearer token."""
    command: list[str] = []
    """Program and arguments that are run for each alert, which it reads as JSON from its standard input."""
    hook_timeout_s: Annotated[float, Field(gt=0, le=600)] = 10.0
    """Time that webhook and command have for one alert."""

    @model_validator(mode="after")
    def _can_be_sent(self) -> Self:
        if self.webhook:
            _refuse_unsafe(self.webhook)
        elif self.webhook_token_file:
            raise ValueError("webhook_token_file needs alerts.webhook")
        if self.command and not self.command[0]:
            raise ValueError("command begins with a program")
        return self


def _refuse_unsafe(webhook: str) -> None:
    url = urlsplit(webhook)
    if url.scheme not in ("http", "https") or not url.hostname or not webhook.isascii() or not webhook.isprintable():
        raise ValueError("webhook is no http or https URL")
    _ = url.port  # ValueError where it is none
    if " " in webhook or "{token}" in url.netloc:
        raise ValueError("webhook holds a space, or a token in the name of its host")
    if url.username or url.password:
        raise ValueError("webhook holds a user: use webhook_token_file")
    if url.scheme == "http" and not _is_here(url.hostname):
        raise ValueError("webhook by http leaves this machine: use https")


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
