"""The params of a command are refused by key and by size before anything is done, with the range that would do."""

from typing import Any

import msgspec
import pytest

from storekit import card
from tickcast.engine.core.ladder import RUNGS
from tickcast.engine.inference.model_folder import RESERVED
from tickcast.errors import CommandRefused, ModelRefused
from tickcast.io.jobs.orders import NOT_TRAINING, BacktestOrder, EvaluateOrder, FitOrder, Retrain
from tickcast.io.models.models import refuse_bad_name
from tickcast.live.commands import job_params
from tickcast.live.commands.arguments import Range
from tickcast.live.commands.job_params import BACKTEST, DEPLOYMENTS, EVALUATE, FIT, RETRAIN


def refused(judge: Any, *given: Any) -> str:
    with pytest.raises(CommandRefused) as caught:
        judge(*given)
    assert caught.value.code == "bad_argument"
    return str(caught.value)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"threads": 3000}, "`params.threads` is 3000, it may be 1 to 64"),
        ({"threads": 0}, "1 to 64"),
        ({"hidden": 10**9}, "`params.hidden` is 1000000000, it may be -1000000 to 1000000"),
        ({"hidden": [8, 10**9]}, "params.hidden"),
        ({"stack": {"widths": [[10**9]]}}, "params.stack"),
        ({"widths": [1] * 10_001}, "10001 entries"),
        ({"epochs": float("1e300")}, "params.epochs"),
        ({"batch_size": -1}, "1 to 65536"),
        ({"features": [{"kind": "rsi", "path": "/etc/passwd"}]}, "deployment"),
        ({"bars": {}}, "deployment"),
        ({"start": {"mode": "warm"}}, "deployment"),
        ({"scale": "har"}, "deployment"),
        ({"against": {"alpha": 0.05, "most_bars": 100, "champion": True}}, "deployment"),
    ],
)
def test_what_a_fit_could_not_hold_or_may_not_say_is_refused(params: dict[str, Any], said: str) -> None:
    assert said in refused(job_params.refuse_fit, params)


def test_what_people_ask_of_a_fit_is_taken() -> None:
    job_params.refuse_fit({"epochs": 30, "hidden": [64, 64], "learning_rate": 1e-3, "recompute": True, "loss": "mae"})
    job_params.refuse_backtest({"draws": 500, "retrain": {"every_bars": 100, "params": {"name": "mine", "epochs": 1}}})
    job_params.refuse_space(
        {"hidden": Range(kind="int", low=8, high=256), "loss": Range(kind="choice", choices=("mae",))}
    )


def test_a_space_whose_end_could_not_be_held_is_refused() -> None:
    assert "params.hidden" in refused(job_params.refuse_space, {"hidden": Range(kind="int", low=8, high=10**9)})
    assert "threads" in refused(job_params.refuse_space, {"threads": Range(kind="choice", choices=(1, 3000))})


@pytest.mark.parametrize(
    "params",
    [
        {"settings": {"store": {"path": "/etc/passwd"}}}, {"job": "train"}, {"trials": 0}, {"seed": 1},
        {"retrain": {"folder": "/"}}, {"retrain": []}, {"retrain": {"params": {"features": []}}},
        {"retrain": {"params": {"threads": 3000}}},
    ],
)  # fmt: skip
def test_a_backtest_takes_its_own_keys_and_no_settings(params: dict[str, Any]) -> None:
    refused(job_params.refuse_backtest, params)


def test_an_evaluation_takes_its_own_keys() -> None:
    assert "known: horizons" in refused(job_params.refuse_others, {"groups": {}}, EVALUATE)
    job_params.refuse_others({"draws": 100, "horizons": [1]}, EVALUATE)


def test_the_keys_are_those_of_the_orders() -> None:
    """A field that an order gets must be given its range or its owner here."""
    numbers = {
        field.name for field in msgspec.structs.fields(FitOrder)
        if isinstance(field.default, int | float) and not isinstance(field.default, bool)
    }  # fmt: skip
    small = {"learning_rate", "weight_decay", "momentum", "rate_factor", "gradient_clip", "symbol_weight"}
    assert numbers - small - {"created_ns"} == set(FIT)
    assert {*DEPLOYMENTS, *FIT} <= set(FitOrder.__struct_fields__)
    assert set(NOT_TRAINING) - {"lookback", "horizon", "split"} == set(DEPLOYMENTS)
    for name, (low, high) in FIT.items():
        for value in (max(low, 1), high):
            FitOrder.of({"params": {name: value}})
    of_others = {"job", "settings", "fee_bps", "slippage_bps", "trials", "seed"}
    assert set(BACKTEST) == set(BacktestOrder.__struct_fields__) - of_others
    assert set(EVALUATE) == set(EvaluateOrder.__struct_fields__) - {"job", "groups", "seed"}
    assert set(RETRAIN) == set(Retrain.__struct_fields__)


def test_no_model_may_be_named_like_a_rung() -> None:
    assert set(RESERVED) == set(RUNGS)
    for name in RUNGS:
        with pytest.raises(ModelRefused, match="a rung"):
            refuse_bad_name(card(name))
