"""docs/loop.md: its example runs and says what the page says, and what it lists is what there is."""

import re
from pathlib import Path

import pytest

from pagekit import code_of
from tickcast.batch.loop_replay.arms import arms_of
from tickcast.loop.actions import NEEDS, ActionKind
from tickcast.settings import load
from trainkit import without_children

PAGE = (Path(__file__).parents[2] / "docs" / "loop.md").read_text(encoding="utf-8")


def test_every_arm_is_explained_and_no_other() -> None:
    settings = load(overrides={"schedule.max_age_s": "60"}, environ={})[0]
    table = PAGE.split("| arm | its model |\n")[1].split("\n\n")[0].splitlines()[1:]
    assert [row.split("|")[1].strip() for row in table] == [arm.name for arm in arms_of(settings) if arm.adaptive]


def test_the_levels_of_autonomy_are_those_of_the_policy() -> None:
    rows = dict(re.findall(r"^\| (\d) \| (.*) \|$", PAGE, re.MULTILINE))
    assert [*rows] == ["0", "1", "2", "3"]
    assert (NEEDS[ActionKind.FIT], NEEDS[ActionKind.SHADOW], NEEDS[ActionKind.PROMOTE]) == (2, 2, 3)
    assert rows["2"] == "fits and shadows, and proposes promotions"


def without_figures(text: str) -> str:
    """Another processor may round the last digit elsewhere."""
    return re.sub(r"[-+]?\d+\.\d+%", "N%", text)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_example_says_what_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with without_children():
        code_of(PAGE, tmp_path)
    said = capsys.readouterr().out
    (shown,) = re.findall(r"says, among other things\n\n```text\n(.*?)```", PAGE, re.DOTALL)
    for line in shown.splitlines():
        assert without_figures(line) in without_figures(said)
    assert (tmp_path / "out" / "loop" / "loop.html").exists()
