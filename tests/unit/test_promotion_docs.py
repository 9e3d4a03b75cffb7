"""The example of docs/promotion.md prints what the page shows, and its tables are of what exists."""

import re
from pathlib import Path

import pytest

from pagekit import code_of
from tickcast.engine.core import contest
from tickcast.engine.core.contest import Evidence
from tickcast.loop.actions import NEEDS, ActionKind
from tickcast.settings.schedule import ScheduleSettings

PAGE = (Path(__file__).parents[2] / "docs" / "promotion.md").read_text(encoding="utf-8")


def test_the_example_prints_what_the_page_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code_of(PAGE, tmp_path)
    (shown,) = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    assert capsys.readouterr().out == shown
    assert "better after" in shown


def test_every_piece_of_evidence_is_in_the_table_and_no_other() -> None:
    rows = PAGE.split("| evidence | meaning |\n")[1].split("\n\n")[0].splitlines()[1:]
    assert [name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])] == [*Evidence._fields]


def test_every_setting_of_the_schedule_is_explained() -> None:
    assert not [name for name in ScheduleSettings.model_fields if f"`schedule.{name}`" not in PAGE]


def test_the_levels_of_autonomy_are_those_of_the_policy() -> None:
    levels = re.findall(r"^\| (\d) \| (\w+) \| (\w+) \|$", PAGE, re.MULTILINE)
    for level, *said in levels:
        for needs, word in zip((NEEDS[ActionKind.FIT], NEEDS[ActionKind.PROMOTE]), said, strict=True):
            assert word == ("nothing" if level == "0" else "proposed" if int(level) < needs else "done")
    assert {NEEDS[kind] for kind in (ActionKind.FIT, ActionKind.OPTIMIZE, ActionKind.SHADOW)} == {2}
    assert {NEEDS[kind] for kind in (ActionKind.PROMOTE, ActionKind.ROLLBACK, ActionKind.STEP_DOWN)} == {3}
    assert len(levels) == 4


def test_the_numbers_of_the_page_are_those_of_the_code() -> None:
    assert f"{contest.MOST_CORRELATION:g}" in PAGE
    assert f"fewer than {contest.LEAST_BLOCKS} such blocks" in PAGE
    assert (contest.BOUND, contest.ALPHA, len(contest.STAKES)) == (3.0, 0.05, 24)
    assert [f"{100 * contest.spent_alpha(k):.2g} %" for k in (1, 2, 3)] == ["2.5 %", "0.83 %", "0.42 %"]
    assert "2.5 %, 0.83 %, 0.42 %" in PAGE
