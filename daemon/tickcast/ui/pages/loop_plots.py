"""What the arms of a replay of the loop did -> plots over event time. It draws only."""

from typing import Any

import numpy as np

from tickcast.columns import F64
from tickcast.ui.pages import svg

Figures = dict[str, Any]
WIDE = 1300
LANE = 26  # height of one
COLOURS = 6  # of served models, in turn; last value is grey
LOWEST = -1.0  # of evidence that is shown: what is no better loses without end
FEWEST_BELOW = 0.05
ROLES = (
    ("candidate", "a candidate"),
    ("former", "who served before"),
    ("last_value", "last value, in rounds"),
)
LANES = {"skill_low": "skill low", "coverage_off": "coverage"}
OF_JOBS = (("candidate", "fit: a candidate"), ("refused", "its hold-out spoke against it"), ("failed", "failed"))
DECIDED = {"promote": "good", "rollback": "bad", "step_down": "bad"}


def over_time(found: Figures, name: str, label: str, *, arms: list[str], level: float | None = None) -> str:
    """One figure of some arms, stretch by stretch; those with intervals as fitted are dashed."""
    shown = [arm for arm in found["arms"] if arm["key"] in arms]
    lines = [_numbers(arm["over_time"][name]) for arm in shown]
    factor = 1.0 if name == "width" else 100.0
    x = np.array(shown[0]["over_time"]["as_of_ns"], np.float64)

    def draw(width: int) -> svg.Plot:
        values = factor * np.concatenate(lines)
        include = [] if level is None else [factor * level]
        axis = svg.number_axis(values, label, include=include, margin=0.1)
        plot = svg.Plot(_times(found, width), axis, title=label, width=width, height=240)
        if level is not None:
            plot.line(np.array([found["from_ns"], found["to_ns"]]), np.full(2, factor * level), "ideal")
        for arm, line in zip(shown, lines, strict=True):
            plot.line(x, factor * line, arm["name"] + ("" if arm["adaptive"] else " fixed"))
        return plot

    keys = [(arm["name"], arm["title"] + ("" if arm["adaptive"] else " (dashed)")) for arm in shown]
    ideal = [] if level is None else [("ideal", "last value" if level == 0 else f"nominal, {level:.0%}")]
    return svg.legend(keys + ideal) + svg.fitted(draw, WIDE)


def lanes(found: Figures, arm: Figures) -> str:
    """Who served, which fits were done, what was alarmed."""
    judged = [alarm for alarm in arm["alarms"] if alarm["to_ns"] > found["from_ns"]]
    alarms = list(dict.fromkeys(alarm["name"] for alarm in judged))
    names = ["serves", "fits", *(LANES.get(name, name) for name in alarms)]
    height = svg.TOP + svg.BOTTOM + LANE * len(names)

    def draw(width: int) -> svg.Plot:
        plot = svg.Plot(_times(found, width), svg.lane_axis(names), title="Served", width=width, height=height)
        for span in arm["served"]:
            at, css = (span["from_ns"], span["to_ns"]), _colour(arm, span["model"])
            plot.box(at, _lane(0), css, span["model"], inside=span["model"])
        for job in arm["jobs"]:
            label = f"{job['model']}: {job['came']}, {', '.join(job['why'])} {job['reason']}"
            plot.box((job["ordered_ns"], job["ended_ns"] or found["to_ns"]), _lane(1), job["came"], label)
        for alarm in judged:
            lane = _lane(2 + alarms.index(alarm["name"]))
            plot.box((alarm["from_ns"], alarm["to_ns"]), lane, "alarm", alarm["name"])
        return plot

    keys = [key for key in OF_JOBS if any(job["came"] == key[0] for job in arm["jobs"])]
    return svg.legend(keys + ([("alarm", "alarm of drift, alert")] if alarms else [])) + svg.fitted(draw, WIDE)


def evidence(found: Figures, arm: Figures) -> str:
    """Of each contest that had a block: how much there was, in parts of what it needs."""
    runs = [run for run in arm["contests"] if run["at_ns"]]
    if not runs:
        return ""
    lines = [_evidence(run) for run in runs]
    lowest = min(float(np.nanmin(y)) for _, y in lines)

    def draw(width: int) -> svg.Plot:
        axis = svg.number_axis(np.array([max(lowest, LOWEST), 1.0]), "ln e / ln (1 / alpha)", include=[0.0, 1.0])
        plot = svg.Plot(_times(found, width), axis, title="Evidence of the contests", width=width, height=220)
        plot.line(np.array([found["from_ns"], found["to_ns"]]), np.ones(2), "ideal")
        for run, (x, y) in zip(runs, lines, strict=True):
            plot.line(x, np.clip(y, axis.low, axis.high), run["role"])
        for decision in arm["decisions"]:
            if decision["kind"] in DECIDED and not decision["refused"]:
                plot.dots(np.array([float(decision["at_ns"])]), np.ones(1), DECIDED[decision["kind"]])
        return plot

    keys = [key for key in ROLES if any(run["role"] == key[0] for run in runs)]
    return svg.legend([*keys, ("ideal", "enough")]) + svg.fitted(draw, WIDE)


def cpu(found: Figures, arms: list[str]) -> str:
    """What fits have cost so far."""
    shown = [arm for arm in found["arms"] if arm["key"] in arms]
    steps = [_spent(found, arm) for arm in shown]

    def draw(width: int) -> svg.Plot:
        axis = svg.number_axis(np.concatenate([y for _, y in steps]), "CPU seconds of fits", include=[0.0])
        plot = svg.Plot(_times(found, width), axis, title="CPU spent", width=width, height=180)
        for arm, (x, y) in zip(shown, steps, strict=True):
            plot.line(x, y, arm["name"])
        return plot

    return svg.legend([(arm["name"], arm["title"]) for arm in shown]) + svg.fitted(draw, WIDE)


def _spent(found: Figures, arm: Figures) -> tuple[F64, F64]:
    """As a staircase."""
    at = [job["ordered_ns"] for job in arm["jobs"]]
    total = np.concatenate([[0.0], np.cumsum(found["spent"][arm["key"]]["of_jobs"])])
    x = np.repeat(np.clip(np.array([*at, found["to_ns"]], np.float64), found["from_ns"], None), 2)[:-1]
    return np.concatenate([[float(found["from_ns"])], x]), np.repeat(total, 2)


def _evidence(run: Figures) -> tuple[F64, F64]:
    share = _numbers(run["log_e"]) / _numbers(run["log_needed"])
    begin = np.array([float(run["begun_ns"])])
    return np.concatenate([begin, np.array(run["at_ns"], np.float64)]), np.concatenate([np.zeros(1), share])


def _times(found: Figures, width: int) -> svg.Axis:
    return svg.time_axis(found["from_ns"], max(found["to_ns"], found["from_ns"] + 1), most=svg.ticks_for(width))


def _lane(number: int) -> tuple[float, float]:
    return -number - 0.34, -number + 0.34


def _colour(arm: Figures, model: str) -> str:
    known = [one for one in dict.fromkeys(span["model"] for span in arm["served"]) if one != "last value"]
    return "m0" if model == "last value" else f"m{1 + known.index(model) % COLOURS}"


def _numbers(values: list[float | None]) -> F64:
    return np.array([np.nan if value is None else value for value in values], np.float64)
