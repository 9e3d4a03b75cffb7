"""`tickcast demo`, short and headless: what it says is what its store holds, and it tells when its market changes."""

import json
import re
import shlex
from pathlib import Path

import pytest

from tickcast import figures
from tickcast.batch.bar_history import read_closed
from tickcast.errors import EXIT_OK
from tickcast.settings import load
from tickcast.ui import demo
from tickcast.ui.cli import main

SECONDS = 4.0


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shorter past and a smaller fit, the change of the market within the run, and figures of so short a one."""
    monkeypatch.setattr(figures, "LEAST_BLOCKS", 0)
    monkeypatch.setattr(demo, "HISTORY_S", 600)
    monkeypatch.setattr(demo, "RATE_HZ", 100.0)
    monkeypatch.setattr(demo, "FIT", {"epochs": 1, "windows_per_epoch": 1024, "batch_size": 64, "hidden": 8})
    monkeypatch.setattr(demo, "CHANGE_S", 1.0)
    monkeypatch.setattr(demo, "set_up_logging", lambda *_, **__: None)  # its file is closed before other tests log


@pytest.mark.slow
@pytest.mark.timeout(400)  # a fit in a child of the lowest priority
def test_the_summary_of_a_headless_demo_is_what_its_store_holds(
    quick: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    arguments = ["demo", "--headless", "--seconds", str(SECONDS), "--out", str(out), "--set", "symbols.limit=64"]
    assert main(arguments) == EXIT_OK
    said = capsys.readouterr().out
    (counts,) = re.findall(r"([\d,]+) ticks, ([\d,]+) bars, ([\d,]+) forecasts, ([\d,]+) scored", said)
    ticks, bars, forecasts, scored = (int(count.replace(",", "")) for count in counts)
    assert ticks > SECONDS * demo.SPEED * demo.RATE_HZ / 4
    changed = said.index(demo.CHANGE)
    assert said.index("the market's law changes 1 s into the run") < changed < said.index("The market's law changed")

    def held(sql: str) -> list[dict[str, float]]:
        assert main(["query", sql, "--set", f"store.path={out / demo.STORE}"]) == EXIT_OK
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    past = read_closed(demo.demo_settings(load(environ={})[0], out), out / demo.HISTORY).table.num_rows
    ((stored,), (asked,), (settled,)) = (
        held(f"SELECT count(*) AS n FROM {table}") for table in ("bars", "forecasts", "scores")
    )
    assert (stored["n"], asked["n"], settled["n"]) == (past + bars, forecasts, scored)
    rows = re.findall(r"(\w+) +(\d+) s ahead: .*?, skill ([+-][\d.]+)% against.*n = ([\d,]+)\)", said)
    assert {int(step) for _, step, _, _ in rows} == {1, 2, 4, 8, demo.HORIZON}
    for model, step, skill, n in rows:
        where = f"FROM score_steps WHERE NOT void AND model = '{model}' AND step = {step}"
        (row,) = held(f"SELECT count(*) AS n, 1 - avg(loss) / avg(loss_naive) AS skill {where}")
        if int(step) < demo.HORIZON:  # a forecast is stored when its last step has settled
            assert row["n"] <= int(n.replace(",", ""))
            continue
        assert row["n"] == int(n.replace(",", ""))
        assert row["skill"] == pytest.approx(float(skill) / 100, abs=6e-4)
    query = next(line for line in said.splitlines() if line.startswith("  tickcast query"))
    assert main(shlex.split(query)[1:]) == EXIT_OK
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows
    assert set(rows[0]) == {"minute", "n", "skill", "coverage"}
