"""The figures in docs/scoring.md are those that are published, by the page's own code, and none is left out."""

import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from kit import Served, rung, settings, walk
from pagekit import code_of
from tickcast.records import Accuracy

PAGE = (Path(__file__).parents[2] / "docs" / "scoring.md").read_text(encoding="utf-8")
HORIZON = 3


@pytest.fixture(scope="module")
def page_code(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return code_of(PAGE, tmp_path_factory.mktemp("page"))


def test_every_field_of_the_record_is_in_the_table_and_no_other() -> None:
    rows = PAGE.split("| field | meaning |\n")[1].split("\n\n")[0].splitlines()[1:]
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert sorted(named) == sorted(Accuracy.__struct_fields__)


@pytest.mark.parametrize("horizon", [1, HORIZON])
def test_the_code_on_the_page_gives_the_published_figures(page_code: ModuleType, horizon: int) -> None:
    s = settings(
        bars__kind="tick", window__lookback=16, forecast__horizon=HORIZON, score__horizons=f"[1, {HORIZON}]",
        score__adapt_every_bars=16,
    )  # fmt: skip
    run, alone = (
        Served(s, walk(600, 1, seed=4), chunk=50, runners=[rung(kind, s) for kind in kinds])
        for kinds in (["holt", "naive"], ["naive"])
    )
    computed = page_code.figures(*labels_of(run, alone, horizon), np.array(s.forecast.quantiles))
    (published,) = [
        row for row in run.engine.scorekeeper.accuracy(0, window="all") if (row.model, row.horizon) == ("holt", horizon)
    ]
    assert published.n == computed.pop("n") > 500
    np.testing.assert_allclose([*published.coverage.values()], computed.pop("coverage"), atol=1e-9)
    outer = published.intervals["0.9"]
    for name, value in computed.pop("outer").items():
        assert getattr(outer, name) == pytest.approx(value, rel=1e-9), name
    one_step = page_code.figures(*labels_of(run, alone, 1), np.array(s.forecast.quantiles))
    assert published.mase == pytest.approx(computed.pop("missed") / one_step["missed_naive"], rel=1e-9)
    del computed["missed_naive"]
    for name, value in computed.items():
        near = 1e-5 if name in ("pinball_naive", "skill") else 1e-9  # its quantiles are read from another run
        assert getattr(published, name) == pytest.approx(value, rel=near, abs=near), name


def labels_of(run: Served, alone: Served, horizon: int) -> tuple[np.ndarray, ...]:
    """Truth, point, anchor, scale and quantiles of all labels of holt that have arrived, from bars and forecasts alone,
    and the quantiles of the naive rung where it serves `alone`."""
    closes = np.concatenate([bars.close for outcome in run.outcomes for bars in outcome.bars])
    forecasts, beside = run.forecasts, alone.forecasts
    assert (beside.ordinal == forecasts.ordinal).all()
    holt = [card.name for card in run.engine.scorekeeper._cards].index("holt")
    rows = np.flatnonzero((forecasts.ordinal + horizon < len(closes)) & (forecasts.model == holt))
    quantiles, last_value = (of.quantiles[rows, horizon - 1] for of in (forecasts, beside))
    assert len(rows) < len(forecasts)
    truth, anchor, scale = closes[forecasts.ordinal[rows] + horizon], forecasts.anchor[rows], forecasts.scale[rows]
    return truth, quantiles[:, 2], anchor, scale, quantiles, last_value
