"""What the `params` of a command may ask of a job: which keys, and how large. Looked at before a folder is filled.

It knows no kind of model: the range of a kind's own numbers is wide, and keeps out only what no machine could hold.
"""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from tickcast.errors import CommandFault, CommandRefused
from tickcast.io.jobs.orders import BacktestOrder, EvaluateOrder, Retrain

FIT = {  # numbers of a fit: lowest and highest
    "lookback": (1, 10_000), "horizon": (1, 1_000), "batch_size": (1, 65_536), "accumulate": (1, 1_024),
    "epochs": (1, 100_000), "windows_per_epoch": (1, 100_000_000), "validation_windows": (1, 10_000_000),
    "rate_epochs": (1, 100_000), "patience": (1, 100_000), "threads": (1, 64), "seed": (0, 2**62),
    "time_budget_s": (0, 7 * 86_400), "checkpoint_s": (0, 7 * 86_400), "half_life_bars": (0, 10**9),
}  # fmt: skip
DEPLOYMENTS = (  # keys of a fit that this deployment answers, or another argument
    "job", "kind", "name", "model_params", "bars", "transform", "levels", "features", "future", "start", "created_ns",
    "tags", "scale", "against",
)  # fmt: skip
LARGEST = 1_000_000  # of whole numbers that no range is known of: a million units are no layer
MOST_ITEMS = 10_000


def _keys_of(kind: type[Struct], *others: str) -> tuple[str, ...]:
    """All that may be asked by `params`: the others the deployment or an argument says."""
    return tuple(name for name in kind.__struct_fields__ if name not in ("job", *others))


EVALUATE = _keys_of(EvaluateOrder, "groups", "seed")
BACKTEST = _keys_of(BacktestOrder, "settings", "fee_bps", "slippage_bps", "trials", "seed")
RETRAIN = _keys_of(Retrain)


def refuse_fit(params: Mapping[str, Any], *, named: tuple[str, ...] = ()) -> None:
    """`named` are keys that are the deployment's elsewhere."""
    for name, value in params.items():
        if name in DEPLOYMENTS and name not in named:
            raise _bad(f"`params.{name}` is not for a command: the deployment's settings or an argument say it")
        low, high = FIT.get(name, (-LARGEST, LARGEST))
        _refuse_beyond(f"params.{name}", value, low, high)


def refuse_space(space: Mapping[str, Any]) -> None:
    for name, wanted in space.items():
        ends = [end for end in (wanted.low, wanted.high, *wanted.choices) if end is not None]
        refuse_fit({name: ends})


def refuse_others(params: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for name in params:
        if name not in known:
            raise _bad(f"there is no `params.{name}`; known: {', '.join(known) or 'none'}")


def refuse_backtest(params: Mapping[str, Any]) -> None:
    refuse_others(params, BACKTEST)
    retrain = params.get("retrain", {})
    if not isinstance(retrain, dict) or not isinstance(retrain.get("params", {}), dict):
        raise _bad("`params.retrain` and its `params` are objects")
    refuse_others(retrain, RETRAIN)
    refuse_fit(retrain.get("params", {}), named=("name",))


def _refuse_beyond(name: str, value: Any, low: float, high: float) -> None:
    if isinstance(value, dict | list):
        if len(value) > MOST_ITEMS:
            raise _bad(f"`{name}` has {len(value)} entries; {MOST_ITEMS} are taken")
        for inner in value.values() if isinstance(value, dict) else value:
            _refuse_beyond(name, inner, low, high)
    elif isinstance(value, int | float) and not isinstance(value, bool) and not low <= value <= high:
        raise _bad(f"`{name}` is {value}, it may be {low} to {high}")


def _bad(message: str) -> CommandRefused:
    return CommandRefused(CommandFault.BAD_ARGUMENT, message)
