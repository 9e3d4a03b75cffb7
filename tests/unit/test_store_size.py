"""The estimate of what a store grows by, from settings alone."""

import pytest

from storekit import store_settings
from tickcast.ui.store_size import BAR_BYTES, estimate_bytes_per_day

DAY_S = 86_400


def test_bars_of_every_symbol_are_counted_for_a_day(tmp_path):
    day = estimate_bytes_per_day(store_settings(tmp_path, bars__every_ms=5000), 100)
    assert day.bars == 100 * DAY_S // 5 * BAR_BYTES
    assert day.total == day.bars + day.forecasts + day.scores


def test_more_steps_and_levels_cost_more_and_a_stride_costs_less(tmp_path):
    plain = estimate_bytes_per_day(store_settings(tmp_path), 10)
    longer = estimate_bytes_per_day(store_settings(tmp_path, forecast__horizon=24), 10)
    strided = estimate_bytes_per_day(store_settings(tmp_path, forecast__every_bars=4), 10)
    assert longer.forecasts > plain.forecasts == 4 * strided.forecasts
    assert strided.bars == plain.bars


@pytest.mark.parametrize("model", ["none", "naive"])
def test_where_no_question_opens_or_none_is_stored_only_bars_count(tmp_path, model):
    kept = "none" if model == "naive" else "all"
    day = estimate_bytes_per_day(store_settings(tmp_path, model__default=model, store__forecasts=kept), 10)
    assert (day.forecasts, day.scores) == (0, 0)
    assert day.bars


def test_a_sample_is_one_in_so_many(tmp_path):
    whole = estimate_bytes_per_day(store_settings(tmp_path), 16)
    sample = estimate_bytes_per_day(store_settings(tmp_path, store__forecasts="sample", store__sample_every=16), 16)
    assert sample.forecasts == whole.forecasts / 16


def test_bars_that_follow_the_ticks_are_reckoned_with_the_rate_that_is_told(tmp_path):
    settings = store_settings(tmp_path, bars__kind="tick", store__bars="all")
    assert estimate_bytes_per_day(settings, 1, bars_per_s=7.0).bars == 7 * DAY_S * BAR_BYTES
    assert estimate_bytes_per_day(settings, 1).bars == DAY_S * BAR_BYTES
