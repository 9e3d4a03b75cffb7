"""docs/operations.md names each field of the health record and each event that the daemon logs."""

import re
from pathlib import Path

from tickcast import errors
from tickcast.records import Health

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


def table(head: str) -> list[str]:
    return PAGE.split(head)[1].split("\n\n")[0].splitlines()[1:]


def first_cells(head: str) -> list[str]:
    return [name for row in table(head) for name in re.findall(r"`(\w+)`", row.split("|")[1])]


def test_every_field_of_health_is_in_the_table_and_no_other() -> None:
    assert sorted(first_cells("| field | meaning |\n")) == sorted(Health.__struct_fields__)


def test_every_logged_event_is_in_the_table_and_no_other() -> None:
    sources = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "daemon").rglob("*.py"))
    logged = set(re.findall(r"(?:log(?:ger\(\))?\.(?:debug|info|warning|error)|_note)\(\s*\"(\w+)\"", sources))
    assert set(first_cells("| event | says |\n")) == logged


def test_every_exit_code_is_named() -> None:
    codes = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)} == codes
