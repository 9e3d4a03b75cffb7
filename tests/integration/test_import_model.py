"""`tickcast import`: what is foreign is checked against the contract before it is a model of this deployment."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file, save_file

from modelkit import model_settings
from registrykit import model_folder, open_registry
from storekit import open_store
from tickcast.batch.by_hand.import_model import import_model, make_card
from tickcast.clock import SystemClock
from tickcast.engine.inference.load import open_model
from tickcast.errors import BadSettings, BadStore, TickcastError
from tickcast.io.models.artefacts import artefact_folder
from tickcast.plugin import find
from tickcast.settings import Settings

LOOKBACK, HORIZON, LEVELS = 16, 4, [0.05, 0.25, 0.5, 0.75, 0.95]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return model_settings("time", tmp_path / "deployed", features__set="[]", features__future="[]")


async def imported(settings: Settings, path: Path, **given: Any) -> Any:
    return await import_model(settings, path, **{"kind": "", "name": "", "params": {}, "clock": SystemClock(), **given})


async def refused(settings: Settings, path: Path, match: str, **given: Any) -> None:
    """Refused, with nothing registered and nothing left over."""
    with pytest.raises(TickcastError, match=match):
        await imported(settings, path, **given)
    async with open_registry(settings) as registry:
        assert not await registry.models.versions()
        assert not registry.artefacts.digests()
    assert not [*settings.runtime.folder.glob("import-*")]


def foreign(**changed: Any) -> onnx.ModelProto:
    """Quantiles around the last move; `changed` names what breaks."""
    plain: dict[str, Any] = {
        "inputs": {"past": ["batch", LOOKBACK, 1]}, "shape": ["batch", HORIZON, len(LEVELS)], "type": TensorProto.FLOAT,
        "spread": np.array(LEVELS, np.float32),
    }  # fmt: skip
    made = plain | changed
    spread = np.repeat(made["spread"][None, None], HORIZON, axis=1)
    tensors = {"at": np.array(LOOKBACK - 1, np.int64), "axes": np.array([1], np.int64), "spread": spread}
    nodes = [
        helper.make_node("Gather", ["past", "at"], ["newest"], axis=1),
        helper.make_node("Unsqueeze", ["newest", "axes"], ["open"]),
        *changed.get("nodes", [helper.make_node("Add", ["open", "spread"], ["quantiles"])]),
    ]
    inputs = [helper.make_tensor_value_info(name, made["type"], shape) for name, shape in made["inputs"].items()]
    output = helper.make_tensor_value_info("quantiles", made["type"], made["shape"])
    weights = [numpy_helper.from_array(value, name) for name, value in tensors.items()]
    body = helper.make_graph(nodes, "foreign", inputs, [output], weights)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


async def test_a_foreign_graph_becomes_a_model_that_serves(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "theirs.onnx"
    path.write_bytes(foreign().SerializeToString())
    card = await imported(settings, path)
    assert (card.name, card.kind, card.lookback, card.horizon) == ("theirs", "onnx", LOOKBACK, HORIZON)
    assert card.cost_us > 0
    runner = open_model(artefact_folder(settings) / card.digest)
    assert runner.card == card
    async with open_registry(settings) as registry:
        (row,) = await registry.models.versions()
        assert (row.origin, row.digest) == ("import", card.digest)
    assert not [*settings.runtime.folder.glob("import-*")]


NOISE = helper.make_node("RandomNormalLike", ["spread"], ["noise"])
BREAKS: dict[str, tuple[dict[str, Any], str]] = {
    "another input": ({"inputs": {"past": ["batch", LOOKBACK, 1], "price": ["batch", 1]}}, "an input 'price'"),
    "no window": ({"inputs": {}}, "must have an input 'past'"),
    "another look-back": ({"inputs": {"past": ["batch", LOOKBACK + 1, 1]}}, "must be float32 of batch x 16 x 1"),
    "a fixed batch": ({"inputs": {"past": [1, LOOKBACK, 1]}}, "must be float32 of batch"),
    "doubles": ({"type": TensorProto.DOUBLE, "spread": np.array(LEVELS)}, "must be float32"),
    "another horizon": ({"shape": ["batch", HORIZON + 1, len(LEVELS)]}, "'quantiles' of the graph"),
    "two dimensions": ({"shape": ["batch", HORIZON]}, "'quantiles' of the graph"),
    "quantiles that cross": ({"spread": np.array(LEVELS[::-1], np.float32)}, "quantiles cross"),
    "no number": ({"spread": np.full(5, np.nan, np.float32)}, "not finite"),
    "infinity": ({"spread": np.array([0, 1, 2, 3, np.inf], np.float32)}, "not finite"),
    "chance": (
        {"nodes": [
            NOISE, helper.make_node("Abs", ["noise"], ["size"]), helper.make_node("ReduceSum", ["size"], ["draw"]),
            helper.make_node("Add", ["open", "spread"], ["sum"]),
            helper.make_node("Add", ["sum", "draw"], ["quantiles"]),
        ]}, "asked again, it answers otherwise",
    ),
    "rows that see each other": (
        {"nodes": [
            helper.make_node("ReduceMean", ["open"], ["mean"]),
            helper.make_node("Add", ["open", "mean"], ["mixed"]),
            helper.make_node("Add", ["mixed", "spread"], ["quantiles"]),
        ]}, "neighbours",
    ),
    "an open shape that turns out wrong": (
        {"shape": ["batch", "h", "q"], "nodes": [helper.make_node("Identity", ["open"], ["quantiles"])]},
        "answers have the shape",
    ),
    "a graph that fails": (
        {"nodes": [helper.make_node("MatMul", ["past", "spread"], ["quantiles"])], "shape": ["batch", "h", "q"]},
        "cannot answer|cannot be loaded",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BREAKS)
async def test_a_graph_that_breaks_the_contract_is_refused(settings: Settings, tmp_path: Path, what: str) -> None:
    changed, says = BREAKS[what]
    path = tmp_path / "theirs.onnx"
    path.write_bytes(foreign(**changed).SerializeToString())
    await refused(settings, path, says)


def state_dict(settings: Settings, path: Path) -> dict[str, np.ndarray]:
    card = make_card(settings, kind="nhits", name="x", params={"hidden": 8})
    net = find("models", "nhits")(card)
    net.save(path.parent)
    (path.parent / "weights.safetensors").rename(path)
    return load_file(path)


@pytest.mark.slow
async def test_the_weights_of_a_known_net_become_a_model_that_answers_as_the_net(
    settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "theirs.safetensors"
    weights = state_dict(settings, path)
    draw = np.random.default_rng(4)
    weights = {name: (value + draw.normal(0, 0.01, value.shape)).astype(np.float32)
               if value.dtype == np.float32 and "over_" not in name and "sums" not in name and "unit" not in name
               else value for name, value in weights.items()}  # fmt: skip
    save_file(weights, path)
    card = await imported(settings, path, kind="nhits", name="theirs", params={"hidden": 8})
    folder = artefact_folder(settings) / card.digest
    kept = load_file(folder / "weights.safetensors")
    assert all(np.array_equal(kept[name], value) for name, value in weights.items())
    assert card.parameters > 100
    assert card.metrics["parity"] < 1e-4
    runner = open_model(folder)
    assert runner.card.model_params == {"hidden": 8}


async def test_weights_that_do_not_fit_the_kind_are_refused(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "theirs.safetensors"
    weights = state_dict(settings, path)
    await refused(settings, path, "does not fit its card", kind="nhits", params={"hidden": 16})
    weights.pop(next(iter(weights)))
    save_file(weights, path)
    await refused(settings, path, "does not fit its card", kind="nhits", params={"hidden": 8})
    await refused(settings, path, "takes no state dict", kind="naive")
    await refused(settings, path, "no model named 'cobol'", kind="cobol")
    await refused(settings, path, "hiden", kind="nhits", params={"hiden": 8})


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("w.pt", b"PK\x03\x04data.pkl", "a zip archive"),
        ("w.pkl", b"\x80\x04]q\x00.", "a pickle"),
        ("w.safetensors", b"\x80\x04]q\x00.", "a pickle"),
        ("w.onnx", b"PK\x03\x04data.pkl", "a zip archive"),
        ("w.onnx", b"\xff" * 64, "does not hold"),
        ("w.txt", b"hello", "something else"),
    ],
)
async def test_what_is_no_model_is_refused_by_what_it_is(
    settings: Settings, tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    (tmp_path / name).write_bytes(content)
    await refused(settings, tmp_path / name, says, kind="nhits")


async def test_a_missing_file_a_link_and_600_mb_are_refused(settings: Settings, tmp_path: Path) -> None:
    await refused(settings, tmp_path / "nowhere.onnx", "nowhere.onnx")
    await refused(settings, tmp_path / "nowhere", "nowhere")
    (tmp_path / "link.onnx").symlink_to("/etc/hostname")
    await refused(settings, tmp_path / "link.onnx", "is a link")
    with (tmp_path / "large.onnx").open("wb") as file:
        file.truncate(600 << 20)
    await refused(settings, tmp_path / "large.onnx", "larger than 536870912")


async def test_a_model_folder_is_registered_as_it_is(settings: Settings, tmp_path: Path) -> None:
    made = model_folder(tmp_path / "made", "mine", cost_us=3.0)
    card = await imported(settings, made)
    kept = artefact_folder(settings) / card.digest
    assert {f.name: f.read_bytes() for f in kept.iterdir()} == {f.name: f.read_bytes() for f in made.iterdir()}
    shutil.rmtree(made)
    assert open_model(kept).card.name == "mine"


async def test_a_name_tags_and_a_cost_that_nobody_measured_make_another_model_of_a_folder(
    settings: Settings, tmp_path: Path
) -> None:
    made = model_folder(tmp_path / "made", "theirs")
    plain, named = await imported(settings, made), await imported(settings, made, name="ours", tags=["a", "b"])
    assert (plain.name, plain.tags, named.name, named.tags) == ("theirs", [], "ours", ["a", "b"])
    assert min(plain.cost_us, named.cost_us) > 0
    for card in (plain, named):
        assert open_model(artefact_folder(settings) / card.digest).card == card
    with pytest.raises(BadSettings, match="give neither"):
        await imported(settings, made, kind="nhits")


async def test_beside_a_running_daemon_nothing_is_begun(settings: Settings, tmp_path: Path) -> None:
    store = open_store(settings, cards=[])
    made = model_folder(tmp_path / "made")
    with pytest.raises(BadStore, match="is open in this process"):
        await imported(settings, made)
    assert not artefact_folder(settings).exists()
    await store.close()
