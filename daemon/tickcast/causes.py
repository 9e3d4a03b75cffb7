"""What may have made a forecast wrong, in words: the names of causes, how near is near, and the sentence about one."""

from typing import Any

JUMP_MOVES = 8.0  # times the mean size of one-bar moves is a jump: of normal ones, 6.4 standard deviations
NEAR_BARS = 5  # that a gap or a jump has an after
ODD_PCT = 25  # of the inputs; where nothing has changed, 10 % of the values are odd
OLD_SHARE = 0.5  # of the span that it was trained on: so much has come since for a model to be old
WORST_SHARE = 0.1
LEAST_LIFT, LEAST_SHARE = 1.5, 0.02  # that are worth a sentence

CAUSES = {  # in the order of what each counts; how a sentence says it
    "after_gap": f"lie within {NEAR_BARS} bars after a gap",
    "after_jump": f"lie within {NEAR_BARS} bars after a jump",
    "jump": "had a jump come before their target",
    "wild": "were made in a wild regime",
    "calm": "were made in a calm regime",
    "odd_inputs": f"had more than {ODD_PCT} % of their inputs out of range",
    "stand_in": "were made by a stand-in for the model",
    "old_model": "are of a model that is old for what it was trained on",
}


def is_said(row: dict[str, Any]) -> bool:
    """Whether a row of causes is beyond chance, and large enough to be told."""
    return not row["insufficient"] and row["lift_low"] > 1 and row["lift"] >= LEAST_LIFT and row["share"] >= LEAST_SHARE


def sentence(row: dict[str, Any]) -> str:
    return (
        f"{100 * row['share']:.0f} % of the worst tenth at step {row['step']} {CAUSES[row['cause']]}, of all forecasts "
        f"{100 * row['base']:.1f} %: {row['lift']:.1f} times as often ({row['lift_low']:.1f} to {row['lift_high']:.1f})"
    )


def sentences(rows: list[dict[str, Any]]) -> dict[str, str]:
    """By cause that is beyond chance, in the order of `rows`: of its step where it is the most."""
    said: dict[str, str] = {}
    for row in filter(is_said, rows):
        said.setdefault(row["cause"], sentence(row))
    return said
