"""`tickcast install-units`: systemd's unit files with the paths of this machine. It starts and enables nothing."""

import sys
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from tickcast.errors import BadSettings
from tickcast.settings import Settings

UNITS = Path("/etc/systemd/system")
NAMES = ("tickcast.service", "tickcast@.service")
SECRETS = ("password_file", "key_file", "keys_file", "secret_file")
HIDDEN = ("/home", "/root", "/run/user")  # what ProtectHome= takes away


def install_units(settings: Settings, configs: Sequence[Path], *, to: Path = UNITS) -> list[Path]:
    """Write the units and say what comes next. Each secret of the settings becomes a credential of the unit."""
    configs = [config.resolve() for config in configs]
    try:
        to.mkdir(parents=True, exist_ok=True)
        for name in NAMES:
            (to / name).write_text(_filled((folder() / name).read_text(encoding="utf-8"), settings, configs))
    except OSError as error:
        raise BadSettings(f"cannot write the units to {to}: {error.strerror}", remedy="see --to") from None
    print(f"written: {', '.join(str(to / name) for name in NAMES)}")
    print("one daemon:    systemctl daemon-reload && systemctl enable --now tickcast")
    print("several slots: systemctl daemon-reload && systemctl enable --now tickcast@0 tickcast@1")
    print("look:          systemctl status tickcast; journalctl -u tickcast -f")
    return [to / name for name in NAMES]


def folder() -> Path:
    """The unit files of the installed package, or of the checkout."""
    packaged = Path(str(files("tickcast") / "systemd"))
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "systemd"


def secrets(settings: Settings) -> dict[str, Path]:
    """Setting -> file, of each secret that the settings name."""
    return {name: Path(value) for name, value in _leaves(settings.model_dump(exclude_none=True)) if _is_secret(name)}


def _filled(unit: str, settings: Settings, configs: list[Path]) -> str:
    command = [sys.executable, "-m", "tickcast.cli", "run"]
    for config in configs:
        command += ["--config", str(config)]
    words, loads = [_word(part) for part in command], []
    for setting, file in secrets(settings).items():
        name = setting.replace(".", "-")
        loads.append(f"LoadCredential={name}:{_escaped(file.resolve())}")
        words += ["--set", f"{setting}=%d/{name}"]
    lines: list[str] = []
    for line in unit.splitlines():
        if line.startswith("ExecStart="):
            slot = ["--set", "kafka.slot=%i"] if "%i" in line else []
            lines += ["ExecStart=" + " ".join([*words, *slot]), *loads]
        elif line == "ProtectHome=yes":
            lines += _home(configs)
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def _home(configs: list[Path]) -> list[str]:
    """Homes stay hidden; of what runs from there just that is seen, and only to be read."""
    ours = [Path(sys.prefix), Path(sys.base_prefix), Path(__file__).resolve().parents[2], *configs]
    needed = dict.fromkeys(str(path) for path in ours if str(path).startswith(tuple(f"{place}/" for place in HIDDEN)))
    if not needed:
        return ["ProtectHome=yes"]
    return ["ProtectHome=tmpfs", *(f"BindReadOnlyPaths={_escaped(path)}" for path in needed)]


def _is_secret(setting: str) -> bool:
    return setting.rsplit(".", 1)[-1] in SECRETS


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _escaped(path: Path | str) -> str:
    return str(path).replace("%", "%%")


def _word(text: str) -> str:
    """One word of a command line."""
    text = _escaped(text).replace("$", "$$")
    return f'"{text}"' if " " in text else text
