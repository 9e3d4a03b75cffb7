"""The guide as a whole: every page is in the table of contents, and no page names a setting that does not exist."""

import re
from pathlib import Path

import pytest

from tickcast.settings import Settings
from tickcast_desk import reference

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(page for page in DOCS.glob("*.md") if page.name != "reference.md")
SETTINGS = {row.name for row in reference.setting_rows()}
SECTIONS = set(Settings.model_fields)
FILES = (".onnx", ".parquet", ".json", ".safetensors", ".duckdb")  # `model.onnx` is no setting


def test_every_page_is_in_the_table_of_contents_once() -> None:
    listed = re.findall(r"\]\((\S+\.md)\)", (DOCS / "index.md").read_text(encoding="utf-8"))
    assert sorted(listed) == sorted(page.name for page in DOCS.glob("*.md") if page.name != "index.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_setting_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"(?:`|--set )([a-z_]+(?:\.[a-z_]+)+)(?= ?[`=])", text))
    unknown = {name for name in named if name.split(".")[0] in SECTIONS and name not in SETTINGS}
    unknown = {name for name in unknown if not name.endswith(FILES)}
    assert not {name for name in unknown if not any(known.startswith(name + ".") for known in SETTINGS)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_to_a_heading_finds_it(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([\w-]+\.md)#([\w-]+)\)", page.read_text(encoding="utf-8")):
        headings = re.findall(r"^#+ (.*)$", (DOCS / target).read_text(encoding="utf-8"), re.MULTILINE)
        assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
