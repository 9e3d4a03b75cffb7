"""What a fit begins with when its order names a fitted model: that model's weights, some of them frozen. It trains
nothing, and runs nothing that the model's folder holds.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch

from tickcast.batch.train.fit_job import Parent, refuse_unlike
from tickcast.errors import BadModel, BadSettings
from tickcast.plugin import Net, find
from tickcast.records import ModelCard


class Begun(NamedTuple):
    """What was taken over, for the card."""

    mode: str
    parent: str  # digest
    loaded: int  # numbers, of those that the new model learns
    of: int
    frozen: int


def begin(net: Net, parent: Parent) -> Begun:
    """Put the parent's weights into `net` and freeze what the order names."""
    module: torch.nn.Module = net.module()
    own = dict(module.named_parameters())
    donor = _donor(parent)
    if parent.start.mode == "transfer":
        loaded = _transfer(own, donor, parent)
    else:
        _continue(module, donor, net.card, parent)
        loaded = set(own)
    frozen = _freeze(own, loaded, parent.start.freeze)
    loaded_of, frozen_of = (sum(own[name].numel() for name in names) for names in (loaded, frozen))
    total = sum(weight.numel() for weight in own.values())
    return Begun(parent.start.mode, parent.card.digest, loaded_of, total, frozen_of)


def _donor(parent: Parent) -> torch.nn.Module:
    kind: Any = find("models", parent.card.kind)
    if not hasattr(kind, "module"):
        raise BadModel(f"start: a model of kind '{parent.card.kind}' has no weights to begin with", remedy="name a net")
    model: Net = kind(parent.card)
    model.load(parent.folder)
    module: torch.nn.Module = model.module()
    return module


def _continue(module: torch.nn.Module, donor: torch.nn.Module, card: ModelCard, parent: Parent) -> None:
    refuse_unlike(card, parent, remedy="set start.mode = transfer, or fit without start")
    try:
        module.load_state_dict(donor.state_dict())
    except RuntimeError as error:  # torch's word for weights of other names or shapes
        raise BadModel(f"start: the weights in {parent.folder} do not fit: {error}", remedy="fit it anew") from error


def _transfer(own: dict[str, torch.nn.Parameter], donor: torch.nn.Module, parent: Parent) -> set[str]:
    """Weights only: what else a module holds follows from its card and its training part."""
    given = dict(donor.named_parameters())
    fitting = {name for name, weight in own.items() if name in given and given[name].shape == weight.shape}
    if not fitting:
        raise BadModel(
            f"start: no weight of the model in {parent.folder} has the name and shape of one here",
            remedy="transfer between models of one kind that share at least a layer",
        )
    with torch.no_grad():
        for name in fitting:
            own[name].copy_(given[name])
    return fitting


def _freeze(own: dict[str, torch.nn.Parameter], loaded: set[str], patterns: Sequence[str]) -> set[str]:
    frozen = {name for name in own for pattern in patterns if fnmatchcase(name, pattern)}
    idle = [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in own)]
    if idle:
        raise BadSettings(f"start.freeze: no weight is named {', '.join(idle)}", remedy=f"known: {', '.join(own)}")
    if random := sorted(frozen - loaded):
        raise BadSettings(f"start.freeze: the start gives no {', '.join(random)}", remedy="freeze what it gives")
    if frozen == set(own):
        raise BadSettings("start.freeze leaves no weight to train", remedy="freeze fewer layers")
    for name in frozen:
        own[name].requires_grad_(False)
    return frozen
