"""Files of models: whatever is damaged, foreign, linked, too large or half there is refused, and leaves nothing."""

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, external_data_helper, numpy_helper
from safetensors.numpy import save_file

from registrykit import graph, model_folder, write_card
from tickcast.engine.inference.load import open_model
from tickcast.engine.inference.model_files import refuse_foreign
from tickcast.engine.inference.model_folder import CARD, GRAPH, PROBE, parse_card, read_card
from tickcast.errors import BadModel, ModelRefused, StoreStalled
from tickcast.io.models.artefacts import FILES, Artefacts
from tickcast.records import ModelCard

CALL = b"cos\nsystem\n(S'true'\ntR."  # protocol 0: text
PROTO_2 = b"\x80\x02]q\x00."


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return model_folder(tmp_path / "made")


@pytest.fixture
def artefacts(tmp_path: Path) -> Artefacts:
    return Artefacts(tmp_path / "artefacts")


def everything(artefacts: Artefacts) -> set[str]:
    return {str(path.relative_to(artefacts.folder)) for path in artefacts.folder.rglob("*")} - {FILES}


def refused(artefacts: Artefacts, folder: Path, match: str) -> None:
    """Refused, and the store of files is as it was."""
    before = everything(artefacts)
    with pytest.raises(BadModel, match=match):
        artefacts.add(folder)
    assert everything(artefacts) == before


def test_a_model_comes_back_as_a_folder_with_the_bytes_that_were_given(made: Path, artefacts: Artefacts) -> None:
    card = artefacts.add(made)
    assert card == read_card(made)
    kept = artefacts.open(card.digest)
    assert {f.name: f.read_bytes() for f in kept.iterdir()} == {f.name: f.read_bytes() for f in made.iterdir()}
    assert artefacts.digests() == {card.digest}


def test_models_share_equal_files_and_a_model_that_comes_twice_is_there_once(tmp_path: Path, made: Path) -> None:
    artefacts = Artefacts(tmp_path / "artefacts")
    one, again = artefacts.add(made), artefacts.add(made)
    two = artefacts.add(model_folder(tmp_path / "two", created_ns=7))
    assert one.digest == again.digest != two.digest
    assert len([*(artefacts.folder / FILES).iterdir()]) == 2
    for name in (GRAPH, PROBE):
        files = [artefacts.open(card.digest) / name for card in (one, two)]
        assert files[0].samefile(files[1])


@pytest.mark.parametrize("name", [GRAPH, PROBE, CARD])
def test_a_flipped_bit_is_refused_when_it_comes_and_when_it_is_opened(made: Path, artefacts: Artefacts, name: str):
    kept = artefacts.open(artefacts.add(made).digest)
    for folder in (made, kept):
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).chmod(0o644)
        (folder / name).write_bytes(content)
    refused(artefacts, made, name.partition(".")[0])
    with pytest.raises(BadModel, match=name):
        artefacts.open(kept.name)


def test_what_was_damaged_since_is_whole_again_when_the_model_comes_once_more(made: Path, artefacts: Artefacts) -> None:
    digest = artefacts.add(made).digest
    (artefacts.open(digest) / GRAPH).chmod(0o644)
    (artefacts.open(digest) / GRAPH).write_bytes(b"rubbish")
    artefacts.add(made)
    assert (artefacts.open(digest) / GRAPH).read_bytes() == (made / GRAPH).read_bytes()


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", PROTO_2)


@pytest.mark.parametrize("name", [GRAPH, PROBE, "extra.json", "weights.safetensors"])
@pytest.mark.parametrize("content", [PROTO_2, CALL, b"zip", b"\x1f\x8b\x08" + bytes(20)])
def test_a_pickle_under_any_name_is_refused_though_its_hash_is_right(
    made: Path, artefacts: Artefacts, name: str, content: bytes
) -> None:
    zipped(made / name) if content == b"zip" else (made / name).write_bytes(content)
    write_card(made)
    refused(artefacts, made, "pickle|zip archive|compressed|does not hold")


@pytest.mark.parametrize("name", ["weights.pt", "model.pkl", "data.bin", "run.py", "model"])
def test_a_file_of_a_kind_that_no_model_has_is_refused(made: Path, artefacts: Artefacts, name: str) -> None:
    (made / name).write_bytes(b"{}")
    refused(artefacts, made, f"{name} is no file of this model")
    write_card(made)
    refused(artefacts, made, f"{name} is of no kind")


