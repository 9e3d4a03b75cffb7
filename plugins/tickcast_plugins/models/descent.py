"""Learns how the members of a combination are weighed: gradient descent on the pinball loss of their weighed quantiles
over the validation part, and which of its steps to stop at. It knows no member and no graph.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from tickcast.errors import BadData
from tickcast.plugin import Report
from tickcast_plugins.models.combination import MemberSample

STEPS, EVERY, RATE = 200, 10, 0.05
LEARN_SHARE = 0.7  # of the validation part's time; the rest says which step was best
Logits = Callable[[Tensor], Tensor]  # rows of the sample -> [rows or 1, M]


def descend(
    sample: MemberSample, levels: Sequence[float], learnt: Sequence[Tensor], logits: Logits, report: Report
) -> float:
    """Adjust `learnt` in place, so that the members' quantiles, weighed by softmax of `logits(rows)`, lose least.

    The earlier windows teach, the later ones, of which no target is known then, say when it was best; that may be
    before the first step. Returns by how much of the loss that was better.
    """
    cut = int(sample.begin.min() + LEARN_SHARE * (sample.end.max() - sample.begin.min()))
    rows = [torch.from_numpy(np.flatnonzero(part)) for part in (sample.end <= cut, sample.begin > cut)]
    if not all(map(len, rows)):
        raise BadData("the validation part is too short to learn weights from", remedy="give more history, or mean")
    answers, target = torch.from_numpy(sample.answers), torch.from_numpy(sample.target)
    level = torch.tensor(levels, dtype=torch.float32)

    def loss(of: Tensor) -> Tensor:
        weights = torch.softmax(logits(of), dim=1)[:, :, None, None]
        error = target[of].unsqueeze(-1) - (answers[of] * weights).sum(dim=1)
        return torch.maximum(level * error, (level - 1) * error).mean()

    optimizer = torch.optim.Adam([*learnt], lr=RATE)
    best = [tensor.detach().clone() for tensor in learnt]
    with torch.no_grad():
        first = least = float(loss(rows[1]))
    for step in range(1, STEPS + 1):
        optimizer.zero_grad()
        loss(rows[0]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step % EVERY:
            continue
        with torch.no_grad():
            found = float(loss(rows[1]))
        if found < least:
            least, best = found, [tensor.detach().clone() for tensor in learnt]
        if not report(step=step, steps=STEPS, validation_loss=found):
            break
    with torch.no_grad():
        for tensor, kept in zip(learnt, best, strict=True):
            tensor.copy_(kept)
    return 1 - least / first
