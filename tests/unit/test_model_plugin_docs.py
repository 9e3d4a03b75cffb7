"""docs/model_plugin.md: the net of the page is installed as a package, passes its own test, fits and replays."""

import re
from pathlib import Path

import pytest

from docskit import install, run_commands
from tickcast.engine.inference.model_folder import read_card

PAGE = (Path(__file__).parents[2] / "docs" / "model_plugin.md").read_text(encoding="utf-8")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, check = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (project,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    site = tmp_path / "site"
    install(site, {"mynets": net, "check_of_mynets": check}, project)
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", str(site))  # of the child that fits


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
@pytest.mark.timeout(400)  # a child of the lowest priority, which imports torch
def test_the_net_of_the_page_holds_the_contract_and_is_fitted_and_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    import check_of_mynets  # type: ignore[import-not-found]

    (folder := tmp_path / "kept").mkdir()
    check_of_mynets.test_it_holds_the_contract(folder)
    run_commands(PAGE, capfd)
    card = read_card(tmp_path / "out/mine")
    assert (card.kind, card.model_params) == ("two_layers", {"hidden": 16})
    assert "two_layers" in (tmp_path / "out/replay/report.json").read_text()
