"""Whatever bytes come: they are refused with a known code, or they are the command that was signed."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlkit import KEYS, opened, sealed, signed_anew
from tickcast.control.arguments import ACCEPTED, parse
from tickcast.control.envelope import Order
from tickcast.errors import CommandFault, CommandRefused

GOOD = sealed("forecast", {"symbols": ["A", "é"], "model": "m"}, audience="fleet")
ORDER = opened(GOOD)
FAULTS = {fault.value for fault in CommandFault}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from(["id", "timestamp", "audience", "key", "body", "signature", "more"])


def outcome(raw: bytes) -> Order | None:
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
