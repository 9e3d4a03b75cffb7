"""Which bars are asked about, who answers, and what the forecast is called."""

import numpy as np
import pytest

from kit import T0, Served, rung, settings, walk
from tickcast.engine.core import ladder, questions
from tickcast.engine.core.scoring import price_of
from tickcast.symbols import SymbolTable

SECOND = 10**9


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"bars__every_ms": 1000, "forecast__every_bars": 3}, [False, True, False, False, False]),
        ({"bars__kind": "tick", "forecast__every_bars": 2}, [False, True, False, True, False]),
    ],
)
def test_time_bars_are_due_by_their_as_of_and_others_by_their_ordinal(
    overrides: dict[str, object], expected: list[bool]
) -> None:
    as_of = (T0 // SECOND // 3 * 3 - 1 + np.arange(5)) * SECOND
    mask = np.array([1, 1, 1, 1, 0], np.uint8)
    found = questions.due(settings(**overrides), as_of, np.arange(5), mask)
    assert found.tolist() == expected
    out = np.empty(5, np.bool_)
    questions._due(0, SECOND, 1, as_of, np.arange(5), mask, out)
    assert out.tolist() == [True] * 4 + [False]


def test_what_is_served_is_measured_in_the_scale_of_the_settings() -> None:
    ticks = walk(1500, 2, seed=3)
    found = [Served(settings(window__scale=scale), ticks, chunk=100).forecasts for scale in ("rms", "ewma", "har")]
    assert len({len(forecasts) for forecasts in found}) == 1
    rms, ewma, har = (forecasts.scale for forecasts in found)
    assert len(rms) > 30
    for other in (ewma, har):
        assert (np.abs(other / rms - 1) > 1e-3).mean() > 0.8
        assert 0.3 < np.median(other / rms) < 3
    assert (ewma != har).any()


def test_the_first_model_whose_need_is_met_answers_and_nobody_where_none_is() -> None:
    chosen = ladder.choose_rungs([(2, 97), (0, 25), (1, 2)], np.array([0, 1, 2, 24, 25, 96, 97]))
    assert chosen.tolist() == [ladder.NOBODY, ladder.NOBODY, 1, 1, 0, 0, 2]


def test_ids_are_the_same_on_every_run_whatever_code_a_symbol_got() -> None:
    s = settings()
    seeds = questions.id_seeds([rung("naive", s).card], s)
    tables = [SymbolTable(8), SymbolTable(8)]
    codes = [tables[0].code("BTC"), (tables[1].code("ETH"), tables[1].code("BTC"))[1]]
    found = []
    for table, code in zip(tables, codes, strict=True):
        column = (np.array([code], np.int32), np.array([T0]), np.array([0], np.int32))
        found.append(
            questions.make_ids(
                seeds, np.zeros(1, np.int32), table.arrays, symbol=column[0], as_of=column[1], tie=column[2]
            )
        )
    assert codes[0] != codes[1]
    assert found[0] == found[1]
    assert questions.ids is not None


def test_prices_of_moves() -> None:
    assert price_of(0, 100.0, np.log(2.0)) == pytest.approx(200.0)
    assert price_of(1, 100.0, 2.0) == price_of(2, 100.0, 2.0) == 102.0
