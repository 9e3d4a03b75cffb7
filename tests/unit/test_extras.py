"""A plugin that lacks a package of an extra names that extra; one that lacks another package is broken, and named."""

from types import SimpleNamespace

import pytest

from tickcast import plugin
from tickcast.errors import BadSettings, MissingPackage


@pytest.mark.parametrize("group", ["models", "features"])
@pytest.mark.parametrize(
    ("lacks", "error", "says"),
    [("sklearn.tree", MissingPackage, "tickcast[train]"), ("their_own", BadSettings, "cannot be imported")],
)
def test_a_plugin_that_lacks_a_package_says_what_brings_it(
    group: str, lacks: str, error: type[Exception], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load() -> None:
        raise ModuleNotFoundError(f"No module named '{lacks}'", name=lacks)

    monkeypatch.setattr(plugin, "entry_points", lambda **_: [SimpleNamespace(name="tree", load=load)])
    with pytest.raises(error, match=says.replace("[", r"\[").replace("]", r"\]")):
        plugin.find(group, "tree")
