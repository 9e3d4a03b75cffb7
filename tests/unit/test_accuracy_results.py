"""The accuracy tables: what was fitted is not fitted again, validation chooses, and the page says what is there."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import accuracy
import accuracy_tables
from accuracy_cases import PAPERS, REPEAT_LAST, SEEDED, SEEDS, SETTINGS, Case, first_cases, seeded_cases
from accuracy_data import TABLES, Table
from accuracy_results import Row, all_cases, choose, chosen_rows, current, is_there, keep, order_fields, read_table
from tickcast.io.jobs import worker
from tickcast.io.jobs.folder import BARS, RESULT, Result, write_whole
from trainkit import autoregressive, job, series

KEY = ("ettm2", 96)


def case_of(model: str, setting: str, seed: int = 1) -> Case:
    found = [
        case for case in first_cases() if (case.data, case.horizon, case.model, case.setting) == (*KEY, model, setting)
    ]
    return found[0]._replace(seed=seed, order=msgspec.structs.replace(found[0].order, seed=seed))


def row_of(case: Case, **over: Any) -> Row:
    numbers = {name: 1.0 for name, kind in Row.__annotations__.items() if kind in (float, "float")}
    counts = {name: 1 for name, kind in Row.__annotations__.items() if kind in (int, "int")}
    known = {
        "name": case.name, "data": case.data, "horizon": case.horizon, "model": case.model, "setting": case.setting,
        "seed": case.seed, "fold": case.fold, "order": order_fields(case.order), "lookback": case.order.lookback,
        "status": "done", "dataset_hash": "",
    }  # fmt: skip
    return Row(**{**numbers, **counts, **known, **over})


def test_every_fit_has_a_name_and_an_order_of_its_own():
    cases = all_cases()
    assert len({case.name for case in cases}) == len(cases)
    assert len({(case.table, case.fold, case.order.digest) for case in cases}) == len(cases)
    assert len(seeded_cases(choose())) == (len(SEEDS) - 1) * len(SEEDED) * len(SETTINGS)


def test_a_row_is_there_for_its_order_alone_and_takes_the_place_of_an_older_one(tmp_path):
    case = case_of("nhits", "480")
    assert not is_there(case, tmp_path)
    keep(case, row_of(case, mse=2.0), tmp_path)
    keep(case, row_of(case, mse=3.0), tmp_path)
    other = case_of("nhits", "480-coarse")
    keep(other, row_of(other), tmp_path)
    assert [row.mse for row in current(case.table, [case], tmp_path)] == [3.0]
    assert set(read_table(case.table, tmp_path)) == {case.name, other.name}
    changed = case._replace(order=msgspec.structs.replace(case.order, epochs=11))
    assert not is_there(changed, tmp_path)


def test_the_error_on_the_validation_part_chooses_and_that_on_the_test_part_does_not(tmp_path):
    assert choose(tmp_path)[KEY, "nhits"] == next(iter(SETTINGS[KEY]["nhits"]))
    for setting, validation, test in (("480", 0.3, 0.1), ("480-coarse", 0.2, 0.5), ("960-coarse", 0.4, 0.2)):
        case = case_of("nhits", setting)
        keep(case, row_of(case, validation_mse=validation, mse=test), tmp_path)
    assert choose(tmp_path)[KEY, "nhits"] == "480-coarse"
    second = case_of("nhits", "480-coarse", seed=2)
    keep(second, row_of(second, mse=0.7), tmp_path)
    assert [row.mse for row in chosen_rows("ettm2-96", tmp_path)["nhits"]] == [0.5, 0.7]
    tables = accuracy_tables.render(tmp_path)
    assert "0.600 / 1.000 (2)" in tables
    assert tables.count("| yes |") == 1


def test_the_page_holds_the_tables_that_the_results_give():
    page = accuracy_tables.PAGE.read_text(encoding="utf-8")
    assert page.count(accuracy_tables.BEGIN) == page.count(accuracy_tables.END) == 1
    wanted = accuracy_tables.written_into(page, accuracy_tables.render())
    assert page == wanted, "run `python benchmarks/accuracy_tables.py`"


def test_the_tables_replace_what_stood_between_the_marks_and_nothing_else():
    begin, end = accuracy_tables.BEGIN, accuracy_tables.END
    page = f"above\n{begin}old\n{end}below\n"
    assert accuracy_tables.written_into(page, "new\n") == f"above\n{begin}new\n{end}below\n"


def in_this_process(folder: Path) -> Result:
    """As the child does, without the seconds that a process takes to start."""
    result = worker.work(folder)
    write_whole(folder / RESULT, msgspec.json.encode(result))
    return result


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    """A fit of seconds instead of the literature's, with results in a folder of its own."""
    monkeypatch.setattr(accuracy, "JOBS", tmp_path / "jobs")
    monkeypatch.setattr("accuracy_results.RESULTS", tmp_path / "results")
    close = 10 + autoregressive(600, seed=1)
    monkeypatch.setitem(TABLES, "small", Table("", 1, 420, 480, 600))
    monkeypatch.setattr("accuracy_data._series", lambda _: {"A": close})
    frames = [series("A", close)]
    order = job(tmp_path / "given", frames, split="paper", transform="level", epochs=2)
    case = Case("small", 4, "nhits", "", 1, 0, order)
    monkeypatch.setattr(accuracy, "first_cases", lambda: [case])
    monkeypatch.setattr(accuracy, "seeded_cases", lambda _: [])
    monkeypatch.setattr(accuracy, "all_cases", lambda: [case])
    monkeypatch.setattr(accuracy, "write_bars", lambda folder, data, fold: frames[0].write_parquet(folder / BARS))
    return case


