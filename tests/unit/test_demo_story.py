"""What the demo tells of a daemon: alerts, decisions, who serves; each once and in order."""

import msgspec
import pytest

from tickcast.io.store.ledger_rows import DecisionRow
from tickcast.records import Alert
from tickcast.ui.demo_story import DemoStory, goes_on

TERMS = {"needed_blocks": 12.0, "block_bars": 2, "refusal": ""}
WON = {"skill": 0.25, "blocks": 17, "log_e": 3.751, "log_needed": 3.689, "role": "former", "verdict": "worse"}


def decision(sequence: int, kind: str, event: str, **evidence: object) -> DecisionRow:
    return DecisionRow(
        at_ns=sequence, action=f"{kind}.1", kind=kind, event=event, why=["drift with worse skill"], sequence=sequence,
        evidence_json=msgspec.json.encode(evidence).decode(),
    )  # fmt: skip


def alert(event: str) -> Alert:
    return Alert(
        name="drift", subject="skill t/0", severity="warning", event=event, detail="1 streams: a", meaning="",
        remedy="", runbook="", first_ns=0, last_ns=0, ended_ns=None, at_ns=0, raised_by="",
    )  # fmt: skip


TOLD = {
    ("fit", "begun"): "a fit is ordered: drift with worse skill",
    ("fit", "done"): "fitted in 2.5 s of processor time: better on its hold-out, it needs about 12 blocks of 2 bars",
    ("shadow", "begun"): None,
    ("shadow", "done"): "the candidate answers in shadow; it needs about 12 blocks of 2 bars",
    ("promote", "done"): "the candidate was promoted: +25.0% beside who served, over 17 blocks, ln e 3.75 of 3.69",
    (
        "end_shadow",
        "done",
    ): "the shadow of the former ends: worse, +25.0% beside who served, over 17 blocks, ln e 3.75 of 3.69",
    (
        "step_down",
        "done",
    ): "last value took the model's place: +25.0% beside who served, over 17 blocks, ln e 3.75 of 3.69",
    (
        "rollback",
        "done",
    ): "who served before was taken back: +25.0% beside who served, over 17 blocks, ln e 3.75 of 3.69",
    ("promote", "failed"): "promote failed: too late",
}


def test_each_decision_is_told_once_in_its_order_at_the_time_of_the_market() -> None:
    rows = [
        decision(n, kind, event, terms=TERMS, cpu_s=2.5, reason="too late", **WON)
        for n, (kind, event) in enumerate(TOLD)
    ]
    story = DemoStory()
    for known in range(1, len(rows) + 1):
        story.decided(rows[:known][::-1], lambda at_ns: 100 + at_ns)  # newest first, as `history` has them
        story.gather()
    assert story.lines == [(100 + n, text) for n, text in enumerate(TOLD.values()) if text]
    assert [row.sequence for row in story.done("promote")] == [4]


def test_alerts_are_told_when_they_begin_and_end_and_a_model_when_it_answers() -> None:
    story = DemoStory()
    for event in ("raised", "repeated", "ended"):
        story.alert(alert(event), 5)
    for model in ("ridge 012345", "ridge 012345", "naive"):
        story.serves(model, 4)
    story.gather()
    skill = "alert drift, skill t/0: "
    texts = "ridge 012345 serves", "naive serves", skill + "1 streams: a", skill + "has ended"
    assert story.lines == [(at_ns, text) for at_ns, text in zip((4, 4, 5, 5), texts, strict=True)]
    assert story.serving == "naive"


def test_a_refused_fit_says_why() -> None:
    story = DemoStory()
    story.decided([decision(0, "fit", "done", terms={**TERMS, "refusal": "too few"}, cpu_s=1)], lambda at_ns: at_ns)
    story.gather()
    assert story.lines[0].text == "fitted in 1.0 s of processor time: refused, too few"


@pytest.mark.parametrize(
    ("contests", "begun", "candidates", "text"),
    [
        ([("candidate", 9.0)], [], [], "the contest needs about 9 more blocks"),
        ([("candidate", None)], [], [], "the candidate is not ahead so far"),
        ([("last_value", 3.0)], ["fit"], [], "a fit is running"),
        ([], [], ["one"], "a candidate waits for its shadow"),
        ([("last_value", 3.0)], [], [], "no fit is due"),
    ],
)
def test_it_says_what_it_waits_for(
    contests: list[tuple[str, float | None]], begun: list[str], candidates: list[str], text: str
) -> None:
    told = {"contests": [{"role": role, "more_blocks": more} for role, more in contests]}
    assert goes_on({**told, "begun": [{"kind": kind} for kind in begun], "candidates": candidates}) == text
