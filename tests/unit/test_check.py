"""`tickcast check`: every value with its origin, secrets masked, costs estimated, and what would not fit refused."""

import io

import pytest
from rich.console import Console

from tickcast.errors import BadSettings
from tickcast.settings import load
from tickcast.ui.check import explain, readable, refuse_too_large, render
from tickcast.ui.documents.reference import setting_rows


def explained(overrides=None, files=()):
    settings, origins = load(list(files), overrides, {})
    return {name: (value, origin) for name, value, origin in explain(settings, origins)}


def test_every_setting_is_explained():
    in_code = {row.name for row in setting_rows() if ".NAME" not in row.name and "[]" not in row.name}
    assert set(explained()) == in_code


def test_each_value_names_the_layer_that_it_came_from(tmp_path):
    file = tmp_path / "own.toml"
    file.write_text('[bars]\nevery_ms = 5\n[[features.set]]\nkind = "rsi"\nperiod = 14')
    rows = explained({"bars.kind": "tick"}, [file])
    assert rows["bars.every_ms"] == (5, str(file))
    assert rows["bars.kind"] == ("tick", "command line")
    assert rows["bars.every_ticks"] == (1, "default")
    assert rows["features.set"] == ([{"kind": "rsi", "normalization": "none", "period": 14}], str(file))


def test_a_table_of_topics_is_explained_key_by_key(tmp_path):
    file = tmp_path / "own.toml"
    file.write_text('[codec.topics."a.b"]\npreset = "kraken-trade"')
    assert explained(files=[file])["codec.topics.a.b.preset"] == ("kraken-trade", str(file))


def test_a_password_inside_an_address_is_masked():
    assert explained({"topics.prefix": "http://ann:s3cret@host:80"})["topics.prefix"][0] == "http://ann:***@host:80"


def test_state_above_the_bound_is_refused_with_a_remedy():
    settings, _ = load(None, {"runtime.memory_bytes": "1000"}, {})
    refuse_too_large(settings, state_bytes=1000)
    with pytest.raises(BadSettings, match=r"1\.0 kB.*lower symbols\.limit"):
        refuse_too_large(settings, state_bytes=1001)


@pytest.mark.parametrize("kind", ["time", "tick"])
def test_the_page_shows_values_origins_and_costs(kind):
    settings, origins = load(None, {"bars.kind": kind}, {})
    console = Console(file=io.StringIO(), width=160)
    render(settings, origins, state_bytes=5_000_000, console=console)
    text = console.file.getvalue()
    assert "bars.kind" in text
    assert "command line" in text
    assert "5.0 MB of 8.6 GB allowed" in text
    assert "written per day" in text


def test_what_is_at_its_default_can_be_left_out():
    settings, origins = load(None, {"bars.kind": "tick"}, {})
    console = Console(file=io.StringIO(), width=160)
    render(settings, origins, state_bytes=5_000_000, console=console, changed=True)
    text = console.file.getvalue()
    assert "bars.kind" in text
    assert "bars.every_ms" not in text


def test_sizes_are_readable():
    assert [readable(n) for n in (0, 999, 1500, 2.5e6, 3e9, 4e12)] == [
        "0.0 B", "999.0 B", "1.5 kB", "2.5 MB", "3.0 GB", "4.0 TB",
    ]  # fmt: skip
