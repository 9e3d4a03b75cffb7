"""The docs name what exists, settings to record fields, and the pages that are made from code match the code."""

import argparse
import re
import tomllib
from itertools import pairwise

from source import DAEMON, ROOT

from tickcast import errors
from tickcast.settings import Settings
from tickcast.ui import cli
from tickcast.ui.documents import reference

GUIDE = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
HAND_WRITTEN = [page for page in GUIDE if page.name != "reference.md"]


def text_of(pages):
    return "\n".join(page.read_text(encoding="utf-8") for page in pages)


def unnamed(names, pages):
    """Those of `names` that no page spells as code."""
    text = text_of(pages)
    return sorted(name for name in names if not re.search(rf"(?<![\w.]){re.escape(name)}(?![\w])", text))


def test_the_reference_page_is_what_the_code_renders():
    page = ROOT / "docs" / "reference.md"
    assert page.read_text(encoding="utf-8") == reference.render(), "run `make docs`"


def test_the_file_of_defaults_is_what_the_code_renders():
    file = ROOT / "config" / "default.toml"
    assert file.read_text(encoding="utf-8") == reference.render_defaults(), "run `make docs`"


def test_the_file_of_defaults_holds_each_key_of_the_code_with_its_value_and_no_other():
    text = (ROOT / "config" / "default.toml").read_text(encoding="utf-8")
    written = tomllib.loads(text)
    assert Settings(**written) == Settings()
    off = set()

    def without_what_is_off(keys):
        off.update(key for key, value in keys.items() if value is None)
        kept = {key: value for key, value in keys.items() if value is not None}
        return {key: without_what_is_off(value) if isinstance(value, dict) else value for key, value in kept.items()}

    assert written == without_what_is_off(Settings().model_dump(mode="json"))
    assert off
    for key in off:
        assert re.search(rf"^# {key} =$", text, re.MULTILINE), f"{key} is off: show it commented out"


def test_every_key_in_the_file_of_defaults_has_a_comment_above_it():
    lines = (ROOT / "config" / "default.toml").read_text(encoding="utf-8").splitlines()
    assert not [line for above, line in pairwise(lines) if re.match(r"\w+ = ", line) and not above.startswith("#")]


def test_every_setting_says_what_it_means():
    assert not [row.name for row in reference.setting_rows() if not row.meaning and ".NAME." not in row.name]


def test_every_setting_is_named_in_the_docs():
    assert not unnamed([row.name for row in reference.setting_rows()], GUIDE)


def test_every_reason_quality_flag_exit_code_and_error_code_is_named_in_the_docs():
    names = [f"`{member.name.lower()}`" for member in (*errors.Reason, *errors.Quality)]
    names += [f"`{kind.code}`" for kind in reference.error_types()]
    names += [f"| {code} | `{name}`" for name, code in reference.exit_codes().items()]
    text = text_of(GUIDE)
    assert not [name for name in names if name not in text]


def test_every_record_and_each_of_its_fields_is_named_in_the_docs():
    text = text_of(GUIDE)
    for record in reference.record_types():
        assert f"### {record.__name__}\n" in text
        section = text.split(f"### {record.__name__}\n", 1)[1].split("\n#", 1)[0]
        assert not [field for field in record.__struct_fields__ if f"`{field}`" not in section]


def test_every_meaning_belongs_to_a_reason_flag_or_exit_code_that_exists():
    assert set(reference.REASON_MEANING) == set(errors.Reason)
    assert set(reference.QUALITY_MEANING) == set(errors.Quality)
    assert set(reference.EXIT_MEANING) == set(reference.exit_codes())


def test_no_example_file_of_settings_names_one_that_does_not_exist():
    files = sorted((ROOT / "config").glob("*.toml"))
    assert {file.name for file in files} >= {"default.toml", "local.toml", "production.toml"}
    for file in files:
        Settings(**tomllib.loads(file.read_text(encoding="utf-8")))


def commands():
    """Command name -> the options that are its own."""
    (subparsers,) = (action for action in cli.parser()._actions if isinstance(action, argparse._SubParsersAction))
    shared = {"--help", "-h", "--config", "--set"}
    return {
        name: {option for action in parser._actions for option in action.option_strings} - shared
        for name, parser in subparsers.choices.items()
    }


def test_every_command_and_each_of_its_options_is_named_in_its_section_of_the_guide():
    guide = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## tickcast ([\w-]+)\n(.*?)(?=^## |\Z)", guide, re.MULTILINE | re.DOTALL))
    found = commands()
    assert set(sections) == set(found)
    assert not [(name, option) for name, options in found.items() for option in options if option not in sections[name]]


def test_every_topic_that_the_daemon_writes_is_named_in_the_docs():
    app = "\n".join(path.read_text(encoding="utf-8") for path in (DAEMON / "live").rglob("*.py"))
    written = set(re.findall(r"\.publish\(\"(\w+)\"", app))
    written |= {
        name
        for names in re.findall(r"prefix \+ name for name in \(([^)]*)\)", app)
        for name in re.findall(r"\w+", names)
    }
    assert written == set(reference.TOPIC_MEANING)
    assert not unnamed([f"tickcast.{name}" for name in written], GUIDE)


def test_every_link_between_pages_leads_somewhere():
    broken = []
    for page in [*GUIDE, *ROOT.glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert not broken


def test_a_name_that_no_page_holds_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("`bars.every_ms` and `store.path`")
    assert unnamed(["bars.every_ms", "bars.every", "store.paths", "path"], [page]) == [
        "bars.every",
        "path",
        "store.paths",
    ]
