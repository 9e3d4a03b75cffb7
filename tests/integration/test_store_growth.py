"""The estimate of a store's growth against a store that has grown."""

import numpy as np
import pytest

from storekit import SOURCE, bars, forecasts, open_store, scores, store_settings
from tickcast.io.store.store import Commit
from tickcast.ui.store_size import estimate_bytes_per_day

ROWS, UNITS = 25_000, 10  # two row groups: in a small file whole blocks outweigh rows


@pytest.mark.parametrize("which", ["bars", "forecasts", "scores"])
async def test_a_real_file_is_no_larger_than_estimated_and_not_below_a_third(tmp_path, which):
    settings = store_settings(tmp_path)
    store = open_store(settings)
    for first in range(0, ROWS * UNITS, ROWS):
        asked, noise = forecasts(first, ROWS), np.random.default_rng(first)
        settled = scores(asked)
        for column in (settled.actual, settled.point, settled.pinball):
            column += noise.normal(0, 5, column.shape)
        batch = {"bars": bars(first, ROWS), "forecasts": asked, "scores": settled}[which]
        await store.write(Commit(**{which: [batch]}, offsets={SOURCE: first + ROWS}, sources=[SOURCE]))
    await store.close()
    estimate = getattr(estimate_bytes_per_day(settings, 1), which) / 86_400 * ROWS * UNITS
    assert estimate / 3 < settings.store.path.stat().st_size < 1.2 * estimate
