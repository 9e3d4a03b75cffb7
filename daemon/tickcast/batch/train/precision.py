"""What a fit may save time and memory with: bfloat16 in the forward pass, activations that are computed again.

Weights, losses, optimiser, validation and export stay in float32. It trains nothing.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from tickcast.errors import BadSettings


def forward_precision(precision: str) -> AbstractContextManager[object]:
    """The context of a forward pass; bf16 is refused where the processor would only imitate it."""
    if precision == "fp32":
        return nullcontext()
    if not has_bf16():
        raise BadSettings("precision bf16: this processor has no bfloat16 arithmetic", remedy="set precision = fp32")
    return torch.autocast("cpu", dtype=torch.bfloat16)


def has_bf16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@contextmanager
def recomputed(module: nn.Module, *, wanted: bool) -> Iterator[None]:
    """Within, the module's blocks keep what they were given and none of what they computed."""
    blocks = list(_blocks(module)) if wanted else []
    if wanted and not blocks:
        raise BadSettings("recompute: this kind of model has no blocks in a row", remedy="set recompute = false")
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward  # the class's own is seen again


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Members of a list or row of layers that hold layers themselves."""
    for layers in module.modules():
        if isinstance(layers, nn.ModuleList | nn.Sequential):
            yield from (block for block in layers if any(block.children()))
