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
    run = Served(s, walk(600, 1, seed=4), chunk=50, runners=[rung("holt", s)])
    labels = labels_of(run, horizon)
    computed = page_code.figures(*labels, np.array(s.forecast.quantiles))
    (published,) = [
        row for row in run.engine.scorekeeper.accuracy(0, window="all") if (row.model, row.horizon) == ("holt", horizon)
    ]
    assert published.n == computed.pop("n") > 500
    np.testing.assert_allclose([*published.coverage.values()], computed.pop("coverage"), atol=1e-9)
    for name, value in computed.items():
        assert getattr(published, name) == pytest.approx(value, rel=1e-5, abs=1e-8), name


def labels_of(run: Served, horizon: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Truth, point, anchor and quantiles of all labels that have arrived, from bars and forecasts alone."""
    closes = np.concatenate([bars.close for outcome in run.outcomes for bars in outcome.bars])
    forecasts = run.forecasts
    rows = np.flatnonzero(forecasts.ordinal + horizon < len(closes))
    quantiles = forecasts.quantiles[rows, horizon - 1]
    return closes[forecasts.ordinal[rows] + horizon], quantiles[:, 2], forecasts.anchor[rows], quantiles
