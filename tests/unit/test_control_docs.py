"""docs/control.md: its example opens, its tables are those of the code, and each promise names a test that exists."""

import json
import re
import subprocess
import sys
from pathlib import Path

import msgspec

from tickcast.clock import SystemClock
from tickcast.errors import CommandFault
from tickcast.live.commands.arguments import ACCEPTED
from tickcast.live.commands.envelope import MOST_DEPTH, Envelope, read, verify
from tickcast.live.commands.inbox import NOTED_PER_MINUTE
from tickcast.live.commands.keys import ROLES, read_keys
from tickcast.settings.service import ControlSettings
from tickcast.ui.keygen import keygen

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "control.md").read_text(encoding="utf-8")


def test_the_program_of_the_page_makes_an_envelope_that_is_opened(tmp_path: Path) -> None:
    (program,) = re.findall(r"<!-- run -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "keys.toml").write_text(keygen("ops", role="admin", algorithm="ed25519", out=tmp_path / "ops.key"))
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    genuine = verify(
        done.stdout.strip(), read_keys(tmp_path / "keys.toml"), audiences=["fleet"], settings=ControlSettings()
    )
    order = read(genuine, now_ms=SystemClock().now_ns() // 10**6, settings=ControlSettings())
    assert (order.command, order.args) == ("forecast", {"symbols": ["BTCUSD"]})
    assert set(json.loads(done.stdout)) == set(Envelope.__struct_fields__)


def test_the_keys_file_of_the_page_is_read(tmp_path: Path) -> None:
    (text,) = re.findall(r"<!-- file: keys.toml -->\n```toml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "keys.toml").write_text(text)
    keygen("bot", role="read", algorithm="hmac-sha256", out=tmp_path / "bot.key")
    keys = read_keys(tmp_path / "keys.toml")
    assert {key.id: (key.algorithm, key.role) for key in keys.values()} == {
        "ops": ("ed25519", "admin"), "bot": ("hmac-sha256", "read"),
    }  # fmt: skip


def test_the_page_lists_each_command_with_its_role_and_its_arguments() -> None:
    keys = PAGE.split("## Keys")[1].split("\n## ")[0]
    for role in ROLES:
        (listed,) = re.findall(rf"^\| `{role}` \| (.*) \|$", keys, re.MULTILINE)
        assert set(re.findall(r"`(\w+)`", listed)) == {name for name, (_, needs) in ACCEPTED.items() if needs == role}
    table = PAGE.split("| command | arguments |\n|---|---|\n")[1].split("\n\n")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()]
    listed = {name: re.findall(r"`(\w+)`", fields) for names, fields in rows for name in re.findall(r"`(\w+)`", names)}
    wanted = {name: [f.encode_name for f in msgspec.structs.fields(kind)] for name, (kind, _) in ACCEPTED.items()}
    assert {name: sorted(fields) for name, fields in listed.items()} == {n: sorted(f) for n, f in wanted.items()}


def test_the_page_names_each_field_each_code_in_its_order_and_the_bounds() -> None:
    assert re.findall(r"^\| `(\w+)` \| .* \| (?:yes|no) \|$", PAGE, re.MULTILINE) == [
        *[fault.value for fault in CommandFault][:6], "malformed", *[fault.value for fault in CommandFault][6:],
    ]  # fmt: skip
    for field in Envelope.__struct_fields__:
        assert f"| `{field}` |" in PAGE
    assert f"more than {MOST_DEPTH} deep" in PAGE
    assert f"{NOTED_PER_MINUTE} a minute" in PAGE


def test_each_promise_names_a_test_that_exists() -> None:
    promises = PAGE.split("## What is promised")[1].split("\n## ")[0]
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", promises)
    assert len(named) >= 10
    assert not [name for name in named if f"def {name}(" not in tests]
    assert not [path for path in re.findall(r"`(tests/[\w/.]+)`", promises) if not (ROOT / path).exists()]
