"""The commands, the program and the queries of docs/diagnose.md run as they stand, and say what the page says."""

import re
import runpy
import shlex
from pathlib import Path

import pytest

from storekit import open_store, store_settings
from tickcast.causes import CAUSES
from tickcast.io.store.postmortems import Looked
from tickcast.ui.cli import main
from whykit import lost

PAGE = (Path(__file__).parents[2] / "docs" / "diagnose.md").read_text(encoding="utf-8")
(COMMANDS,) = re.findall(r"<!-- run -->\n```sh\n(.*?)```", PAGE, re.DOTALL)
(PROGRAM,) = re.findall(r"<!-- run -->\n```python\n(.*?)```", PAGE, re.DOTALL)
SAID = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
QUERIES = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.slow
def test_the_first_look_says_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in COMMANDS.splitlines():
        assert main(shlex.split(command)[1:]) == 0
    capfd.readouterr()
    Path("program.py").write_text(PROGRAM)
    runpy.run_path("program.py")
    first, *rows = capfd.readouterr().out.splitlines()
    assert first == SAID[0].strip()
    assert len(rows) == 9
    page = Path("why/report.html").read_text(encoding="utf-8")
    assert first in page
    assert "<h2>By regime</h2>" in page


def test_the_page_names_every_cause() -> None:
    (table,) = re.findall(r"\| cause \|.*?\n\n", PAGE, re.DOTALL)
    assert set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE)))) == set(CAUSES)


@pytest.mark.parametrize("sql", QUERIES)
async def test_a_query_of_the_page_answers(tmp_path: Path, sql: str) -> None:
    store = open_store(store_settings(tmp_path))
    await store.write(lost(1000))
    assert await store.look_back(Looked(0, 1 << 62, [], log_return=True), 1440)
    assert (await store.query(sql)).rows
    await store.close()