@pytest.mark.slow
def test_a_fit_is_run_checked_against_last_value_and_not_run_again(small, capsys, monkeypatch):
    monkeypatch.setattr(accuracy, "trained", in_this_process)
    assert accuracy.run([]) == 0
    (row,) = read_table("small-4").values()
    assert "1 of 1 small-4 nhits seed 1: MSE" in capsys.readouterr().out
    assert row.windows == 120 - 4 + 1
    assert 0 < row.mse < np.inf
    assert not list(accuracy.JOBS.iterdir()), "a job folder goes when its row is kept"
    assert accuracy.run([]) == 0
    assert "there" in capsys.readouterr().out
    assert accuracy.run(["--only", "small", "other"]) == 0
    assert not capsys.readouterr().out
    accuracy.check_windows(small, row.mse_naive, row.mae_naive)
    with pytest.raises(AssertionError, match="repeat-last"):
        accuracy.check_windows(small, row.mse_naive + 1e-4, row.mae_naive)


def test_a_fit_that_fails_is_told_and_tried_again(small, capsys, monkeypatch):
    monkeypatch.setattr(accuracy, "trained", in_this_process)
    broken = small._replace(order=msgspec.structs.replace(small.order, lookback=590))
    monkeypatch.setattr(accuracy, "first_cases", lambda: [broken])
    assert accuracy.run([]) == 1
    assert "FAILED: the fit ended as" in capsys.readouterr().out
    assert not read_table("small-4")
    monkeypatch.setattr(accuracy, "first_cases", lambda: [small])
    assert accuracy.run(["--list"]) == 0
    assert "missing" in capsys.readouterr().out


@pytest.mark.slow
def test_a_combination_has_its_members_fitted_and_no_folder_stays(small, monkeypatch):
    monkeypatch.setattr(accuracy, "trained", in_this_process)
    orders = (msgspec.structs.replace(small.order, kind=kind, model_params={}) for kind in ("ridge", "ensemble"))
    ridge, ensemble = (small._replace(model=order.kind, order=order) for order in orders)
    row = accuracy.fit(ensemble._replace(members=(small, ridge)))
    assert row.order == order_fields(ensemble.order)
    assert not list(accuracy.JOBS.iterdir())
    alone = [accuracy.fit(case) for case in (small, ridge)]
    assert row.parameters == sum(one.parameters for one in alone)
    assert row.mse < np.mean([one.mse for one in alone]), "squared errors are convex and equal weights the default"


def test_the_bar_of_a_figure_is_three_percent_beyond_the_paper(tmp_path, monkeypatch):
    monkeypatch.setattr("accuracy_results.RESULTS", tmp_path)
    assert not accuracy.main()
    case = case_of("nhits", "480")
    for mse, holds in ((0.18, True), (0.19, False)):
        keep(case, row_of(case, mse=mse))
        (figure,) = accuracy.main()
        assert (figure.value, figure.holds) == (mse, holds)
    assert PAPERS[KEY][REPEAT_LAST][0] == 0.266
