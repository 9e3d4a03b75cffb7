"""Whatever is raised, seen and ended in whatever order: what the book says of a subject is a story that makes sense."""

from collections import defaultdict
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tickcast.alerts import ALERTS
from tickcast.loop.alert_book import MOST_SUBJECTS, OTHERS, SECOND, AlertBook
from tickcast.records import Alert

NAMES = ("loop_lag", "disk_low")
SUBJECTS = st.sampled_from([*"abc", "x" * 500, "line\nbreak", *(f"s{n}" for n in range(MOST_SUBJECTS + 8))])
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["raise", "end", "see", "see many", "due", "restart"]), st.sampled_from(NAMES),
        st.lists(SUBJECTS, max_size=6), st.integers(-5, 40),
    ),
    max_size=60,
)  # fmt: skip


def new_book(was_open: list[Alert], at_ns: int) -> AlertBook:
    return AlertBook(repeat_every_s=30, quiet_s=10, raised_by="test/0", was_open=was_open, at_ns=at_ns)


def told(steps: list[tuple[str, str, list[str], int]]) -> tuple[AlertBook, list[Alert]]:
    """The book after the steps, and all that it said on the way; the clock is also set back now and then."""
    now, said = 10_000 * SECOND, list[Alert]()
    book = new_book([], now)
    for what, name, subjects, seconds in steps:
        now += seconds * SECOND
        if what == "see many":
            said += book.see(name, {f"s{n}": "d" for n in range(MOST_SUBJECTS + 8)}, now)
        elif what == "see":
            said += book.see(name, dict.fromkeys(subjects, "d"), now)
        elif what == "due":
            said += book.due(now)
        elif what == "restart":
            book = new_book(book.open(), now)
        else:
            act = book.raise_alert if what == "raise" else lambda n, s, _, at, book=book: book.end_alert(n, s, at)
            for subject in subjects:
                said += act(name, subject, f"of {subject}", now)
    return book, said


@given(STEPS)
def test_a_subject_is_raised_repeated_and_ended_in_turn_and_open_is_what_did_not_end(steps):
    book, said = told(steps)
    stories = defaultdict(list)
    for alert in said:
        stories[alert.name, alert.subject].append(alert)
    for story in stories.values():
        assert story[0].event == "raised"
        for before, after in pairwise(story):
            assert (after.event == "raised") == (before.event == "ended")
            assert after.event == "raised" or after.first_ns == before.first_ns
        assert all((alert.ended_ns is not None) == (alert.event == "ended") for alert in story)
    still = {key for key, story in stories.items() if story[-1].event != "ended"}
    assert {(alert.name, alert.subject) for alert in book.open()} == still


@given(STEPS)
def test_it_is_bounded_and_each_text_is_a_line(steps):
    book, said = told(steps)
    for name in NAMES:
        assert sum(alert.name == name for alert in book.open()) <= MOST_SUBJECTS + 1
    for alert in said:
        assert len(alert.subject) <= 96
        assert alert.subject.isprintable()
        assert alert.detail.isprintable()


@given(st.lists(st.sampled_from([(True,), (False, True)]), min_size=1, max_size=40))
def test_what_comes_and_goes_faster_than_the_quiet_time_is_one_alert(looks):
    book, said = new_book([], 0), []
    for second, is_so in enumerate(so for look in looks for so in look):
        said += book.see("loop_lag", {"loop": "d"} if is_so else {}, 9 * SECOND * second)
    assert [alert.event for alert in said] == ["raised"]


def test_one_stands_for_all_beyond_the_bound_until_there_is_room():
    book = new_book([], 0)
    for n in range(MOST_SUBJECTS + 3):
        book.raise_alert("disk_low", f"s{n:02}", "d", n)
    assert [alert.subject for alert in book.open()][-1] == OTHERS
    assert len(book.open()) == MOST_SUBJECTS + 1
    assert book.end_alert("disk_low", "s40", 99) == []
    assert [(a.subject, a.event) for a in book.end_alert("disk_low", "s00", 99)] == [
        ("s00", "ended"),
        (OTHERS, "ended"),
    ]
    book.raise_alert("disk_low", "x1", "d", 100)
    book.raise_alert("disk_low", "x2", "d", 100)
    still = dict.fromkeys([*(f"s{n:02}" for n in range(2, MOST_SUBJECTS)), "x1", "x2"], "d")
    book.see("disk_low", still, 101)
    ended = book.see("disk_low", still, 101 + 10 * SECOND)
    assert [(alert.subject, alert.event) for alert in ended] == [("s01", "ended")]  # x2 has to wait for its turn
    raised = book.see("disk_low", still, 102 + 10 * SECOND)
    assert [(alert.subject, alert.event) for alert in raised] == [("x2", "raised")]
    ended = book.see("disk_low", still, 103 + 20 * SECOND)
    assert [(alert.subject, alert.event) for alert in ended] == [(OTHERS, "ended")]


def test_where_there_is_room_again_a_subject_is_its_own():
    book = new_book([], 0)
    for n in range(MOST_SUBJECTS + 1):
        book.raise_alert("disk_low", f"s{n:02}", "d", n)
    book.end_alert("disk_low", "s00", 99)
    (raised,) = book.raise_alert("disk_low", f"s{MOST_SUBJECTS}", "d", 100)
    assert (raised.subject, raised.event) == (f"s{MOST_SUBJECTS}", "raised")


def test_a_record_says_what_the_list_says_and_when():
    book = new_book([], 0)
    (raised,) = book.raise_alert("loop_lag", "loop", "p99 300 ms", 5 * SECOND)
    kind = ALERTS["loop_lag"]
    assert (raised.severity, raised.meaning, raised.remedy) == (kind.severity, kind.meaning, kind.remedy)
    assert (raised.runbook, raised.raised_by) == ("docs/alerts.md#loop_lag", "test/0")
    assert book.raise_alert("loop_lag", "loop", "p99 400 ms", 20 * SECOND) == []
    assert book.due(34 * SECOND) == []
    (again,) = book.due(36 * SECOND)
    assert (again.event, again.detail, again.first_ns) == ("repeated", "p99 400 ms", 5 * SECOND)
    assert (again.last_ns, again.at_ns) == (20 * SECOND, 36 * SECOND)
    assert book.due(40 * SECOND) == []
    assert book.see("loop_lag", {}, 29 * SECOND) == []
    (ended,) = book.see("loop_lag", {}, 41 * SECOND)
    assert (ended.event, ended.ended_ns, ended.at_ns, ended.last_ns) == ("ended", 41 * SECOND, 41 * SECOND, 20 * SECOND)


def test_after_a_restart_what_was_open_goes_on_and_has_the_quiet_time_to_be_seen_again():
    book = new_book([], 0)
    book.raise_alert("loop_lag", "loop", "d", 0)
    book.raise_alert("disk_low", "store", "d", 0)
    after = new_book(book.open(), 1000 * SECOND)
    assert after.see("loop_lag", {}, 1005 * SECOND) == after.see("disk_low", {"store": "d"}, 1005 * SECOND) == []
    (ended,) = after.see("loop_lag", {}, 1010 * SECOND)
    assert (ended.name, ended.event, ended.first_ns) == ("loop_lag", "ended", 0)
    assert [alert.name for alert in after.open()] == ["disk_low"]