def test_a_sparse_file_of_600_mb_is_refused_unread(made: Path, artefacts: Artefacts) -> None:
    with (made / "weights.safetensors").open("wb") as file:
        file.truncate(600 << 20)
    refused(artefacts, made, "weights.safetensors is larger than 536870912 bytes")


@pytest.mark.parametrize("target", ["/etc/hostname", "inside"])
def test_a_link_is_refused_wherever_it_leads(made: Path, artefacts: Artefacts, target: str) -> None:
    if target == "inside":
        (made / GRAPH).rename(made.parent / GRAPH)
        (made / GRAPH).symlink_to(made.parent / GRAPH)
    else:
        (made / "more.json").symlink_to(target)
    refused(artefacts, made, "is a link")


def test_folders_pipes_and_a_missing_folder_are_refused(made: Path, artefacts: Artefacts, tmp_path: Path) -> None:
    (made / "inner").mkdir()
    refused(artefacts, made, "inner is no plain file")
    (made / "inner").rmdir()
    os.mkfifo(made / "pipe")
    refused(artefacts, made, "pipe is no plain file")
    refused(artefacts, tmp_path / "nowhere", "nowhere")


@pytest.mark.parametrize("name", ["../made/model.onnx", "/etc/passwd", "..", ".", "", "a/b", "a\\b", "a\0b", CARD])
def test_a_card_that_names_files_elsewhere_is_refused(made: Path, artefacts: Artefacts, name: str) -> None:
    write_card(made, artefacts={name: "0" * 64})
    refused(artefacts, made, "outside its folder")


@pytest.mark.parametrize("digest", ["../" * 3, "", "latest", "A" * 64, "0" * 63, "0" * 64])
def test_only_a_digest_that_is_here_opens(made: Path, artefacts: Artefacts, digest: str) -> None:
    artefacts.add(made)
    with pytest.raises(ModelRefused) as caught:
        artefacts.open(digest)
    assert caught.value.code == "unknown_model"


def test_a_graph_that_reads_its_weights_from_another_file_is_refused(made: Path, artefacts: Artefacts) -> None:
    model = graph()
    weights = next(t for t in model.graph.initializer if t.name == "spread")
    external_data_helper.set_external_data(weights, location="../../secret")
    weights.ClearField("raw_data")
    (made / GRAPH).write_bytes(model.SerializeToString())
    write_card(made)
    refused(artefacts, made, "keeps weights in another file")


def test_a_tensor_elsewhere_is_found_within_attributes_and_inner_graphs(tmp_path: Path) -> None:
    tensor = numpy_helper.from_array(np.ones(3, np.float32), "hidden")
    external_data_helper.set_external_data(tensor, location="x")
    inner = onnx.helper.make_graph([onnx.helper.make_node("Constant", [], ["c"], value=tensor)], "inner", [], [])
    model = graph()
    model.graph.node.append(onnx.helper.make_node("If", ["past"], ["d"], then_branch=inner, else_branch=inner))
    path = tmp_path / "deep.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BadModel, match="another file"):
        refuse_foreign(path)


def endless(operator: str) -> onnx.NodeProto:
    """Goes round while its condition holds, which it hands on unchanged."""
    ends = [onnx.helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("on", "still")]
    count = onnx.helper.make_tensor_value_info("i", TensorProto.INT64, [])
    again = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["on"], ["still"])], "again", [count, ends[0]], [ends[1]]
    )
    return onnx.helper.make_node(operator, ["", "true"], [], body=again)


@pytest.mark.parametrize("operator", ["Loop", "Scan"])
@pytest.mark.parametrize("where", ["graph", "branch", "function"])
def test_a_graph_that_need_not_end_is_refused_wherever_it_goes_round_and_by_who_opens_it(
    made: Path, operator: str, where: str
) -> None:
    model, node = graph(), endless(operator)
    if where == "branch":
        inner = onnx.helper.make_graph([node], "inner", [], [])
        node = onnx.helper.make_node("If", ["past"], [], then_branch=inner, else_branch=inner)
    if where == "function":
        model.functions.append(
            onnx.helper.make_function("own", "round", ["true"], [], [node], [onnx.helper.make_opsetid("", 18)])
        )
        node = onnx.helper.make_node("round", ["past"], [], domain="own")
    model.graph.node.append(node)
    (made / GRAPH).write_bytes(model.SerializeToString())
    write_card(made)
    for judge in (lambda: refuse_foreign(made / GRAPH), lambda: open_model(made)):
        with pytest.raises(BadModel, match=f"holds a {operator}, which need not end"):
            judge()


