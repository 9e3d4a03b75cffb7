"""`tickcast import`: a model folder, a foreign ONNX graph, or weights of a net that is known here, into the registry.

What is foreign becomes a model folder first: checked against the contract of this deployment, with a card and a known
answer. It trains nothing, and says nothing of how good the model is.
"""

import hashlib
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx

from tickcast import __version__
from tickcast.batch.train.dataset import need_bars
from tickcast.batch.train.export import export
from tickcast.batch.train.export_step import export_step
from tickcast.batch.train.fit import cost_us
from tickcast.batch.train.parity import PARTS, check_parity, probe_inputs, write_probe
from tickcast.clock import Clock, fresh_id
from tickcast.engine.core.features import FeatureSet
from tickcast.engine.inference.model_files import packed_objects, refuse_foreign
from tickcast.engine.inference.model_folder import (
    CARD,
    FRAMEWORK,
    GRAPH,
    MAX_ARTEFACT_BYTES,
    copy_plain_file,
    copy_plain_files,
    verify_strictly,
)
from tickcast.engine.inference.onnx import OnnxRunner
from tickcast.errors import BadModel, BadSettings
from tickcast.io.jobs.prepare import fit_order, known_kind
from tickcast.io.models.artefacts import Artefacts, artefact_folder
from tickcast.io.models.models import Models
from tickcast.io.store.store import Store
from tickcast.plugin import find
from tickcast.records import ModelCard, digest
from tickcast.settings import Settings
from tickcast.symbols import SymbolTable

WEIGHTS = "weights.safetensors"
FOREIGN = "onnx"  # kind of a graph that nothing here can build
FLOAT = 1  # onnx.TensorProto.FLOAT
BATCHES = (1, 7)
NEAR = 1e-4  # one-bar moves that a row's neighbours may change its answer by
FIX = "see docs/registry.md, Import"


async def import_model(
    settings: Settings, path: Path, *, kind: str, name: str, params: dict[str, Any], clock: Clock,
    tags: Sequence[str] = (),
) -> ModelCard:  # fmt: skip
    """Register what `path` holds; nothing is left behind where it is refused."""
    async with _models(settings, clock) as models:  # first of all: while a daemon has the store nothing is begun
        folder = settings.runtime.folder / f"import-{fresh_id()}"
        folder.mkdir(parents=True)
        try:
            if path.is_dir():
                if kind or params:
                    raise BadSettings(
                        f"{path} is a model folder: its card has kind and parameters", remedy="give neither"
                    )
                take_folder(path, folder, name=name, tags=tags, clock=clock)
            else:
                kind = known_kind(kind) if kind else FOREIGN
                card = make_card(settings, kind=kind, name=name or path.stem, params=params, tags=tags)
                make_folder(path, folder, msgspec.structs.replace(card, created_ns=clock.now_ns()), clock=clock)
            return await models.register(folder, origin="import")
        finally:
            shutil.rmtree(folder)


def take_folder(path: Path, folder: Path, *, name: str, tags: Sequence[str], clock: Clock) -> None:
    """A copy of a model folder. With another name, other tags or a cost that nobody had measured it is another model:
    its card, and so its digest, differs.
    """
    copy_plain_files(path, folder)
    card = verify_strictly(folder)
    changed = msgspec.structs.replace(card, name=name or card.name, tags=[*tags] or card.tags)
    if not card.cost_us:
        changed = msgspec.structs.replace(changed, cost_us=cost_us(OnnxRunner(folder, card), clock))
    if changed != card:
        _write_card(folder, changed)


def make_card(
    settings: Settings, *, kind: str, name: str, params: dict[str, Any], tags: Sequence[str] = ()
) -> ModelCard:
    """What a model must be to serve this deployment, as `tickcast fit` would write it."""
    order = fit_order(settings, kind=kind, name=name, params=params, tags=[*tags])
    features = FeatureSet(settings.features.set, settings.forecast.transform)
    return ModelCard(
        name=name, kind=kind, version="", digest="", framework=FRAMEWORK, bars=order.bars, transform=order.transform,
        lookback=order.lookback, scale=order.scale, horizon=order.horizon, levels=order.levels, features=features.specs,
        future=order.future, need_bars=need_bars(order, features.lookback), model_params=order.model_params,
        code_version=__version__, tags=order.tags,
    )  # fmt: skip


def make_folder(path: Path, folder: Path, card: ModelCard, *, clock: Clock) -> None:
    """Fill `folder` with a model folder, made from one file."""
    if path.suffix not in (".onnx", ".safetensors"):
        raise BadModel(
            f"{path} is {_what(path)}, not ONNX or safetensors", remedy="write weights with safetensors.torch.save_file"
        )
    copied = folder / (GRAPH if path.suffix == ".onnx" else WEIGHTS)
    copy_plain_file(path, copied, MAX_ARTEFACT_BYTES)
    refuse_foreign(copied)
    card = _take_graph(folder, card) if copied.name == GRAPH else _take_weights(folder, card)
    artefacts = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}
    cost = cost_us(OnnxRunner(folder, card), clock)
    _write_card(folder, msgspec.structs.replace(card, artefacts=artefacts, version=artefacts[GRAPH][:12], cost_us=cost))


