"""What a daemon does by itself, in a person's words as it happens: alerts, decisions with their evidence, who serves.

It is told; it asks nobody and decides nothing. Times are those of the market.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgspec

from tickcast.io.store.ledger_rows import DecisionRow
from tickcast.records import Alert

Figures = dict[str, Any]


class StoryLine(NamedTuple):
    at_ns: int
    text: str


class DemoStory:
    def __init__(self) -> None:
        self.lines: list[StoryLine] = []
        self._heard: list[StoryLine] = []  # since; what is heard first need not have been first
        self.decisions: list[DecisionRow] = []  # those that were told, in their order
        self.serving = ""

    def tell(self, at_ns: int, text: str) -> None:
        self._heard.append(StoryLine(at_ns, text))

    def gather(self) -> None:
        """What was heard since, in the order of time."""
        self.lines += sorted(self._heard, key=lambda line: line.at_ns)
        self._heard.clear()

    def alert(self, alert: Alert, at_ns: int) -> None:
        if alert.event == "raised":
            self.tell(at_ns, f"alert {alert.name}, {alert.subject}: {alert.detail}")
        elif alert.event == "ended":
            self.tell(at_ns, f"alert {alert.name}, {alert.subject}: has ended")

    def decided(self, rows: Iterable[DecisionRow], event_ns: Callable[[int], int]) -> None:
        """Those that are new among them; `event_ns` tells which time the market had then."""
        newest = self.decisions[-1].sequence if self.decisions else -1
        for row in sorted(rows, key=lambda row: row.sequence):
            if row.sequence > newest:
                self.decisions.append(row)
                if text := _decision(row):
                    self.tell(event_ns(row.at_ns), text)

    def serves(self, model: str, at_ns: int) -> None:
        """Since then, where that is new."""
        if model != self.serving:
            self.tell(at_ns, f"{model} serves")
            self.serving = model

    def done(self, kind: str) -> list[DecisionRow]:
        return [row for row in self.decisions if (row.kind, row.event) == (kind, "done")]


def _decision(row: DecisionRow) -> str:
    found: Figures = msgspec.json.decode(row.evidence_json)
    words = {
        ("fit", "begun"): lambda: f"a fit is ordered: {', '.join(row.why)}",
        ("fit", "done"): lambda: f"fitted in {found['cpu_s']:.1f} s of processor time: {_hold_out(found['terms'])}",
        ("shadow", "done"): lambda: f"the candidate answers in shadow; it {_needs(found['terms'])}",
        ("end_shadow", "done"): lambda: f"the shadow of the {found['role']} ends: {found['verdict']}, {_won(found)}",
        ("promote", "done"): lambda: f"the candidate was promoted: {_won(found)}",
        ("rollback", "done"): lambda: f"who served before was taken back: {_won(found)}",
        ("step_down", "done"): lambda: f"last value took the model's place: {_won(found)}",
    }
    if row.event == "failed":
        return f"{row.kind} failed: {found['reason']}"
    return words.get((row.kind, row.event), str)()


def _hold_out(terms: Figures) -> str:
    return f"refused, {terms['refusal']}" if terms["refusal"] else f"better on its hold-out, it {_needs(terms)}"


def _needs(terms: Figures) -> str:
    return (
        f"needs about {terms['needed_blocks']:.0f} blocks of {terms['block_bars']} bar{'s' * (terms['block_bars'] > 1)}"
    )


def _won(found: Figures) -> str:
    evidence = f"ln e {found['log_e']:.2f} of {found['log_needed']:.2f}"
    return f"{found['skill']:+.1%} beside who served, over {found['blocks']} blocks, {evidence}"


def goes_on(told: Figures) -> str:
    """What the upkeep is waiting for, by what `status section=decisions` says."""
    for contest in told["contests"]:
        if contest["role"] == "candidate":
            more = contest["more_blocks"]
            return f"the contest needs about {more:,.0f} more blocks" if more else "the candidate is not ahead so far"
    if any(action["kind"] == "fit" for action in told["begun"]):
        return "a fit is running"
    return "a candidate waits for its shadow" if told["candidates"] else "no fit is due"
