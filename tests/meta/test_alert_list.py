"""Every alert has its paragraph in docs/alerts.md and every paragraph its alert; a rule raises it, and a test does."""

import re

from source import ROOT, python_files

from tickcast.alerts import ALERTS
from tickcast.loop.alert_rules import RULES
from tickcast.records import Severity

PAGE = (ROOT / "docs" / "alerts.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## ([a-z_]+)\n\n(.*?)(?=\n## |\Z)", PAGE, re.MULTILINE | re.DOTALL))


def test_every_alert_has_its_paragraph_and_every_paragraph_its_alert_in_one_order():
    assert [*SECTIONS] == [*ALERTS]
    for name, text in SECTIONS.items():
        assert 100 < len(text) < 900, name
        assert "\n\n" not in text.strip(), f"{name}: one paragraph"


def test_an_alert_says_what_it_means_and_what_to_do():
    for name, kind in ALERTS.items():
        assert kind.name == name
        assert kind.severity in Severity.__args__
        assert kind.meaning
        assert kind.remedy
        assert kind.runbook == f"docs/alerts.md#{name}"


def test_every_alert_has_a_rule_and_no_other_has():
    assert set(RULES) == set(ALERTS)


def test_every_alert_is_raised_by_a_test():
    tests = [path for path in python_files(ROOT / "tests") if path.parent.name != "meta"]
    text = "\n".join(path.read_text(encoding="utf-8") for path in tests if "alert" in path.name)
    assert not [name for name in ALERTS if f'"{name}"' not in text]