def _write_card(folder: Path, card: ModelCard) -> None:
    card = msgspec.structs.replace(card, digest=digest(card))
    (folder / CARD).write_bytes(msgspec.json.format(msgspec.json.encode(card)))


def _what(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return packed_objects(file.read(8)) or "something else"
    except OSError as error:
        raise BadModel(f"cannot read {path}: {error.strerror}") from None


def _take_graph(folder: Path, card: ModelCard) -> ModelCard:
    """A graph that nothing here can build: its own answers are what it is held to from now on."""
    check_signature(folder / GRAPH, card)
    runner = OnnxRunner(folder, card)
    check_answers(runner)
    write_probe(runner, folder)  # type: ignore[arg-type]  # it needs a card and answers, and no weights
    return msgspec.structs.replace(card, export_path="foreign graph")


def _take_weights(folder: Path, card: ModelCard) -> ModelCard:
    """Weights of a kind that is built here: the graph is exported anew, and must answer as the module does."""
    kind = find("models", card.kind)
    if not hasattr(kind, "module"):
        raise BadSettings(f"a model of kind '{card.kind}' takes no state dict", remedy="name the kind of a net")
    net = kind(card)
    card = net.card  # a kind may say more on it, such as the labels of its classes
    net.load(folder)
    export(net, folder)
    export_step(net, folder)
    parity = check_parity(net, folder)
    check_answers(OnnxRunner(folder, card))
    write_probe(net, folder)
    weights = sum(parameter.numel() for parameter in net.module().parameters())
    return msgspec.structs.replace(
        card, parameters=weights, metrics={"parity": parity}, export_path="exported from a foreign state dict"
    )


def check_signature(path: Path, card: ModelCard) -> None:
    """Inputs and output have the names, the type and the shapes that a question of this deployment has."""
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except Exception as error:  # protobuf raises its own for what is no graph
        raise BadModel(f"{path} is no ONNX graph: {error}") from error
    weights = {tensor.name for tensor in graph.initializer}
    example = probe_inputs(card, 1, seed=0)
    sizes = {part: getattr(example, part).shape[1:] for part in PARTS if getattr(example, part).size}
    inputs = [node for node in graph.input if node.name not in weights]
    for node in inputs:
        if node.name not in sizes:
            raise BadModel(f"the graph has an input '{node.name}', known: {', '.join(sizes)}", remedy=FIX)
        _check_shape(node, sizes[node.name])
    if "past" not in {node.name for node in inputs} or len(graph.output) != 1:
        raise BadModel("the graph must have an input 'past' and one output", remedy=FIX)
    _check_shape(graph.output[0], (card.horizon, len(card.levels)))


def _check_shape(node: Any, expected: tuple[int, ...]) -> None:
    """Float32, the batch open, and no fixed size that differs; what the graph leaves open its answers will show."""
    tensor = node.type.tensor_type
    found = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
    wanted = [None, *expected]
    fits = len(found) == len(wanted) and found[0] is None
    fits &= all(size in (None, expected_size) for size, expected_size in zip(found, wanted))
    if not fits or tensor.elem_type != FLOAT:
        shape = " x ".join("batch" if size is None else str(size) for size in wanted)
        raise BadModel(f"'{node.name}' of the graph is {found}, it must be float32 of {shape}", remedy=FIX)


def check_answers(runner: OnnxRunner) -> None:
    """Finite quantiles of the right shape, ascending, the same when asked again or alone."""
    card = runner.card
    for rows in BATCHES:
        inputs = probe_inputs(card, rows, seed=rows)
        try:
            answer, again = runner.predict(inputs), runner.predict(inputs)
            alone = runner.predict(inputs.take(slice(0, 1)))
        except Exception as error:  # the runtime raises its own C++ errors
            raise BadModel(f"the graph cannot answer a batch of {rows}: {error}", remedy=FIX) from error
        expected = (rows, card.horizon, len(card.levels))
        for complaint, holds in (
            (f"answers have the shape {answer.shape} and not {expected}", answer.shape == expected),
            ("answers are not finite", bool(np.isfinite(answer).all())),
            ("quantiles cross", answer.shape == expected and bool((np.diff(answer, axis=2) >= 0).all())),
            ("asked again, it answers otherwise", np.array_equal(answer, again)),
            ("a row's neighbours change its answer", np.allclose(alone, answer[:1], rtol=0, atol=NEAR)),
        ):
            if not holds:
                raise BadModel(f"the graph breaks the contract: {complaint}", remedy=FIX)


@asynccontextmanager
async def _models(settings: Settings, clock: Clock) -> AsyncIterator[Models]:
    store = Store.open(settings, symbols=SymbolTable(1), cards=[], at_ns=clock.now_ns())
    try:
        artefacts = Artefacts(artefact_folder(settings))
        yield Models(store.ledger, artefacts, clock=clock, keep_versions=settings.registry.keep_versions)
    finally:
        await store.close()
