"""`tickcast install-units`: systemd's unit files with the paths of this machine. It starts and enables nothing."""

import stat
import sys
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from tickcast.batch.out_folder import claim_file
from tickcast.errors import BadSettings
from tickcast.live.commands.keys import SETTING, secret_files
from tickcast.settings import Settings

UNITS = Path("/etc/systemd/system")
NAMES = ("tickcast.service", "tickcast@.service")
MADE_BY = "tickcast install-units"  # stands in every unit of ours
SECRETS = ("password_file", "key_file", "secret_file", "webhook_token_file")
HIDDEN = ("/home", "/root", "/run/user")  # what ProtectHome= takes away


def install_units(settings: Settings, configs: Sequence[Path], *, to: Path = UNITS) -> list[Path]:
    """Write the units and say what comes next. Each secret of the settings becomes a credential of the unit."""
    configs = [config.resolve() for config in configs]
    for name in NAMES:
        claim_file(to / name, is_ours=lambda path: MADE_BY in path.read_text(encoding="utf-8", errors="replace"))
    try:
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
    return packaged if packaged.is_dir() else Path(__file__).parents[3] / "systemd"


def secrets(settings: Settings) -> dict[str, Path]:
    """Setting -> file, of each secret that the settings name."""
    return {name: Path(value) for name, value in _leaves(settings.model_dump(exclude_none=True)) if _is_secret(name)}


def _filled(unit: str, settings: Settings, configs: list[Path]) -> str:
    command = [sys.executable, "-m", "tickcast", "run"]
    for config in configs:
        command += ["--config", str(config)]
    words, loads = [_word(part) for part in command], []
    for setting, file in secrets(settings).items():
        name = setting.replace(".", "-")
        loads.append(f"LoadCredential={name}:{_escaped(file.resolve())}")
        words += ["--set", f"{setting}=%d/{name}"]
    keys = settings.control.keys_file
    if keys is not None:
        words += ["--set", _word(f"{SETTING}={keys.resolve()}")]
        if names := _secrets_of_keys(keys):
            loads += [f"LoadCredential={name}:{_escaped((keys.parent / name).resolve())}" for name in names]
            words += ["--set", "control.secrets_folder=%d"]
    lines: list[str] = []
    for line in unit.splitlines():
        if line.startswith("ExecStart="):
            slot = ["--set", "kafka.slot=%i"] if "%i" in line else []
            lines += ["ExecStart=" + " ".join([*words, *slot]), *loads]
        elif line == "ProtectHome=yes":
            lines += _home([*configs, *([keys.resolve()] if keys else [])])
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def _secrets_of_keys(keys: Path) -> list[str]:
    """A credential is copied at the start: what says whose keys are good is none, so that a reload reads it anew."""
    if not keys.stat().st_mode & stat.S_IROTH:
        raise BadSettings(
            f"the user of the units cannot read {SETTING} {keys}", remedy=f"it holds no secret: chmod o+r {keys}"
        )
    names = list(dict.fromkeys(secret_files(keys)))
    for name in names:
        if "/" in name or ":" in name:
            raise BadSettings(
                f"{SETTING} {keys}: '{name}' is no credential's name", remedy="put it beside the keys file"
            )
    return names


def _home(configs: list[Path]) -> list[str]:
    """Homes stay hidden; of what runs from there just that is seen, and only to be read."""
    ours = [Path(sys.prefix), Path(sys.base_prefix), Path(__file__).resolve().parents[3], *configs]
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
