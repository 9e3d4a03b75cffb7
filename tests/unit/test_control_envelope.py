"""Each way in which an envelope may be wrong is refused with its own code, and in the order that tells least."""

import base64
import hashlib
import json
from typing import Any

import pytest

from controlkit import HERE, KEYS, NOW_MS, SECRET, SIGNERS, changed, opened, sealed, signed_anew
from tickcast.errors import BadRequest, BadSettings, CommandFault, CommandRefused
from tickcast.live.commands.envelope import MOST_DEPTH, own_audience
from tickcast.live.commands.keys import Key, Signer
from tickcast.settings.service import ControlSettings

GOOD = sealed("forecast", {"symbols": ["A", "é"]})
FORGED = Signer("hmac-sha256", KEYS["admin"].material)  # a public key taken for a secret


def fault(raw: bytes, **given: Any) -> str:
    with pytest.raises(CommandRefused) as refused:
        opened(raw, **given)
    assert isinstance(refused.value, BadRequest)
    return refused.value.code


def body(text: str) -> bytes:
    """A genuine envelope with this body."""
    return signed_anew(GOOD, body=text)


@pytest.mark.parametrize("role", [*SIGNERS, "shared"])
def test_what_was_sealed_is_what_is_opened(role: str) -> None:
    order = opened(sealed("forecast", {"symbols": ["A"]}, role=role, audience="fleet"))
    assert (order.id, order.audience, order.key, order.command) == ("one", "fleet", role, "forecast")
    assert order.role == ("admin" if role == "shared" else role)
    assert order.args == {"symbols": ["A"]}
    assert order.timestamp == NOW_MS


def test_the_signature_covers_the_fields_as_the_design_writes_them() -> None:
    envelope = json.loads(GOOD)
    text = "{id}.{timestamp}.{audience}.{body}".format(**envelope).encode()
    assert base64.b64decode(envelope["signature"]) == SIGNERS["admin"].sign(text)
    assert opened(GOOD).digest == hashlib.sha256(text).hexdigest()


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "malformed"),
        (b"[]", "malformed"),
        (b"{}", "malformed"),
        (b"\xff\xfe", "malformed"),
        (b"\xef\xbb\xbf" + GOOD, "malformed"),
        (GOOD + b"{}", "malformed"),
        (GOOD[:-1], "malformed"),
        (changed(GOOD, id=None), "malformed"),
        (changed(GOOD, signature=None), "malformed"),
        (changed(GOOD, more=1), "malformed"),
        (changed(GOOD, more=[[[[]]]]), "malformed"),
        (changed(GOOD, id=["one"]), "malformed"),
        (GOOD[:-1] + b',"id":"one"}', "malformed"),
        (GOOD.replace(b'"id":"one"', b'"id":"a.b"'), "malformed"),
        (changed(GOOD, id=""), "malformed"),
        (changed(GOOD, id="a" * 65), "malformed"),
        (changed(GOOD, id="one\n"), "malformed"),
        (changed(GOOD, id="ö"), "malformed"),
        (changed(GOOD, audience="tick.cast/0"), "malformed"),
        (changed(GOOD, timestamp=str(NOW_MS)), "malformed"),
        (changed(GOOD, timestamp=True), "malformed"),
        (changed(GOOD, timestamp=-1), "malformed"),
        (changed(GOOD, body={"command": "status", "args": {}}), "malformed"),
        (GOOD.replace(b'"one"', rb'"\ud800"'), "malformed"),
        (changed(GOOD, signature="not base64!"), "malformed"),
        (changed(GOOD, signature="A" * 200), "malformed"),
        (changed(GOOD, key="nobody"), "unknown_key"),
        (changed(GOOD, key="read"), "bad_signature"),
        (changed(GOOD, key="shared"), "bad_signature"),
        (changed(GOOD, id="two"), "bad_signature"),
        (changed(GOOD, timestamp=NOW_MS + 1), "bad_signature"),
        (changed(GOOD, audience="fleet"), "bad_signature"),
        (changed(GOOD, body='{"command":"drain","args":{}}'), "bad_signature"),
        (changed(GOOD, signature=""), "bad_signature"),
        (changed(GOOD, signature=base64.b64encode(bytes(64)).decode()), "bad_signature"),
        (sealed(audience="tickcast/1"), "wrong_audience"),
        (sealed(audience="other/0"), "wrong_audience"),
        (sealed(now_ms=NOW_MS - 300_001), "stale"),
        (sealed(now_ms=NOW_MS + 300_001), "stale"),
        (sealed(now_ms=2**63), "stale"),
        (body(""), "malformed"),
        (body("[]"), "malformed"),
        (body('{"command":"status"}'), "malformed"),
        (body('{"command":"status","args":{},"more":1}'), "malformed"),
        (body('{"command":"status","command":"drain","args":{}}'), "malformed"),
        (body('{"command":"status","args":{"a":{"b":1,"b":2}}}'), "malformed"),
        (body('{"command":"status","args":[]}'), "malformed"),
        (body('{"command":"status","args":{"a":NaN}}'), "malformed"),
        (body('{"command":"status","args":{"a":1e999}}'), "malformed"),
        (body('{"command":"status","args":{"a":' + "9" * 5000 + "}}"), "malformed"),
        (body('{"command":"status","args":{"a":"\\ud800"}}'), "malformed"),
        (body('{"command":"' + "a" * 65 + '","args":{}}'), "malformed"),
        (body('{"command":"status","args":{"a":' + "[" * 100_000), "malformed"),
    ],
)
def test_each_mistake_has_its_code(raw: bytes, code: str) -> None:
    assert fault(raw) == code


