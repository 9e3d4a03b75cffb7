"""`tickcast demo`, headless and quickened: its market breaks, the daemon mends itself, and what is said is what the
store holds.
"""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from tickcast.batch.bar_history import read_closed
from tickcast.errors import EXIT_OK
from tickcast.settings import load
from tickcast.ui import demo
from tickcast.ui.cli import main

STORY = (  # what is told, in this order
    demo.BROKE, "alert drift, ", "a fit is ordered: ", "better on its hold-out", "answers in shadow", "was promoted: ",
    "It mended itself",
)  # fmt: skip


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A smaller market that runs faster; all else is as it is."""
    for name, value in {"SYMBOLS": 12, "RATE_HZ": 30.0, "SPEED": 400, "HISTORY_S": 3600, "BREAK_S": 1.5}.items():
        monkeypatch.setattr(demo, name, value)
    monkeypatch.setattr(demo, "MENDED_S", 1.5)
    monkeypatch.setattr(demo, "set_up_logging", lambda *_, **__: None)  # its file is closed before other tests log


@pytest.mark.slow
@pytest.mark.timeout(400)  # two fits in children of the lowest priority
def test_a_demo_breaks_and_mends_itself_and_says_what_its_store_holds(
    quick: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    assert main(["demo", "--headless", "--out", str(out), "--set", "symbols.limit=64"]) == EXIT_OK
    said = capsys.readouterr().out

    def held(sql: str) -> list[dict[str, Any]]:
        assert main(["query", sql, "--set", f"store.path={out / demo.STORE}"]) == EXIT_OK
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    at = [said.find(told) for told in STORY]
    assert at == sorted(at), said
    assert at[0] > 0, said
    done = [row["kind"] for row in held("SELECT kind FROM decisions WHERE event = 'done' ORDER BY sequence")]
    assert [kind for kind in done if kind in ("fit", "shadow", "promote")][-3:] == ["fit", "shadow", "promote"]
    assert held("SELECT count(*) AS n FROM jobs WHERE state = 'done'")[0]["n"] == done.count("fit")
    raised = {row["name"] for row in held("SELECT DISTINCT name FROM alerts WHERE event = 'raised'")}
    assert {name for name in raised if f"alert {name}, " in said} == raised
    assert_counts(said, out, held)
    first, *_, last = held(demo.SERVED.format(broke_ns=broke_ns()))
    assert (first["broken"], last["broken"]) == (False, True)
    assert first["version"] != last["version"]
    assert last["skill"] > 0
    for row in (first, last):
        assert f"skill {row['skill']:+.1%}, {row['coverage']:.1%} of truths" in said
    query = next(line for line in said.splitlines() if line.startswith("  tickcast query"))
    assert main(shlex.split(query)[1:]) == EXIT_OK
    assert {"time", "model", "skill", "coverage"} <= json.loads(capsys.readouterr().out.splitlines()[0]).keys()


def assert_counts(said: str, out: Path, held: Any) -> None:
    (counts,) = re.findall(r"([\d,]+) ticks, ([\d,]+) bars, ([\d,]+) forecasts, ([\d,]+) scored", said)
    _, *counted = (int(count.replace(",", "")) for count in counts)
    past = read_closed(demo.demo_settings(load(environ={})[0], out), out / demo.HISTORY).table.num_rows
    tables = "bars", "forecasts", "scores"
    bars, *others = [held(f"SELECT count(*) AS n FROM {table}")[0]["n"] for table in tables]
    assert [bars - past, *others] == counted


def broke_ns() -> int:
    return demo.Market(seed=0).start_ns + round((demo.HISTORY_S + demo.BREAK_S * demo.SPEED) * demo.SECOND_NS)
