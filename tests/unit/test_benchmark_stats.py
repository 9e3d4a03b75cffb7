"""How benchmarks are measured and judged: a ratio fails only when its whole interval lies beyond the bar."""

import importlib.util
import sys
import threading
from pathlib import Path

import pytest

import figures

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def module(name):
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", BENCHMARKS / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded  # dataclasses look their module up
    spec.loader.exec_module(loaded)
    return loaded


stats, bench, pairs = module("stats"), module("run"), module("pairs")


class Ticking:
    """A clock that only work moves."""

    def __init__(self):
        self.now, self.order = 0, []

    def work(self, name, cost):
        def fn():
            self.order.append(name)
            self.now += cost

        return fn


def test_a_paired_ratio_is_the_cost_of_the_first_in_costs_of_the_second():
    clock = Ticking()
    ratio = stats.paired_ratio(clock.work("a", 30), clock.work("b", 10), clock=lambda: clock.now)
    assert ratio == (3.0, 3.0, 3.0)


def test_pairs_alternate_their_order_after_one_warm_up_of_each():
    clock = Ticking()
    stats.paired_ratio(clock.work("a", 1), clock.work("b", 1), pairs=3, clock=lambda: clock.now)
    assert clock.order == ["a", "b", "a", "b", "b", "a", "a", "b"]


def test_the_interval_holds_the_median_and_widens_with_the_noise():
    calm, noisy = stats.ratio_of([2.0, 2.1, 2.0, 1.9, 2.0]), stats.ratio_of([1.0, 4.0, 2.0, 0.5, 3.0])
    for ratio in (calm, noisy):
        assert ratio.low <= ratio.median <= ratio.high
    assert noisy.high - noisy.low > calm.high - calm.low


def test_the_interval_is_the_same_each_time():
    assert stats.ratio_of([1.0, 2.0, 3.0]) == stats.ratio_of([1.0, 2.0, 3.0])


def test_cpu_time_per_item_counts_work_and_not_waiting():
    def wait():
        threading.Event().wait(0.05)

    assert stats.cpu_ns_per(10, wait, runs=3) < stats.wall_ns_per(10, wait, runs=3)
    assert stats.wall_ns_per(10, wait, runs=3) >= 0.05e9 / 10


def test_the_cost_per_item_is_the_cost_of_a_call_over_its_items():
    calls = []
    stats.wall_ns_per(1, lambda: calls.append(1), runs=4)
    assert len(calls) == 5  # a warm-up and the runs


@pytest.mark.parametrize(
    ("figure", "holds"),
    [
        ({"bar": None}, None),
        ({"bar": 5.0}, True),
        ({"bar": 4.0}, False),
        ({"bar": 5.0, "better": "higher"}, True),
        ({"bar": 6.0, "better": "higher"}, False),
        ({"bar": 4.0, "low": 3.9, "high": 6.0}, True),
        ({"bar": 4.0, "low": 4.1, "high": 6.0}, False),
        ({"bar": 6.0, "better": "higher", "low": 4.0, "high": 6.1}, True),
        ({"bar": 6.0, "better": "higher", "low": 4.0, "high": 5.9}, False),
    ],
)
def test_a_figure_is_judged_by_its_bar_and_a_ratio_by_its_interval(figure, holds):
    assert stats.Figure("x", 5.0, "ns", **figure).holds is holds


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A benchmarks folder of our own, with the real stats beside what the test writes."""
    (tmp_path / "benchmarks").mkdir()
    here = tmp_path / "benchmarks"
    (here / "stats.py").write_text((BENCHMARKS / "stats.py").read_text())
    monkeypatch.setattr(bench, "HERE", here)
    monkeypatch.setattr(bench, "RESULTS", here / "results")
    monkeypatch.setattr(bench, "PAGE", here / "figures.md")
    bench.PAGE.write_text(f"words\n{figures.BEGIN}{figures.END}after\n")
    return here


SCRIPT = "from stats import Figure\n\ndef main():\n    return [Figure('cost', {value}, 'ns', bar=10.0)]\n"


def test_every_script_is_run_printed_and_saved(folder, capsys):
    (folder / "decode.py").write_text(SCRIPT.format(value=5))
    (folder / "notes.py").write_text("x = 1\n")
    assert bench.main([]) == 0
    assert "cost" in capsys.readouterr().out
    saved = (folder / "results" / "bench.json").read_text()
    assert '"script": "decode"' in saved
    assert "notes" not in saved
    page = bench.PAGE.read_text()
    assert "| cost | 5 ns |" in page
    assert page.endswith(f"{figures.END}after\n")


def test_a_figure_beyond_its_bar_or_a_script_that_fails_makes_the_run_fail(folder, capsys):
    (folder / "slow.py").write_text(SCRIPT.format(value=11))
    assert bench.main(["slow"]) == 1
    (folder / "broken.py").write_text("import sys\n\ndef main():\n    sys.exit(3)\n")
    assert bench.main(["broken"]) == 1
    out = capsys.readouterr().out
    assert "missed" in out
    assert "FAILED: exit 3" in out


def test_a_long_script_runs_by_name_only_and_its_last_result_is_printed(folder, capsys):
    (folder / "accuracy.py").write_text(SCRIPT.format(value=7))
    assert bench.main([]) == 0
    assert "accuracy" not in capsys.readouterr().out
    assert bench.main(["accuracy"]) == 0
    capsys.readouterr()
    assert bench.main([]) == 0
    assert "accuracy (last committed result)" in capsys.readouterr().out


def test_an_unknown_name_is_refused(folder):
    with pytest.raises(SystemExit):
        bench.main(["nothing"])


def test_with_no_script_yet_there_is_still_a_page_with_the_machine(folder, capsys):
    assert bench.main([]) == 0
    assert "cores" in capsys.readouterr().out


def test_the_page_of_figures_holds_the_tables_that_the_history_gives():
    page = figures.PAGE.read_text(encoding="utf-8")
    assert page.count(figures.BEGIN) == page.count(figures.END) == 1
    assert page == figures.written_into(page, figures.render()), "run `python benchmarks/figures.py`"


def test_a_bar_that_only_the_interval_reaches_is_told_as_missed(tmp_path):
    history = tmp_path / "history.jsonl"
    wide = {"name": "a ratio", "unit": "x", "bar": 3.0, "better": "higher", "low": 2.0, "high": 3.5, "note": ""}
    for value, low, high in ((2.5, 2.0, 2.9), (2.8, 2.0, 3.5), (3.1, 2.9, 3.4)):
        figures.add_to_history("2026-01-31", "some", [{**wide, "value": value, "low": low, "high": high}], history)
        told = figures.render(history)
        assert f"| {value} x [{low:g}, {high:g}] | 2026-01-31 |" in told
        assert told.count("within the noise") == (value == 2.8)
        assert told.count("**missed**") == (value < 3)
    assert "2.5 to 3.1 (3)" in told


@pytest.mark.parametrize(("better", "worse"), [("lower", 1.1), ("higher", 1 / 1.1)])
def test_another_tree_is_beside_this_one_as_a_cost_whichever_way_a_figure_is_read(better, worse):
    def run(value):
        return {"value": value, "unit": "ms", "better": better}

    slower = pairs.figure_of("x", [(run(worse * v), run(v)) for v in (10.0, 11.0, 12.0)], 1.05)
    assert (slower.value, slower.holds) == (pytest.approx(1.1), False)
    same = pairs.figure_of("x", [(run(v), run(v)) for v in (10.0, 11.0, 12.0)], 1.05)
    assert (same.value, same.holds, "10 to 12 before" in same.note) == (1.0, True, True)