def test_functions_that_call_functions_are_refused_and_one_that_calls_none_is_not(tmp_path: Path) -> None:
    """Fifteen that each call the next twice took the runtime 22 s to open."""
    opset, path = [onnx.helper.make_opsetid("", 18)], tmp_path / "f.onnx"
    plain = onnx.helper.make_function("own", "a", ["x"], ["y"], [onnx.helper.make_node("Abs", ["x"], ["y"])], opset)
    calls = onnx.helper.make_node("a", ["x"], ["y"], domain="own")
    model = graph()
    model.functions.append(plain)
    path.write_bytes(model.SerializeToString())
    refuse_foreign(path)
    model.functions.append(onnx.helper.make_function("own", "b", ["x"], ["y"], [calls], opset))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BadModel, match="functions that call functions"):
        refuse_foreign(path)


def test_a_tag_with_more_bits_than_the_runtime_reads_hides_nothing(tmp_path: Path) -> None:
    """Protocol buffers drop what is above 32 bits: the field of external data would look like one that nobody knows."""
    tensor = numpy_helper.from_array(np.ones(3, np.float32), "hidden")
    external_data_helper.set_external_data(tensor, location="x")
    tensor.ClearField("raw_data")
    inside = tensor.SerializeToString()
    plain = bytes([13 << 3 | 2])  # external_data
    masked = bytes([plain[0] | 0x80, 0x80, 0x80, 0x80, 0x70])  # the same, and bits 32 to 34
    model = graph()
    model.graph.initializer.append(tensor)
    whole = model.SerializeToString()
    path = tmp_path / "masked.onnx"
    for hidden in (whole, _with_tensor(inside.replace(plain, masked, 1))):
        path.write_bytes(hidden)
        with pytest.raises(BadModel, match="another file"):
            refuse_foreign(path)


def _with_tensor(tensor: bytes) -> bytes:
    """The small model, one more tensor written so: fields of a message may come in parts, which are merged."""
    plain = graph()
    inner = plain.graph.SerializeToString() + bytes([5 << 3 | 2, len(tensor)]) + tensor
    plain.ClearField("graph")
    return plain.SerializeToString() + bytes([7 << 3 | 2]) + _varint(len(inner)) + inner


def _varint(value: int) -> bytes:
    return bytes([value]) if value < 0x80 else bytes([value & 0x7F | 0x80]) + _varint(value >> 7)


def test_bytes_that_are_no_graph_and_no_tensors_are_refused(tmp_path: Path) -> None:
    good = graph().SerializeToString()
    save_file({"a": np.ones(3, np.float32)}, tmp_path / "good.safetensors")
    tensors = (tmp_path / "good.safetensors").read_bytes()
    bad = {
        "a.onnx": good[:-1], "b.onnx": good + b"\x00", "c.onnx": good + good, "d.onnx": b"\xff" * 40, "e.onnx": b"",
        "a.safetensors": tensors[:-1], "b.safetensors": tensors + b"\x00", "c.safetensors": b"\xff" * 40,
        "d.safetensors": b"{}", "a.json": b"[]", "b.json": b"{", "c.json": b'{"a":' * 100_000,
    }  # fmt: skip
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadModel, match=name):
            refuse_foreign(tmp_path / name)
    (tmp_path / "good.onnx").write_bytes(good)
    (tmp_path / "good.json").write_bytes(b'{"a": 1}')
    for path in tmp_path.glob("good.*"):
        refuse_foreign(path)


def test_every_cut_and_every_kind_of_tensor_of_a_graph_is_judged_without_an_error_of_its_own(tmp_path: Path) -> None:
    content, path = graph().SerializeToString(), tmp_path / "cut.onnx"
    for end in range(len(content)):
        path.write_bytes(content[:end])
        try:
            refuse_foreign(path)
        except BadModel:
            continue
        assert len(onnx.load_model_from_string(content[:end]).graph.node) == 3  # cut between the fields after the graph
    every = graph()
    every.graph.initializer.append(onnx.helper.make_tensor("texts", TensorProto.STRING, [2], [b"a", b"b"]))
    every.graph.initializer.append(onnx.helper.make_tensor("doubles", TensorProto.DOUBLE, [2], [1.0, 2.0]))
    path.write_bytes(every.SerializeToString())
    refuse_foreign(path)


