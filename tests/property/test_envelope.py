"""Whatever bytes come: they are refused with a known code, or they are the command that was signed."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlkit import KEYS, opened, sealed, signed_anew
from tickcast.errors import CommandFault, CommandRefused
from tickcast.live.commands import envelope
from tickcast.live.commands.arguments import ACCEPTED, parse
from tickcast.live.commands.envelope import STRINGS, SignedCommand

GOOD = sealed("forecast", {"symbols": ["A", "é"], "model": "m"}, audience="fleet")
ORDER = opened(GOOD)
FAULTS = {fault.value for fault in CommandFault}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from(["id", "timestamp", "audience", "key", "body", "signature", "more"])


def outcome(raw: bytes) -> SignedCommand | None:
    """The command, or None where it was refused with a known code."""
    code = ""
    try:
        return opened(raw)  # type: ignore[no-any-return]
    except CommandRefused as refused:
        code = refused.code
    assert code in FAULTS
    return None


@given(st.binary(max_size=300))
def test_no_bytes_that_nobody_signed_are_a_command(raw: bytes) -> None:
    assert outcome(raw) is None


@given(st.data())
def test_an_envelope_with_bytes_changed_is_refused_or_says_the_same(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(GOOD)))
    upto = data.draw(st.integers(at, min(at + 4, len(GOOD))))
    assert outcome(GOOD[:at] + data.draw(st.binary(max_size=4)) + GOOD[upto:]) in (None, ORDER)


@pytest.mark.slow
@given(st.dictionaries(NAMES, JSON, min_size=1))
def test_an_envelope_with_fields_changed_is_refused_or_says_the_same(fields: dict[str, object]) -> None:
    found = outcome(json.dumps(json.loads(GOOD) | fields).encode())
    assert found in (None, ORDER)


@given(st.text(max_size=40) | JSON.map(json.dumps) | JSON.map(lambda args: json.dumps({"command": "a", "args": args})))
def test_whatever_a_friend_signs_is_a_command_or_has_a_code(body: str) -> None:
    try:
        raw = signed_anew(GOOD, body=body)
    except UnicodeEncodeError:
        return  # no text that could be signed
    found = outcome(raw)
    assert found is None or json.loads(body) == {"command": found.command, "args": found.args}


@given(st.text('"\\\\[]{}a\n', max_size=60))
def test_texts_are_passed_over_in_one_scan_and_hide_what_they_always_hid(text: str) -> None:
    """A quote that begins no match would have the scan begin anew behind it, and time grow with the square."""
    assert '"' not in STRINGS.sub("", text)
    scan_of_before = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
    whole = scan_of_before.sub("", text)
    assert STRINGS.sub("", text) == (whole if '"' not in whole else STRINGS.sub("", whole))


@given(
    st.text('"\\\\[]{}:,1 ', max_size=30).map(lambda args: '{"command":"a","args":' + args + "}") | JSON.map(json.dumps)
)
def test_a_body_is_read_as_it_was_by_the_scan_that_went_back(body: str) -> None:
    raw = signed_anew(GOOD, body=body)
    found = outcome(raw)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(envelope, "STRINGS", re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL))
        assert outcome(raw) == found


@pytest.mark.parametrize("piece", ['\\"', '"', '"\\', '"\\\\', '\\"[', '{"a":"'])
def test_a_body_as_large_as_may_be_is_refused_whatever_it_is_made_of(piece: str) -> None:
    assert outcome(signed_anew(GOOD, body=piece * (400_000 // len(piece)))) is None  # by the square: minutes


@pytest.mark.slow
@pytest.mark.parametrize("command", ACCEPTED)
@given(args=st.dictionaries(st.text(max_size=8), JSON, max_size=4))
def test_whatever_arguments_are_given_fit_or_have_a_code(command: str, args: dict[str, object]) -> None:
    names = list(ACCEPTED[command][0].__struct_encode_fields__)
    for given_args in (args, dict(zip(names, args.values()))):
        code = "bad_argument"
        try:
            parse(command, given_args)
        except CommandRefused as refused:
            code = refused.code
        assert code == "bad_argument"


def test_the_keys_differ_so_that_a_swap_is_noticed() -> None:
    assert len({key.material for key in KEYS.values()}) == len(KEYS)
