"""The unit under a real systemd: booted in a container over this machine's own files, which nothing is written to."""

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from netkit import Child
from tickcast.live.commands.keys import Signer
from tickcast.settings import load
from tickcast.ui.install_units import install_units

BOOT_S = 420.0
ROOT = Path(__file__).parents[2]
TARGET = "[Unit]\nRequires=basic.target dbus.service probe.service\nAfter=basic.target dbus.service\nAllowIsolate=yes\n"
PROBE = "[Unit]\nAfter=basic.target\nDefaultDependencies=no\n[Service]\nType=oneshot\nExecStart=/bin/bash /probe.sh\n"
HIDDEN = ("tmp", "home")  # PrivateTmp, ProtectHome
DROP_IN = "[Service]\nWatchdogSec=6\nEnvironment=TICKCAST_LOG__LEVEL=info\n"
SCRIPT = """
say() { echo "$1=${*:2}" >> /probe.out; }
show() { systemctl show tickcast -p "$1" --value; }
until_shown() { for _ in $(seq 600); do [ "$(show "$1")" = "$2" ] && return; sleep 0.2; done; }

say booted yes
systemctl start tickcast; say start $?
say active "$(show ActiveState)"
say status "$(show StatusText)"
say user "$(stat -c %U /proc/$(show MainPID))"
say secret "$(stat -c %a /run/credentials/tickcast.service/mqtt-password_file)"
say store $(cd /var/lib/tickcast && ls *.duckdb)
say compiled "$(find /var/cache/tickcast/ -name 'bars.fold-*.nbc' | wc -l)"

sed -i s/^lookback.*/lookback=7/ /etc/tickcast.toml
systemctl reload tickcast; say reload $?
say reloaded "$(show StatusText)"

echo broken >> /etc/tickcast.keys.toml
systemctl reload tickcast; say keys "$(show StatusText)"

sed -i /broken/d /etc/tickcast.keys.toml
kill -STOP "$(show MainPID)"; until_shown NRestarts 1; until_shown ActiveState active
say restarted "$(show NRestarts)" "$(show ActiveState)"

systemctl stop tickcast; say stop $?
say stopped "$(show Result)" "$(show ExecMainStatus)"

sed -i s/^lookback.*/lookback=-1/ /etc/tickcast.toml
systemctl start tickcast; sleep 5
say refused "$(show ActiveState)" "$(show ExecMainStatus)" "$(show NRestarts)"
journalctl -u tickcast --no-pager >> /probe.log
sync
systemctl exit
"""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Path]:
    """The root of this machine with a layer in memory above it, into which everything is written."""
    nspawn = shutil.which("systemd-nspawn")
    if nspawn is None or not Path("/lib/systemd/systemd").exists():
        pytest.skip("boots where the machine can: apt-get install systemd systemd-container")
    if ROOT.parts[1] in HIDDEN:
        pytest.skip(f"the unit hides /{ROOT.parts[1]}: the checkout must lie elsewhere")
    if os.geteuid() != 0:
        pytest.skip("only root may boot a container")
    layer, root = tmp_path / "layer", tmp_path / "root"
    layer.mkdir()
    root.mkdir()
    mount("-t", "tmpfs", "-o", "size=2g", "tmpfs", layer)
    (layer / "upper").mkdir()
    (layer / "work").mkdir()
    try:
        options = f"lowerdir=/,upperdir={layer / 'upper'},workdir={layer / 'work'}"
        mount("-t", "overlay", "-o", options, "overlay", root)
        try:
            yield root
        finally:
            subprocess.run(["umount", "--lazy", root], check=True)
    finally:
        subprocess.run(["umount", "--lazy", layer], check=True)


def mount(*arguments: object) -> None:
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount what the container needs here: {done.stderr.strip()}")


