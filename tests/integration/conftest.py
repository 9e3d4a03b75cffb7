"""Models that are fitted once for all tests of this folder."""

from pathlib import Path

import pytest

from modelkit import fit_small, market


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small NHITS for time bars, with features and a calendar, and one for tick bars without."""
    folder, (history, _) = tmp_path_factory.mktemp("models"), market()
    return {kind: fit_small(kind, folder / kind, history) for kind in ("time", "tick")}
