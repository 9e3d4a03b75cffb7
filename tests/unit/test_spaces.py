"""What may be tried: every kind's own ranges, those of training, and what an order makes of them."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

import zookit
from tickcast import plugin
from tickcast.batch.by_hand.optimize import space_of as read_space
from tickcast.batch.tune.spaces import TRAINING, space_of
from tickcast.errors import BadSettings
from tickcast.io.jobs.orders import FitOrder, TuneOrder, with_params
from tickcast.plugin import Parameter
from tickcast.records import FeatureSpec

TRAINABLE = [
    name for name in plugin.names("models")
    if hasattr(kind := plugin.find("models", name), "module") or hasattr(kind, "fit")
]  # fmt: skip


def build(order: FitOrder) -> Any:
    features = [FeatureSpec(name="parkinson", kind="parkinson", version=1)] * (order.kind == "realised_range")
    return zookit.net(
        order.kind, lookback=order.lookback, horizon=order.horizon, model_params=order.model_params, seed=order.seed,
        features=features,
    )  # fmt: skip


@pytest.mark.parametrize("kind", TRAINABLE)
def test_every_kind_that_is_fitted_says_what_may_be_tried_and_its_defaults_lie_within(kind: str) -> None:
    order = TuneOrder(fit=FitOrder(kind=kind))
    space, first = space_of(order, build)
    declared = plugin.find("models", kind).space
    assert space == {**declared, **(TRAINING if hasattr(plugin.find("models", kind), "module") else {})}  # all possible
    assert all(space[name].holds(value) for name, value in first.items())
    assert set(first) == set(space)


def test_every_end_and_choice_of_training_makes_an_order() -> None:
    for name, parameter in TRAINING.items():
        for value in parameter.choices or (parameter.low, parameter.high):
            assert getattr(with_params(FitOrder(), {name: value}), name) == value


def test_a_choice_that_this_window_rules_out_is_not_tried() -> None:
    space, _ = space_of(TuneOrder(fit=FitOrder(lookback=8)), build)
    assert space["pooling"].choices == [[1, 1, 1], [4, 2, 1], [8, 4, 1]]


def test_the_order_replaces_adds_and_withholds_parameters() -> None:
    asked = {
        "hidden": Parameter("choice", choices=[8, 64]), "loss": Parameter("choice", choices=["quantile", "huber"]),
        "layers": None, "learning_rate": None, "epochs": None,
    }  # fmt: skip
    space, first = space_of(TuneOrder(fit=FitOrder(), space=asked), build)
    assert set(space) == {"hidden", "pooling", "loss", "batch_size", "weight_decay"}
    assert space["hidden"].choices == [8, 64]
    assert first["loss"] == "quantile"
    assert first["hidden"] == 64


def test_the_first_trial_has_what_the_order_gives_and_the_default_rate_of_training() -> None:
    _, first = space_of(TuneOrder(fit=FitOrder(model_params={"hidden": 128}, batch_size=512)), build)
    assert (first["hidden"], first["batch_size"], first["learning_rate"]) == (128, 512, 1e-3)


@pytest.mark.parametrize(
    ("fit", "space", "said"),
    [
        ({}, {"wings": {"kind": "int", "low": 1, "high": 2}}, "no parameter wings"),
        ({"model_params": {"hidden": 48}}, {}, "hidden = 48"),
        ({}, {"layers": {"kind": "int", "low": 1, "high": 99}}, "layers"),
        ({}, {"hidden": {"kind": "choice", "choices": [1, 2]}}, "no choice for hidden"),
        ({"kind": "nlinear"}, dict.fromkeys(TRAINING), "nothing to tune"),
    ],
)
def test_a_space_that_cannot_be_tried_is_refused(fit: dict[str, Any], space: dict[str, Any], said: str) -> None:
    order = msgspec.convert({"fit": fit, "space": space}, TuneOrder)
    with pytest.raises(BadSettings, match=said):
        space_of(order, build)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "int", "low": 3, "high": 3}, {"kind": "float", "low": 0, "high": 1, "log": True}, {"kind": "choice"},
        {"kind": "dice"}, {"kind": "int", "low": 1, "high": 2, "step": 1},
    ],
)  # fmt: skip
def test_a_parameter_that_says_nothing_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(wrong, Parameter)


def test_a_model_may_name_a_parameter_as_an_order_names_something_else() -> None:
    order = with_params(FitOrder(kind="kalman", bars={"kind": "time"}), {"bars": 700, "batch_size": 128})
    assert (order.bars, order.model_params, order.batch_size) == ({"kind": "time"}, {"bars": 700}, 128)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("16..64", Parameter("int", 16, 64)),
        ("1e-4..1e-2 log", Parameter("float", 1e-4, 1e-2, log=True)),
        ([[4, 2], [1]], Parameter("choice", choices=[[4, 2], [1]])),
        ("keep", None),
        ({"kind": "int", "low": 1, "high": 2}, Parameter("int", 1, 2)),
    ],
)
def test_a_person_may_give_a_space_in_short(text: Any, meant: Parameter | None) -> None:
    assert read_space(text) == meant


@pytest.mark.parametrize("text", ["16", 7, "a..b", "5..1", [], {"kind": "int"}])
def test_what_is_no_space_is_refused(text: Any) -> None:
    with pytest.raises(BadSettings):
        read_space(text)


def test_an_order_is_read_as_it_was_written_and_an_unknown_key_refused(tmp_path: Path) -> None:
    order = TuneOrder(fit=FitOrder(kind="micro"), trials=7, space={"layers": None, "smooth": Parameter("int", 1, 2)})
    order.write(tmp_path)
    assert TuneOrder.read(tmp_path) == order
    (tmp_path / "order.json").write_text('{"fit": {"params": {"hidden": 48}}, "space": {"layers": null}}')
    assert TuneOrder.read(tmp_path).space == {"hidden": None, "layers": None}  # what a person set is not tuned
    (tmp_path / "order.json").write_text('{"job": "optimize", "fit": {}, "direction": "maximise"}')
    with pytest.raises(BadSettings, match="direction"):
        TuneOrder.read(tmp_path)


def test_how_long_a_study_may_take_is_no_part_of_what_it_is() -> None:
    order = TuneOrder(fit=FitOrder())
    longer = msgspec.structs.replace(order, trials=90, seconds=9, workers=2)
    assert order.fingerprint("data") == longer.fingerprint("data")
    for changed in ({"seed": 1}, {"sampler": "gp"}, {"space": {"hidden": None}}, {"fit": FitOrder(seed=1)}):
        assert msgspec.structs.replace(order, **changed).fingerprint("data") != order.fingerprint("data")
    assert order.fingerprint("data") != order.fingerprint("other data")