def furnish(root: Path) -> None:
    """Units, settings and the script that puts questions to systemd from within."""
    toml, secret = root / "etc" / "tickcast.toml", root / "etc" / "tickcast.password"
    toml.write_text(
        'mqtt.password_file = "/etc/tickcast.password"\ncontrol.keys_file = "/etc/tickcast.keys.toml"\n'
        "[window]\nlookback=12\n"
    )
    toml.chmod(0o644)
    secret.write_text("word")
    secret.chmod(0o600)
    keys = root / "etc" / "tickcast.keys.toml"
    keys.write_text('[[keys]]\nid = "bot"\nalgorithm = "hmac-sha256"\nrole = "read"\nsecret_file = "tickcast.bot"\n')
    keys.chmod(0o644)
    (root / "etc" / "tickcast.bot").write_text(Signer("hmac-sha256", b"s" * 40).line())
    (root / "etc" / "tickcast.bot").chmod(0o600)
    units = root / "etc" / "systemd" / "system"
    settings = load([toml], overrides={"control.keys_file": str(keys)}, environ={})[0]
    install_units(settings, [Path("/etc/tickcast.toml")], to=units)
    for unit in units.glob("tickcast*.service"):  # what was read from outside lies elsewhere within
        unit.write_text(unit.read_text().replace(str(root), ""))
    (units / "tickcast.service.d").mkdir()
    (units / "tickcast.service.d" / "quick.conf").write_text(DROP_IN)
    (units / "probe.target").write_text(TARGET)
    (units / "probe.service").write_text(PROBE)
    (root / "probe.sh").write_text(SCRIPT)
    copy_kernels(root / "var" / "cache" / "tickcast")


def copy_kernels(cache: Path) -> None:
    """All that this checkout has compiled but the fold, in the shape of numba's cache folder: it takes a minute."""
    for compiled in (ROOT / "daemon").rglob("__pycache__/*.nb[ci]"):
        source = compiled.parent.parent
        if not compiled.name.startswith("bars.fold-"):
            folder = cache / f"{source.name}_{hashlib.sha1(str(source).encode()).hexdigest()}"
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy2(compiled, folder)


def boot(root: Path, log: Path) -> None:
    """Until the script within has ended the container."""
    command = ["systemd-nspawn", "--quiet", "--boot", f"--directory={root}", "--register=no", "--keep-unit"]
    command += [f"--machine=tickcast-{os.getpid()}", "--private-network", "--console=pipe", f"--bind-ro={ROOT}"]
    container = Child([*command, "systemd.unit=probe.target"], log)
    try:
        until = time.monotonic() + BOOT_S
        while container.is_alive and time.monotonic() < until:
            time.sleep(0.2)
    finally:
        container.kill()


@pytest.mark.slow
@pytest.mark.timeout(BOOT_S + 60)
def test_the_unit_starts_reloads_is_watched_stops_and_is_refused_under_a_real_systemd(
    machine: Path, tmp_path: Path
) -> None:
    furnish(machine)
    boot(machine, tmp_path / "log")
    out, log = machine / "probe.out", machine / "probe.log"
    if not out.exists():
        pytest.skip(f"no container boots here: {(tmp_path / 'log').read_text(errors='replace')[-2000:]}")
    told = dict(line.split("=", 1) for line in out.read_text().splitlines())
    journal = log.read_text() if log.exists() else ""
    assert int(told.pop("compiled", "0")) > 0, journal
    assert "cpuinfo" not in journal  # a closed /proc would cost onnxruntime its fast kernels
    assert told == {
        "booted": "yes",
        "start": "0",
        "active": "active",
        "status": "live: 0 ticks, 0 forecasts, 0 symbols of which 0 are cold",
        "user": "tickcast",
        "secret": "400",
        "store": "tickcast.duckdb",
        "reload": "0",
        "reloaded": "live; after a restart: window.lookback",
        "keys": "live; the keys that were read again are refused, the old ones stay; after a restart: window.lookback",
        "restarted": "1 active",
        "stop": "0",
        "stopped": "success 0",
        "refused": "failed 78 0",
    }, journal
