"""Places for results: which are ours, and how a model takes the place of another."""

import shutil
from pathlib import Path

import msgspec
import pytest

from tickcast.batch.out_folder import MARK, claim, claim_file, claim_model, claim_new, drop_models, install_model
from tickcast.engine.inference.model_folder import CARD
from tickcast.errors import BadSettings
from tickcast.records import ModelCard, digest


def model(folder: Path, name: str = "m", artefact: str = "weights.json") -> Path:
    """A folder as a fit leaves it, for whoever only looks at names."""
    folder.mkdir(parents=True)
    card = ModelCard(
        name=name, kind="k", version="1", digest="", framework="onnx", bars={}, transform="level", lookback=1,
        horizon=1, levels=[0.5], features=[], future=[], need_bars=1, model_params={}, seed=0, created_ns=0,
        dataset_hash="", settings_digest="", code_version="", artefacts={artefact: "0"},
    )  # fmt: skip
    card = msgspec.structs.replace(card, digest=digest(card))
    (folder / CARD).write_bytes(msgspec.json.encode(card))
    (folder / artefact).write_text(name)
    return folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_new_an_empty_and_a_marked_folder_are_claimed(tmp_path: Path) -> None:
    for _ in range(2):
        claim(tmp_path / "a" / "new", writes=["x"])
    assert names(tmp_path / "a" / "new") == {MARK}
    (tmp_path / "empty").mkdir()
    claim(tmp_path / "empty", writes=["x"])


def test_what_an_older_version_left_is_told_by_all_of_its_names(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "one").touch()
    with pytest.raises(BadSettings, match="nothing says that tickcast made it"):
        claim(tmp_path / "old", writes=["one"], told_by=["one", "two"])
    (tmp_path / "old" / "two").touch()
    claim(tmp_path / "old", writes=["one"], told_by=["one", "two"])


def test_a_folder_that_a_command_owns_whole_holds_nothing_else(tmp_path: Path) -> None:
    claim_new(tmp_path / "study")
    claim_new(tmp_path / "study")
    (tmp_path / "study" / "model").mkdir()
    with pytest.raises(BadSettings, match="holds model"):
        claim_new(tmp_path / "study")


def test_a_model_takes_the_place_of_a_model_and_leaves_none_of_its_files(tmp_path: Path) -> None:
    out = model(tmp_path / "out", "before", "old.json")
    beside = tmp_path / "out.old"
    beside.mkdir()
    (beside / "backup.txt").write_text("mine")
    claim_model(out)
    install_model(model(tmp_path / "fit", "after"), out)
    assert names(out) == {CARD, "weights.json"}
    assert (out / "weights.json").read_text() == "after"
    assert names(tmp_path) == {"out", "out.old", "fit"}
    assert names(beside) == {"backup.txt"}


def test_a_model_goes_into_a_new_and_into_an_empty_folder(tmp_path: Path) -> None:
    made = model(tmp_path / "fit")
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "a" / "new", tmp_path / "empty"):
        claim_model(out)
        install_model(made, out)
        assert names(out) == {CARD, "weights.json"}


def test_a_file_beside_a_model_is_not_moved_and_not_lost(tmp_path: Path) -> None:
    out = model(tmp_path / "out")
    (out / "notes.txt").write_text("mine")
    for attempt in (lambda: claim_model(out), lambda: install_model(model(tmp_path / "fit"), out)):
        with pytest.raises(BadSettings, match=r"notes\.txt beside its model"):
            attempt()
    assert names(out) == {CARD, "weights.json", "notes.txt"}
    assert names(tmp_path) == {"out", "fit"}


def test_a_card_that_is_not_ours_makes_no_model_folder(tmp_path: Path) -> None:
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / CARD).write_text('{"name": "ace of spades"}')
    with pytest.raises(BadSettings, match="is no model folder"):
        claim_model(tmp_path / "cards")


def test_models_of_an_earlier_walk_go_and_anything_else_is_refused(tmp_path: Path) -> None:
    walk = tmp_path / "fits"
    drop_models(walk)
    model(walk / "fit-1"), model(walk / "fit-2")
    (walk / "mine.txt").write_text("mine")
    with pytest.raises(BadSettings, match=r"mine\.txt"):
        drop_models(walk)
    assert names(walk) == {"fit-1", "fit-2", "mine.txt"}
    (walk / "mine.txt").unlink()
    drop_models(walk)
    assert not names(walk)


def test_a_file_is_replaced_only_where_it_is_ours(tmp_path: Path) -> None:
    file = tmp_path / "a" / "lines.toml"
    claim_file(file)
    assert names(tmp_path) == {"a"}
    file.write_text("# ours")
    with pytest.raises(BadSettings, match="is there already"):
        claim_file(file)
    claim_file(file, is_ours=lambda path: path.read_text() == "# ours")
    with pytest.raises(BadSettings):
        claim_file(tmp_path / "a", is_ours=lambda path: True)
    shutil.copy(file, tmp_path / "b")
    (tmp_path / "link").symlink_to(tmp_path / "b")
    with pytest.raises(BadSettings):
        claim_file(tmp_path / "link", is_ours=lambda path: True)
