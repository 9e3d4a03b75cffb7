"""Labels -> sums by moment, group and horizon -> figures of a judged model, with intervals and a test. Pure."""

from typing import Any, NamedTuple

import numpy as np

from tickcast.batch.judge import statistics
from tickcast.batch.train.classes import ratios as class_ratios
from tickcast.columns import F32, F64
from tickcast.figures import SCALE_FLOOR, covered, directions, losses, mase, mean, qlike, skill, spread_of, winkler

SUMS = (
    "labels", "absolute", "absolute_naive", "squared", "squared_naive", "scaled", "missed", "missed_naive", "pinball",
    "pinball_naive", "width", "width_naive", "qlike", "qlike_naive", "covered", "directed", "right", "winkler",
)  # fmt: skip
AT = {name: place for place, name in enumerate(SUMS)}


class Certainty(NamedTuple):
    """How intervals are drawn."""

    confidence: float
    draws: int
    seed: int


class LossTally(NamedTuple):
    """Sums of what happened, from which every figure follows."""

    sums: F64  # [moments, groups, horizons, SUMS], then classes.SUMS where there are classes; group 0 is all symbols
    groups: list[str]
    inside: F64  # as the last axis, over windows that touch the training span
    windows: int
    in_sample: int
    span_ns: tuple[int, int]  # of the windows outside


def outcomes(own: F32, naive: F32, target: F32, scale: F64, levels: list[float]) -> F64:
    """[windows, horizons, SUMS]: what each label adds to the sums."""
    found = np.zeros((*target.shape, len(SUMS)))
    actual, median = target.astype(np.float64), levels.index(0.5)
    moved = scale > SCALE_FLOOR  # a window that never moved has no unit
    found[..., AT["labels"]] = 1.0
    found[moved, :, AT["scaled"]] = 1.0
    for suffix, quantiles in (("", own), ("_naive", naive)):
        point = actual - quantiles[:, :, median]
        found[..., AT["absolute" + suffix]] = np.abs(point)
        found[..., AT["squared" + suffix]] = point * point
        loss = losses(np.array(levels), quantiles, actual)[moved] / scale[moved, None, None]
        found[moved, :, AT["pinball" + suffix]] = loss.mean(axis=2)
        if not suffix:
            found[moved, :, AT["winkler"]] = winkler(levels, (0, -1), loss[..., 0], loss[..., -1])
        found[moved, :, AT["missed" + suffix]] = np.abs(point[moved]) / scale[moved, None]
        wide = quantiles[moved] / scale[moved, None, None]
        found[moved, :, AT["width" + suffix]] = wide[:, :, -1] - wide[:, :, 0]
        found[moved, :, AT["qlike" + suffix]] = qlike(spread_of(levels, wide), point[moved] / scale[moved, None])
    found[..., AT["covered"]] = covered(own, actual)
    found[..., AT["directed"]], found[..., AT["right"]] = directions(actual, own[:, :, median])
    return found


def figures(tally: LossTally, certainty: Certainty, horizons: list[int]) -> dict[str, Any]:
    pooled = tally.sums.sum(axis=2, keepdims=True)
    sums = np.concatenate([tally.sums, pooled], axis=2)  # the last horizon is all of them
    moments, n_groups, n_horizons, n_sums = sums.shape
    block = statistics.block_length(_gain(sums[:, 0, -1]), at_least=horizons[-1]) if moments else 0
    drawn = None
    if moments >= statistics.LEAST_ROWS:
        flat = statistics.bootstrap_sums(
            sums.reshape(moments, -1), block=block, draws=certainty.draws, seed=certainty.seed
        )  # fmt: skip
        drawn = flat.reshape(certainty.draws, n_groups, n_horizons, n_sums)
    rows = []
    for g, group in enumerate(tally.groups):
        for j, reach in enumerate([*horizons, None]):
            of_draws = None if drawn is None else drawn[:, g, [j, 0]]
            row = _row(sums[:, g, [j, 0]], of_draws, one_step=horizons[0] == 1, confidence=certainty.confidence)
            test = statistics.diebold_mariano(_gain(sums[:, g, j]), horizon=reach or horizons[-1])
            rows.append({"group": group, "horizon": reach, **row, "test": test._asdict() if test else None})
    everything = [row for row in rows if row["group"] == "all"]
    return {
        "windows": tally.windows, "in_sample": {"windows": tally.in_sample, **_plain(tally.inside)},
        "moments": moments, "block": block, "from_ns": tally.span_ns[0], "to_ns": tally.span_ns[1],
        "headline": everything[-1] if moments else {}, "by_horizon": everything[:-1] if moments else [],
        "by_group": [row for row in rows if row["group"] != "all"] if moments else [],
    }  # fmt: skip


def _gain(sums: F64) -> F64:
    """By moment, how much smaller the model's mean pinball loss was than last value's, in one-bar moves."""
    there = sums[sums[:, AT["scaled"]] > 0]
    gain: F64 = (there[:, AT["pinball_naive"]] - there[:, AT["pinball"]]) / there[:, AT["scaled"]]
    return gain


def _row(sums: F64, drawn: F64 | None, *, one_step: bool, confidence: float) -> dict[str, Any]:
    """Each figure with its interval, of sums [moments, 2, SUMS]: those of a horizon, and of the first, which may be one
    step."""
    total = sums.sum(axis=0)
    values = ratios(*total[: 1 + one_step])
    spread = dict.fromkeys(values, statistics.NOTHING_KNOWN)
    if drawn is not None:
        of_draws = np.moveaxis(drawn, 1, 0)[: 1 + one_step]
        spread = {name: statistics.percentiles(each, confidence) for name, each in ratios(*of_draws).items()}
    found: dict[str, Any] = {"n": int(total[0, AT["labels"]])}
    for name, value in values.items():
        found[name] = {"value": _known(value), "low": _known(spread[name].low), "high": _known(spread[name].high)}
    return found


def ratios(sums: F64, one_step: F64 | None = None) -> dict[str, Any]:
    """Figures of sums [..., SUMS], and of those of classes where they stand behind; `one_step` are those one bar
    ahead."""
    classes = class_ratios(sums[..., len(SUMS) :]) if sums.shape[-1] > len(SUMS) else {}
    of = {name: sums[..., place] for name, place in AT.items()}
    first = np.nan if one_step is None else mean(one_step[..., AT["missed_naive"]], one_step[..., AT["scaled"]])
    return {
        "mae": mean(of["absolute"], of["labels"]), "mae_naive": mean(of["absolute_naive"], of["labels"]),
        "mse": mean(of["squared"], of["labels"]), "mse_naive": mean(of["squared_naive"], of["labels"]),
        "mase": mase(mean(of["missed"], of["scaled"]), first),
        "pinball": mean(of["pinball"], of["scaled"]), "pinball_naive": mean(of["pinball_naive"], of["scaled"]),
        "width": mean(of["width"], of["scaled"]), "width_naive": mean(of["width_naive"], of["scaled"]),
        "qlike": mean(of["qlike"], of["scaled"]), "qlike_naive": mean(of["qlike_naive"], of["scaled"]),
        "skill": skill(of["pinball"], of["pinball_naive"]), "skill_mae": skill(of["missed"], of["missed_naive"]),
        "coverage": mean(of["covered"], of["labels"]), "winkler": mean(of["winkler"], of["scaled"]),
        "directional": mean(of["right"], of["directed"]), **classes,
    }  # fmt: skip


def _plain(sums: F64) -> dict[str, float | None]:
    return {name: _known(value) for name, value in ratios(sums).items()}


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
