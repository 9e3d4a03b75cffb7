"""Each reason has a remedy that names what exists, and what came from outside is shown without harm."""

import re

import pytest

from tickcast import remedies
from tickcast.errors import Reason
from tickcast.settings import Settings, load

PLAIN = Settings()


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.ACCEPTED])
def test_every_reason_has_a_remedy_whose_settings_exist(reason: Reason) -> None:
    said = remedies.remedy(reason, PLAIN)
    assert said
    for section, key in re.findall(r"\b([a-z]+)\.([a-z_]+)\b", said):
        assert key in type(getattr(PLAIN, section)).model_fields, said


@pytest.mark.parametrize(
    ("time", "unit"),
    [("1795966269", "s"), ("1795966269368", "ms"), ("1795966269368000", "us"), ("1795966269368000000", "ns"),
     ("1795966269.5", "s"), ("17", ""), ("9" * 40, ""), ("nan", ""), ("monday", ""), ("", "")],
)  # fmt: skip
def test_a_time_of_our_days_gives_its_unit_away(time: str, unit: str) -> None:
    assert remedies.unit_of(time) == unit


def test_a_feed_in_milliseconds_is_told_as_such() -> None:
    said = remedies.sentence({"wrong_unit": 196}, PLAIN, {"wrong_unit": "1795966269368"})
    assert said == (
        "196 of 196 ticks were refused (wrong_unit): 1795966269368 looks like milliseconds: set codec.time_unit = 'ms'"
    )


def test_a_time_that_overflows_in_the_unit_that_is_set_is_told_by_its_own() -> None:
    seconds, _ = load(overrides={"codec.time_unit": "s"}, environ={})
    assert "set codec.time_unit = 'ns'" in remedies.remedy(Reason.BAD_TIME, seconds, "1795966269368000000")
    assert "'soon' cannot be read as a time" in remedies.remedy(Reason.BAD_TIME, seconds, "soon")


def test_a_preset_has_its_own_unit_and_is_what_is_to_be_changed() -> None:
    binance, _ = load(overrides={"codec.preset": "binance-trade"}, environ={})
    said = remedies.remedy(Reason.WRONG_UNIT, binance, "1795966269368000")
    assert "looks like microseconds" in said
    assert "codec.preset = 'binance-trade'" in said


def test_a_missing_field_is_told_with_those_that_are_there() -> None:
    assert "it has: instrument, time, px" in remedies.remedy(Reason.MISSING_FIELD, PLAIN, "instrument, time, px")


def test_late_ticks_and_several_reasons_are_counted_and_the_first_has_the_remedy() -> None:
    assert remedies.sentence({"accepted": 1, "late": 9}, PLAIN).startswith("9 of 10 ticks were late: ")
    said = remedies.sentence({"accepted": 5, "missing_field": 2, "crossed": 7, "late": 1, "jump": 1}, PLAIN)
    assert said.startswith("11 of 16 ticks were refused (crossed 7, missing_field 2, jump 1): the bid is above")


def test_other_events_and_held_ticks_are_no_refusals() -> None:
    assert remedies.refused({"accepted": 1, "held": 1, "other_event": 50, "late": 1}) == (1, 3)
    assert not remedies.mostly_refused({"accepted": 1, "other_event": 50})
    assert not remedies.mostly_refused({})
    assert not remedies.mostly_refused({"accepted": 5, "late": 5})
    assert remedies.mostly_refused({"accepted": 4, "late": 5})
    assert not remedies.sentence({"accepted": 3, "other_event": 7, "held": 1}, PLAIN)


def test_what_a_message_holds_is_shown_short_and_printable() -> None:
    said = remedies.remedy(Reason.BAD_SYMBOL, PLAIN, "\x1b[2J" + "A" * 5000)
    assert "\x1b" not in said
    assert len(said) < 250
