"""The guide as a whole: every page is in the table of contents, and no page names what does not exist."""

import argparse
import re
import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from tickcast.settings import Settings
from tickcast.ui import cli
from tickcast.ui.documents import reference

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(page for page in DOCS.glob("*.md") if page.name != "reference.md")
SETTINGS = {row.name for row in reference.setting_rows()}
EVERY_PAGE = [*PAGES, *(ROOT / f"{name}.md" for name in ("README", "SECURITY", "CONTRIBUTING", "ARCHITECTURE"))]
TOPICS = {f"tickcast.{name}" for name in (*reference.TOPIC_MEANING, *reference.OF_COMMANDS, "ticks")}
FILES = (
    ".onnx", ".parquet", ".json", ".jsonl", ".safetensors", ".duckdb", ".toml", ".py", ".csv", ".html", ".key",
    ".service", ".sock", ".sqlite", ".txt",
)  # fmt: skip
OTHERS = {  # names of other things: of Kafka, torch, an envelope, a card, an order, a program
    "cleanup.policy", "max.message.bytes", "isolation.level", "torch.save", "id.timestamp.audience.body",
    "params.epochs", "params.members",
    "metrics.classes", "metrics.members", "metrics.fit", "metrics.start", "model_params.members", "source.topic",
    "dataset.parts.train", "dataset.parts.validation", "fit.seed", "start.freeze", "start.mode",
    "start.old_share", "start.most_forgotten", "metrics.judged", "metrics.fit.old_losses",
}  # fmt: skip
(SHELL,) = (action for action in cli.parser()._actions if isinstance(action, argparse._SubParsersAction))
COMMANDS = set(SHELL.choices)


def test_every_page_is_in_the_table_of_contents_once() -> None:
    _, _, contents = (DOCS / "index.md").read_text(encoding="utf-8").partition("## All pages")
    listed = re.findall(r"\]\((\S+\.md)\)", contents)
    assert sorted(listed) == sorted(page.name for page in DOCS.glob("*.md") if page.name != "index.md")


def unknown_names(text: str) -> set[str]:
    """Dotted names in code that are no setting, file, topic, module, nor one of the few others."""
    named = set(re.findall(r"(?:`|--set )([a-z_]+(?:\.[a-z_]+)+)(?= ?[`=])", text)) - SETTINGS - OTHERS - TOPICS
    return {
        name
        for name in named
        if not name.endswith(FILES)
        and not name.startswith("tickcast.testing.")
        and not any(known.startswith(name + ".") for known in SETTINGS)
    }


def unknown_topics(text: str) -> set[str]:
    return {name for name in re.findall(r"`(tickcast\.[a-z]+)`", text) if name not in TOPICS and not is_module(name)}


def is_module(name: str) -> bool:
    place = ROOT / "daemon" / name.replace(".", "/")
    return place.is_dir() or place.with_suffix(".py").exists() or name.endswith(FILES)


def unknown_commands(text: str) -> set[str]:
    code = "\n".join([*re.findall(r"```(?:sh|\n).*?```", text, re.DOTALL), *re.findall(r"`[^`\n]+`", text)])
    return set(re.findall(r"(?:^|[`/ ])tickcast ([a-z][\w-]*)", code, re.MULTILINE)) - COMMANDS


def unknown_exit_codes(text: str) -> set[str]:
    named = re.findall(r"\b(?:[Ee]xits?|[Cc]odes?)(?: with)?(?: code)? \(?(\d+)\b", text)
    return {code for code in named if int(code) not in reference.exit_codes().values()}


def unkept_words(text: str) -> list[str]:
    """Sentences of what is to come. A page tells what there is."""
    return re.findall(
        r"[^.\n]*\b(?:reserved|nothing publishes|nobody publishes|nothing asks|nothing ends with it|not in use yet|"
        r"not yet implemented|not implemented|opens no door|coming soon)\b[^.\n]*", text, re.IGNORECASE,
    )  # fmt: skip


def bad_settings(text: str) -> list[str]:
    """What is wrong in blocks of TOML, but for files of another kind."""
    found = []
    for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL):
        tree = tomllib.loads(block)
        if not {"keys", "project", "zone"} & tree.keys():
            try:
                Settings(**tree)
            except ValidationError as error:
                found.append(str(error))
    return found


@pytest.mark.parametrize("page", EVERY_PAGE, ids=lambda page: page.stem)
def test_what_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not unknown_names(text)
    assert not unknown_topics(text)
    assert not unknown_commands(text)
    assert not unknown_exit_codes(text)
    assert not bad_settings(text)
    assert not unkept_words(text)


def test_what_does_not_exist_is_found() -> None:
    assert unknown_names("`http.bind` and `--set bars.evry_ms=1`, `bars.every_ms`, `bars`, `card.json`") == {
        "http.bind", "bars.evry_ms",
    }  # fmt: skip
    assert unknown_topics("`tickcast.rumours`, `tickcast.forecasts`, `tickcast.testing`") == {"tickcast.rumours"}
    assert unknown_commands("`tickcast tail`\n```sh\ntickcast run\n.venv/bin/tickcast top -x\n```") == {"tail", "top"}
    assert unknown_exit_codes("Code 75 is one, exit 7 and exit code 99 are none, exits with 78") == {"7", "99"}
    assert unkept_words("All is well. Code 75 is reserved; nothing ends with it yet.")
    assert bad_settings('```toml\n[http]\nbind = "x"\n```')
    assert not bad_settings("```toml\nbars.every_ms = 5\n```")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_to_a_heading_finds_it(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([\w-]+\.md)#([\w-]+)\)", page.read_text(encoding="utf-8")):
        headings = re.findall(r"^#+ (.*)$", (DOCS / target).read_text(encoding="utf-8"), re.MULTILINE)
        assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
