"""docs/features.md: its example plugin works as it stands, and its table says what the code says."""

import inspect
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

from docskit import install
from learntkit import LEARNT
from tickcast import plugin
from tickcast.engine.core.features import FeatureSet
from tickcast.settings import Settings
from tickcast.testing import history

PAGE = (Path(__file__).parents[2] / "docs" / "features.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
TOML = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
LEARNT_ROWS = {
    cells[0]: cells[1:] for cells in re.findall(r"^\| `(\w+)` \| (`.*?`) \| (.*?`.*?`.*?) \| (.*?) \|$", PAGE, re.M)
}
ROWS = {cells[0]: cells[1:] for cells in re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \| (\d+) \| (.*?) \|$", PAGE, re.M)}


@pytest.fixture
def installed(tmp_path, monkeypatch):
    plug_in, check = PYTHON
    install(tmp_path / "site", {"close_within_range": plug_in, "check_of_example": check}, TOML[2])
    monkeypatch.syspath_prepend(tmp_path / "site")


@pytest.mark.usefixtures("installed")
def test_the_example_plugin_passes_its_own_test_and_serves():
    import check_of_example  # type: ignore[import-not-found]

    check_of_example.test_it_holds_the_contract()
    entries = Settings(**tomllib.loads(TOML[3])).features.set
    bars = history([9], np.random.default_rng(0))
    first, ordinal = np.zeros(1, np.int64), np.array([8])
    values = FeatureSet(entries, "log_return").compute(bars, first.astype(np.int32), ordinal, first)
    expected = ((bars.close - bars.low) / (bars.high - bars.low))[-5:].mean()
    assert values[0, 1] == pytest.approx(expected)


def test_the_settings_at_the_top_build_what_they_say():
    built = FeatureSet(Settings(**tomllib.loads(TOML[0])).features.set, "log_return")
    assert built.names == ["target", "ema_12", "lag_1", "lag_2", "lag_7", "lag_14", "rolling_std_48_log_return"]
    assert built.specs[0].normalization == "zscore"


def test_the_entry_that_is_shown_as_learnt_builds_what_it_says():
    built = FeatureSet(Settings(**tomllib.loads(TOML[1])).features.set, "log_return")
    assert [re.sub("_[0-9a-f]{6}_", "_", name) for name in built.names[1:]] == ["regime_32_1", "regime_32_2"]


def test_the_table_has_every_kind_of_ours():
    ours = {
        name for name in plugin.names("features") if plugin.find("features", name).__module__.startswith("tickcast_")
    }
    assert set(ROWS) == ours - set(LEARNT)


def test_the_table_of_learnt_kinds_names_what_is_learnt_and_the_channels():
    assert set(LEARNT_ROWS) - set(ROWS) == set(LEARNT)
    for kind, params in LEARNT.items():
        parameters, channels, _ = LEARNT_ROWS[kind]
        assert set(re.findall(r"`(\w+)`", parameters)) == set(params) - {"window", "learnt_to_ns"}
        feature = plugin.find("features", kind)(**params)
        for said in re.findall(r"`(\S+)`", channels):
            form = re.escape(said).replace("48", r"\d+").replace("1f0c3a", "[0-9a-f]{6}")
            assert any(re.fullmatch(form, name) for name in feature.names)


@pytest.mark.parametrize("kind", ROWS)
def test_a_row_of_the_table_says_what_the_code_says(kind):
    parameters, channels, lookback, _ = ROWS[kind]
    factory = plugin.find("features", kind)
    stated = dict(re.findall(r"`(\w+) = (.*?)`", parameters))
    defaults = {name: p.default for name, p in inspect.signature(factory).parameters.items()}
    assert set(stated) == set(defaults)
    for name, default in defaults.items():
        default = list(default) if isinstance(default, tuple) else default
        assert default is None or tomllib.loads(f"x = {stated[name]}")["x"] == default
    feature = factory()
    assert int(lookback) == feature.lookback
    named = re.findall(r"`(\S+)`", channels)
    assert set(named) <= set(feature.names)
    assert (named[0], named[-1]) == (feature.names[0], feature.names[-1])
