"""Which parameters a search tries, and from where to where: the kind's own ranges, those of training, the order's.

It draws nothing.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from tickcast.errors import BadSettings
from tickcast.io.jobs.orders import OF_TRAINING, FitOrder, TuneOrder, with_params
from tickcast.plugin import Model, Net, Parameter

INTERRUPTED = "interrupted"  # why a trial failed that is asked again
TELLING = 20  # complete trials before importance says anything: a quarter of them, five, then pass for good

Space = dict[str, Parameter]
Build = Callable[[FitOrder], Net | Model]  # an unfitted model; refuses parameters that do not go together

TRAINING: Space = {  # of a net, unless the order says otherwise
    "learning_rate": Parameter("float", 1e-4, 1e-2, log=True),
    "batch_size": Parameter("choice", choices=[256, 512, 1024]),
    "weight_decay": Parameter("float", 1e-6, 1e-2, log=True),
}


def space_of(order: TuneOrder, build: Build) -> tuple[Space, dict[str, Any]]:
    """The space, and the parameters in it that the order as it stands has: the first trial's."""
    model = build(order.fit)
    defaults = _defaults(model, order.fit)
    declared: Space = dict(getattr(model, "space", {}))
    if hasattr(model, "module"):
        declared |= TRAINING
    if unknown := {name for name, parameter in order.space.items() if parameter} - set(defaults):
        raise BadSettings(
            f"{order.fit.kind} has no parameter {', '.join(sorted(unknown))} to tune",
            remedy=f"there are {', '.join(sorted(defaults))}",
        )
    wanted = {name: parameter for name, parameter in {**declared, **order.space}.items() if parameter is not None}
    space = {name: _possible(name, parameter, order.fit, build) for name, parameter in sorted(wanted.items())}
    if not space:
        raise BadSettings(f"{order.fit.kind} has nothing to tune", remedy="give a space")
    for name, parameter in space.items():
        if not parameter.holds(defaults[name]):
            raise BadSettings(
                f"{name} = {defaults[name]} of the order lies outside of what may be tried",
                remedy=f"widen space.{name}, or set it to null to keep the value",
            )
    return space, {name: defaults[name] for name in space}


def _defaults(model: Net | Model, fit: FitOrder) -> dict[str, Any]:
    training = {name: getattr(fit, name) for name in OF_TRAINING} if hasattr(model, "module") else {}
    if training:
        training["learning_rate"] = fit.rate
    params = getattr(model, "params", None)
    return training | (msgspec.to_builtins(params) if isinstance(params, msgspec.Struct) else {})


def _possible(name: str, parameter: Parameter, fit: FitOrder, build: Build) -> Parameter:
    """Without the choices that this lookback, horizon or these features rule out; a range must be possible whole."""
    if parameter.kind != "choice":
        for end in (parameter.low, parameter.high):
            build(with_params(fit, {name: int(end) if parameter.kind == "int" else end}))
        return parameter
    kept, why = [], ""
    for choice in parameter.choices:
        try:
            build(with_params(fit, {name: choice}))
            kept.append(choice)
        except BadSettings as error:
            why = str(error)
    if not kept:
        raise BadSettings(f"no choice for {name} is possible: {why}")
    return msgspec.structs.replace(parameter, choices=kept)
