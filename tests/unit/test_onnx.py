"""A model folder that is damaged, incomplete or foreign is refused by name; a good one opens fast and without torch."""

import hashlib
import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest

from tickcast.engine.inference.load import open_model
from tickcast.engine.inference.model_folder import CARD, GRAPH, PROBE
from tickcast.errors import BadModel
from tickcast.records import ModelCard, digest
from tickcast.testing import walks
from trainkit import autoregressive, job, model_of, series

pytestmark = pytest.mark.slow

ARTEFACTS = [GRAPH, PROBE, "weights.safetensors"]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("job")
    job(folder, [series("A", autoregressive(600, seed=1))], epochs=1)
    return {file.name: file.read_bytes() for file in model_of(folder).iterdir()}


@pytest.fixture
def folder(original: dict[str, bytes], tmp_path: Path) -> Path:
    for name, content in original.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def rewrite(folder: Path, **changes: Any) -> None:
    """A card that was changed together with its digest and its hashes: only its content can give it away."""
    card = msgspec.json.decode((folder / CARD).read_bytes(), type=ModelCard)
    hashes = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in card.artefacts}
    card = msgspec.structs.replace(card, **{"artefacts": hashes, **changes})
    (folder / CARD).write_bytes(msgspec.json.encode(msgspec.structs.replace(card, digest=digest(card))))


@pytest.mark.parametrize("name", ARTEFACTS)
@pytest.mark.parametrize("where", [0.1, 0.5, 0.99])
def test_a_flipped_bit_is_found_and_its_file_named(folder: Path, name: str, where: float) -> None:
    content = bytearray((folder / name).read_bytes())
    content[int(len(content) * where)] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(BadModel, match=name):
        open_model(folder)


def test_a_flipped_bit_anywhere_in_the_card_is_found(folder: Path) -> None:
    content = (folder / CARD).read_bytes()
    meaning = json.loads(content)
    for at in range(0, len(content), 7):
        changed = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        with suppress(ValueError):
            if json.loads(changed) == meaning:
                continue  # layout, or a digit beyond what a number holds
        (folder / CARD).write_bytes(changed)
        with pytest.raises(BadModel, match=r"card\.json"):
            open_model(folder)


@pytest.mark.parametrize("name", [*ARTEFACTS, CARD])
def test_a_missing_file_is_named_with_what_to_do(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BadModel, match=name) as caught:
        open_model(folder)
    assert caught.value.remedy


def test_a_file_that_is_cut_short_is_refused(folder: Path) -> None:
    (folder / GRAPH).write_bytes((folder / GRAPH).read_bytes()[:100])
    with pytest.raises(BadModel, match="damaged"):
        open_model(folder)


def test_files_larger_than_the_bounds_are_refused_unread(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tickcast.engine.inference.model_folder.MAX_ARTEFACT_BYTES", 1000)
    with pytest.raises(BadModel, match="larger than 1000 bytes"):
        open_model(folder)
    monkeypatch.setattr("tickcast.engine.inference.model_folder.MAX_CARD_BYTES", 100)
    with pytest.raises(BadModel, match="larger than 100 bytes"):
        open_model(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"framework": "cobol"}, "framework 'cobol'"),
        ({"schema": 99}, "schema 99"),
        ({"artefacts": {"../secret": "0"}}, "outside its folder"),
        ({"artefacts": {}}, PROBE),
    ],
)
def test_a_card_of_another_world_is_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    rewrite(folder, **changes)
    with pytest.raises(BadModel, match=message):
        open_model(folder)


def test_a_card_that_is_no_card_is_refused(folder: Path) -> None:
    for text in (b"", b"[]", b'{"name": 3}', b"\xff\xfe"):
        (folder / CARD).write_bytes(text)
        with pytest.raises(BadModel, match="not a model card"):
            open_model(folder)


def test_weights_that_answer_otherwise_than_the_fit_are_refused_though_every_hash_fits(folder: Path) -> None:
    graph = onnx.load(folder / GRAPH)
    largest = max(graph.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weights = np.frombuffer(largest.raw_data, np.float32)
    largest.raw_data = (weights + np.float32(0.5)).tobytes()
    onnx.save(graph, folder / GRAPH)
    rewrite(folder)
    with pytest.raises(BadModel, match="away from its fit"):
        open_model(folder)


def test_a_graph_that_the_runtime_cannot_read_is_refused(folder: Path) -> None:
    (folder / GRAPH).write_bytes(b"not a graph")
    rewrite(folder)
    with pytest.raises(BadModel, match="does not hold what its name says"):
        open_model(folder)


def test_tiles_change_no_answer(folder: Path) -> None:
    whole, tiled = open_model(folder), open_model(folder, tile=7)
    inputs = walks(whole, rows=50, lookback=whole.card.lookback)
    np.testing.assert_allclose(tiled.predict(inputs), whole.predict(inputs), rtol=1e-5, atol=1e-6)
    assert whole.predict(inputs.take(slice(0, 0))).shape == (0, 4, 5)


def test_the_runtime_tells_nobody_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """Its telemetry is on by default; where it is, the home folder holds an id and what is to be sent."""
    unset = {key: value for key, value in os.environ.items() if not key.startswith(("ORT_", "XDG_", "CI"))}
    code = "import tickcast.engine.inference.onnx"
    subprocess.run([sys.executable, "-c", code], env={**unset, "HOME": str(tmp_path)}, check=True, timeout=60)
    assert not [*tmp_path.rglob("*")]


def test_opening_takes_well_under_a_second_and_imports_no_torch(folder: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom tickcast.engine.inference.load import open_model\n"
        "open_model(Path(sys.argv[1]))\nheavy = {'torch', 'onnx', 'polars', 'optuna'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    open_model(folder)
    began = time.perf_counter()
    open_model(folder)
    assert time.perf_counter() - began < 0.5


def test_the_card_is_plain_json(folder: Path) -> None:
    assert json.loads((folder / CARD).read_text())["kind"] == "nhits"
