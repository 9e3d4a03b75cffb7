"""`tickcast learn` from end to end: the commands of docs/features.md lead to a model; each kind's lines are read."""

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from tickcast.engine.core.features import FeatureSet
from tickcast.errors import EXIT_OK, EXIT_REFUSED
from tickcast.settings import Settings
from tickcast.ui.cli import main

PAGE = (Path(__file__).parents[2] / "docs" / "features.md").read_text(encoding="utf-8")
(BLOCK,) = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.slow
def test_the_commands_of_the_page_learn_fit_and_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for line in BLOCK.splitlines():
        program, *arguments = shlex.split(line)
        assert program == "tickcast"
        assert main(arguments) == EXIT_OK, line
    text = Path("regime.toml").read_text()
    (entry,) = tomllib.loads(text)["features"]["set"]
    card = json.loads(Path("model/card.json").read_text())
    assert [spec["params"] for spec in card["features"]] == [
        {key: value for key, value in entry.items() if key != "kind"}
    ] * 2
    assert card["trained_to_ns"] >= entry["learnt_to_ns"]
    report = json.loads(Path("replay/report.json").read_text())
    assert {model["name"] for model in report["models"]} >= {"ridge"}
    (page,) = [each for each in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL) if "# SHA-256" in each]
    assert [line.split(":")[0] for line in page.splitlines() if line.startswith("#")] == [
        line.split(":")[0] for line in text.splitlines() if line.startswith("#")
    ], "the page shows the lines that the command writes"
    other = Path("other.toml")
    other.write_text(text.replace(str(entry["spread"][0]), "0.123"))
    replay = ["replay", "--data", "ticks.parquet", "--config", "other.toml", "--set", "window.lookback=24"]
    assert main([*replay, "--model", "model", "--out", "again"]) == EXIT_REFUSED, "other numbers, another feature"


@pytest.fixture(scope="module")
def ticks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ticks") / "ticks.parquet"
    assert main(["synth", "--out", str(path), "--symbols", "5", "--seconds", "300", "--seed", "2"]) == EXIT_OK
    return path


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ica", "kmeans", "dbscan", "groups"])
def test_what_is_printed_is_a_settings_file(ticks: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["learn", kind, "--data", str(ticks), "--window", "12", "--k", "2"]
    printed = []
    for _ in range(2):
        assert main(arguments) == EXIT_OK
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    settings = Settings(**tomllib.loads(printed[0]))
    if kind == "groups":
        grouped = [symbol for members in settings.symbols.groups.values() for symbol in members]
        assert sorted(grouped) == [f"SYN{number}" for number in range(5)]
    else:
        assert FeatureSet(settings.features.set, "log_return").names[1].startswith(f"{kind}_12_")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["pca", "--until", "2001-01-01T00:00:00Z"], "closes no bar until 2001-01-01T00:00:00Z"),
        (["pca", "--method", "hmm"], "pca has one only"),
        (["regime", "--method", "dbscan"], "regime knows hmm and mixture"),
        (["groups", "--k", "9"], "5 symbols make no 9 groups"),
        (["groups", "--symbols", "SYN1"], "2 to 2,000 symbols, not 1"),
    ],
)
def test_what_cannot_be_learnt_is_refused_in_words(
    ticks: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["learn", *arguments, "--data", str(ticks)]) == EXIT_REFUSED
    assert says in capsys.readouterr().err
