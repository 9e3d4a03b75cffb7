"""docs/auto.md: its commands run as they stand, and its tables are those of the code."""

from pathlib import Path
from typing import get_args

import pytest

from docskit import run_commands
from tickcast.batch.tune.auto import FIRST_UNTIL, SECOND_UNTIL, SWEEP_UNTIL, Verdict
from tickcast.io.jobs.orders import AutoOrder

PAGE = (Path(__file__).parents[2] / "docs" / "auto.md").read_text(encoding="utf-8")


def test_the_page_names_every_key_of_the_order_every_verdict_and_the_shares_of_the_budget() -> None:
    assert all(f"| `{name}` |" in PAGE for name in AutoOrder.__struct_fields__)
    assert all(f"| `{verdict}` |" in PAGE for verdict in get_args(Verdict))
    assert f"| sweep | {SWEEP_UNTIL:g} |".replace("0.", ".") in PAGE
    assert f"| two searches | {FIRST_UNTIL:g} and {SECOND_UNTIL:g} |".replace("0.", ".") in PAGE


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_commands_of_the_page_end_with_a_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run_commands(PAGE, capfd)
    assert "the page is out/auto/report.html" in capfd.readouterr().out
    assert "<h1>From a history to a candidate</h1>" in (tmp_path / "out/auto/report.html").read_text()
