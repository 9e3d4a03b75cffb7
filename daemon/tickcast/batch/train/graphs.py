"""A torch module -> one ONNX file with a dynamic batch, without random operators and without the exporter's notes."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
import torch
from torch import Tensor

from tickcast.errors import BadModel

RANDOM = {
    "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial", "Dropout",
}  # fmt: skip


def write_graph(module: torch.nn.Module, given: Mapping[str, Tensor], outputs: Sequence[str], path: Path) -> None:
    """`given` are examples of all that `module(*given)` is called with, in order; rows are their first axis."""
    batch = torch.export.Dim("batch")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells of every library that is not installed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about parts of itself
        program = torch.onnx.export(
            module.eval(), tuple(given.values()), dynamo=True, verbose=False, input_names=list(given),
            output_names=list(outputs), dynamic_shapes=(tuple({0: batch} for _ in given),),
        )  # fmt: skip
    assert program is not None
    model = _bare(program.model_proto)
    found = {node.op_type for node in model.graph.node} & RANDOM
    if found:
        raise BadModel(f"the exported graph draws random numbers: {', '.join(sorted(found))}")
    onnx.save(model, path)


def _bare(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without the exporter's notes: they hold paths of the machine that trained, and differ from run to run."""
    del model.metadata_props[:]
    model.doc_string = ""
    graph = model.graph
    for item in [graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer]:
        item.doc_string = ""
        del item.metadata_props[:]
    return model
