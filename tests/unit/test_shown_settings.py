"""What `status section=settings` shows to whom."""

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from tickcast.live.commands import arguments
from tickcast.live.commands.at_once import CommandParts, Commands
from tickcast.live.commands.inbox import Context
from tickcast.loop.build import build
from tickcast.settings import load


def shown(role: str, folder: Path) -> dict[str, Any]:
    settings, _ = load(
        overrides={
            "store.path": str(folder / "s.duckdb"), "kafka.bootstrap_servers": "inside:9092", "store.keep_days": "3",
            "mqtt.url": "mqtt://inside", "bars.every_ms": "500", "symbols.groups": '{"fx" = ["EUR/*"]}',
            "runtime.folder": str(folder), "window.lookback": "8", "symbols.limit": "4",
            "topics.ticks": '["ticks", "/srv/inside"]',
        },
        environ={},
    )  # fmt: skip
    parts = CommandParts(build(settings), *[cast(Any, None)] * (len(CommandParts._fields) - 1))
    context = cast(Context, type("Asking", (), {"role": role})())
    told = asyncio.run(Commands(parts).status(arguments.Status(section="settings"), context))
    return cast(dict[str, Any], told["settings"])


@pytest.mark.parametrize("role", ["read", "admin"])
def test_paths_and_brokers_are_not_for_those_who_may_only_read(tmp_path: Path, role: str) -> None:
    settings = shown(role, tmp_path)
    assert (settings["bars"]["every_ms"], settings["store"]["keep_days"]) == (500, 3)
    assert settings["topics"]["ticks"][0] == "ticks"
    assert settings["symbols"]["groups"] == {"fx": ["EUR/*"]}
    assert [place in str(settings) for place in (str(tmp_path), "inside")] == [role == "admin"] * 2