def test_an_envelope_is_oversized_from_the_first_byte_above_the_bound() -> None:
    assert opened(GOOD, settings=ControlSettings(max_bytes=len(GOOD)))
    assert fault(GOOD, settings=ControlSettings(max_bytes=len(GOOD) - 1)) == "oversized"


def test_the_age_is_bounded_to_the_millisecond_on_both_sides() -> None:
    for now_ms in (NOW_MS - 300_000, NOW_MS + 300_000):
        assert opened(GOOD, now_ms=now_ms)
    for now_ms in (NOW_MS - 300_001, NOW_MS + 300_001):
        assert fault(GOOD, now_ms=now_ms) == "stale"


def test_a_body_may_be_as_deep_as_the_bound_and_brackets_in_texts_do_not_count() -> None:
    inner = MOST_DEPTH - 2  # the body's object, and its args
    deep = '{"command":"status","args":{"a":' + "[" * inner + "]" * inner + ',"b":"[[[[\\"[[{{{{{{{{{{{{{{"}}'
    assert opened(body(deep)).args["b"] == '[[[["[[{{{{{{{{{{{{{{'
    assert fault(body(deep.replace("[]", "[[]]", 1))) == "malformed"


def test_the_public_key_of_one_algorithm_is_no_secret_of_another() -> None:
    forged = changed(sealed(private=FORGED), key="admin")
    assert fault(forged) == "bad_signature"
    signed = changed(sealed(role="admin"), key="shared")
    assert fault(signed) == "bad_signature"


def test_a_shared_secret_of_another_is_refused() -> None:
    assert opened(sealed(role="shared"))
    assert fault(sealed(role="shared", private=Signer("hmac-sha256", b"t" * 40))) == "bad_signature"


def test_what_comes_first_is_told_first() -> None:
    """Nothing about times, bodies or audiences is told to who did not sign."""
    everything = changed(sealed(audience="other/0", now_ms=0), body="[", signature="")
    steps = [
        (everything, ControlSettings(max_bytes=10), CommandFault.OVERSIZED),
        (changed(everything, signature="!"), ControlSettings(), CommandFault.MALFORMED),
        (changed(everything, key="nobody"), ControlSettings(), CommandFault.UNKNOWN_KEY),
        (everything, ControlSettings(), CommandFault.BAD_SIGNATURE),
        (signed_anew(everything, body="["), ControlSettings(), CommandFault.WRONG_AUDIENCE),
        (signed_anew(everything, body="[", audience=HERE), ControlSettings(), CommandFault.STALE),
        (signed_anew(everything, body="[", audience=HERE, timestamp=NOW_MS), ControlSettings(), CommandFault.MALFORMED),
    ]
    assert [fault(raw, settings=settings) for raw, settings, _ in steps] == [code for *_, code in steps]


def test_neither_a_secret_nor_a_key_shows_itself() -> None:
    assert "sss" not in repr(SECRET)
    assert "material" not in repr(KEYS["shared"])
    assert isinstance(KEYS["shared"], Key)


@pytest.mark.parametrize("given", [{"id": "a.b"}, {"id": ""}, {"audience": "a.b/0"}, {"audience": ""}, {"key": "a b"}])
def test_nobody_seals_what_nobody_would_open(given: dict[str, str]) -> None:
    with pytest.raises(CommandRefused):
        sealed(**given)


def test_a_group_with_a_dot_could_not_be_addressed_and_is_refused() -> None:
    assert own_audience("tickcast", 3) == "tickcast/3"
    with pytest.raises(BadSettings, match=r"kafka\.group"):
        own_audience("tick.cast", 3)