def test_a_folder_whose_card_the_judge_refuses_is_not_kept(made: Path, artefacts: Artefacts) -> None:
    def judge(card: ModelCard) -> None:
        raise BadModel(f"not {card.name}")

    with pytest.raises(BadModel, match="not small"):
        artefacts.add(made, judge=judge)
    assert everything(artefacts) == set()


SEAMS = ["copy", "verify", "share", "share-again", "rename"]
KILL = """
import os, signal, sys
from pathlib import Path
from tickcast.io.models import artefacts
seam, calls = sys.argv[3], []
def dies(function, after):
    def instead(*given, **named):
        calls.append(1)
        if len(calls) > after:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*given, **named)
    return instead
if seam == "copy":
    import tickcast.engine.inference.model_folder as model_folder
    model_folder.copy_plain_file = dies(model_folder.copy_plain_file, 1)
elif seam == "verify":
    artefacts.verify_strictly = dies(artefacts.verify_strictly, 0)
elif seam.startswith("share"):
    artefacts.Artefacts._share = dies(artefacts.Artefacts._share, len(seam) > 5)
else:
    Path.rename = dies(Path.rename, 0)
artefacts.Artefacts(Path(sys.argv[1])).add(Path(sys.argv[2]))
"""


@pytest.mark.parametrize("seam", SEAMS)
def test_a_process_that_is_killed_while_it_keeps_a_model_leaves_it_out_and_the_next_start_clears_up(
    made: Path, tmp_path: Path, seam: str
) -> None:
    folder = tmp_path / "artefacts"
    done = subprocess.run([sys.executable, "-c", KILL, str(folder), str(made), seam], timeout=60)
    assert done.returncode == -9
    left = [entry for entry in folder.iterdir() if entry.name.startswith(".part-")]
    assert left
    artefacts = Artefacts(folder)
    assert not artefacts.digests()
    assert all(entry.exists() for entry in left)  # who only reads changes nothing
    digest = artefacts.add(made).digest
    assert {entry.name for entry in folder.iterdir()} == {FILES, digest}
    assert artefacts.open(digest)
    artefacts.retain([digest])
    files = {file.name for file in (folder / FILES).iterdir()}
    assert files == {*read_card(made).artefacts.values()}


def test_a_full_disk_is_a_waiting_state_and_leaves_nothing(
    made: Path, artefacts: Artefacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tickcast.io.models.artefacts.sync", full)
    with pytest.raises(StoreStalled, match="No space left"):
        artefacts.add(made)
    assert not artefacts.digests()
    assert not [entry for entry in artefacts.folder.iterdir() if entry.name != FILES]


def test_what_is_not_kept_goes_with_the_files_that_nobody_shares(tmp_path: Path, artefacts: Artefacts) -> None:
    first = artefacts.add(model_folder(tmp_path / "a"))
    same_files = artefacts.add(model_folder(tmp_path / "b", created_ns=5))
    other = artefacts.add(model_folder(tmp_path / "c", shift=0.5))
    assert artefacts.retain([same_files.digest]) == sorted([first.digest, other.digest])
    assert artefacts.open(same_files.digest)
    assert {f.name for f in (artefacts.folder / FILES).iterdir()} == {*same_files.artefacts.values()}


def test_nothing_else_that_lies_in_the_folder_is_touched(tmp_path: Path, made: Path) -> None:
    folder = tmp_path / "artefacts"
    (folder / ".git").mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    artefacts = Artefacts(folder)
    artefacts.add(made)
    artefacts.retain([])
    assert (folder / ".git").is_dir()
    assert (folder / "notes.txt").read_text() == "mine"


def test_the_same_files_are_the_same_model_on_every_machine(made: Path) -> None:
    told = msgspec.json.decode((made / CARD).read_bytes())
    required = {field.name for field in msgspec.structs.fields(ModelCard) if field.required} - {"digest"}
    assert told["scale"] == "rms"  # like `schema`, a default that is not empty
    left_out = ("digest", "schema", "scale")
    said = {name: value for name, value in told.items() if name in required or (value and name not in left_out)}
    assert hashlib.sha256(msgspec.json.encode(said, order="sorted")).hexdigest() == read_card(made).digest


def test_a_card_that_was_written_before_a_field_was_added_is_still_the_same_model(made: Path) -> None:
    told = msgspec.json.decode((made / CARD).read_bytes())
    older = {name: value for name, value in told.items() if name not in ("parent", "export_path")}
    assert parse_card(msgspec.json.encode(older), "older").digest == told["digest"]
    with pytest.raises(BadModel, match="digest"):
        parse_card(msgspec.json.encode(told | {"unknown": 1}), "newer")
