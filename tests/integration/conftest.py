"""Models that are fitted once for all tests of this folder, and what they are asked about."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from modelkit import Fitted, fit_small, market
from tickcast.edges.tape import write_ticks


@pytest.fixture(scope="session")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """A small NHITS for time bars, with features and a calendar, and one for tick bars without."""
    folder, (history, ticks) = tmp_path_factory.mktemp("fitted"), market()
    tape = folder / "ticks.parquet"
    write_ticks(tape, ticks)
    with ThreadPoolExecutor() as both:
        fits = {kind: both.submit(fit_small, kind, folder / kind, history) for kind in ("time", "tick")}
        models = {kind: job.result() for kind, job in fits.items()}
    return Fitted(models, history, ticks, tape)
