"""The signed envelope that a command travels in: sealing one, and opening one that anybody may have written.

Pure. What is looked at before the signature holds is size, shape and key, and nothing is built of a body before.
"""

import base64
import hashlib
import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, NoReturn

import msgspec
from msgspec import Meta

from tickcast.errors import BadSettings, CommandFault, CommandRefused
from tickcast.live.commands.keys import Key, KeyId, Keys, Role, Signer
from tickcast.settings.service import ControlSettings

FLEET = "fleet"
MOST_DEPTH = 16  # of lists and objects in a body

# No start fails and nothing is tried twice, whatever a stranger writes: a text without an end goes up to the end.
STRINGS = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
BRACKETS = re.compile(r"[\[\]{}]")


class Envelope(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A signed command. `signature` covers the UTF-8 of `id.timestamp.audience.body`, each as it stands here."""

    id: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$(?!\n)", description="used once; fresh for each command")]
    timestamp: Annotated[int, Meta(ge=0, description="ms since 1970")]
    audience: Annotated[
        str, Meta(pattern=r"^[^.]+$", max_length=300, description="`fleet`, or `<kafka.group>/<kafka.slot>`")
    ]
    key: KeyId
    body: Annotated[str, Meta(description="the JSON text of an object with `command` and `args`")]
    signature: Annotated[str, Meta(max_length=128, description="base64")]

    def signed_text(self) -> bytes:
        return f"{self.id}.{self.timestamp}.{self.audience}.{self.body}".encode()


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    command: Annotated[str, Meta(max_length=64)]
    args: dict[str, Any]


@dataclass(frozen=True, slots=True)
class SignedCommand:
    """A command of which it is certain who gave it, to us, and not long ago."""

    id: str
    audience: str
    key: str
    role: Role
    command: str
    args: dict[str, Any]
    timestamp: int  # ms since 1970
    digest: str  # SHA-256 of the text that was signed


class Genuine(NamedTuple):
    """An envelope that is addressed to us and signed by a key that we know."""

    envelope: Envelope
    key: Key


def own_audience(group: str, slot: int) -> str:
    """How this daemon alone is addressed."""
    if "." in group:
        raise BadSettings(
            f"kafka.group '{group}' holds a dot: no command could be addressed to this daemon",
            remedy="rename the group, or leave control.keys_file out",
        )
    return f"{group}/{slot}"


def seal(
    command: str, args: dict[str, Any], *, id: str, audience: str, key: str, private: Signer, now_ms: int
) -> bytes:
    """The envelope as bytes, signed in the name of `key`."""
    body = msgspec.json.encode(Body(command, args)).decode()
    envelope = Envelope(id=id, timestamp=now_ms, audience=audience, key=key, body=body, signature="")
    signature = base64.b64encode(private.sign(envelope.signed_text())).decode()
    sealed = msgspec.json.encode(msgspec.structs.replace(envelope, signature=signature))
    _flat(sealed)  # refuses an id or audience that nobody would accept
    return sealed


def verify(raw: bytes, keys: Keys, *, audiences: Collection[str], settings: ControlSettings) -> Genuine:
    """What fails here may come from a stranger, or is meant for others: it deserves no answer."""
    if len(raw) > settings.max_bytes:
        _refuse(CommandFault.OVERSIZED, f"{len(raw)} bytes; control.max_bytes is {settings.max_bytes}")
    envelope, signature, text = _flat(raw)
    key = keys.get(envelope.key)
    if key is None:
        _refuse(CommandFault.UNKNOWN_KEY, f"there is no key '{envelope.key}'")
    if not key.has_signed(text, signature):
        _refuse(CommandFault.BAD_SIGNATURE, f"not signed by the key '{key.id}'")
    if envelope.audience not in audiences:
        _refuse(CommandFault.WRONG_AUDIENCE, f"meant for '{envelope.audience}'")
    return Genuine(envelope, key)


def read(genuine: Genuine, *, now_ms: int, settings: ControlSettings) -> SignedCommand:
    """What fails here was sent to us by somebody whom we know: he is told."""
    envelope, key = genuine
    late_ms = now_ms - envelope.timestamp
    if abs(late_ms) > settings.max_age_s * 1000:
        _refuse(
            CommandFault.STALE, f"its timestamp is {late_ms / 1000:.0f} s behind our clock",
            remedy=f"control.max_age_s allows {settings.max_age_s}; see both clocks",
        )  # fmt: skip
    body = _body(envelope.body)
    digest = hashlib.sha256(envelope.signed_text()).hexdigest()
    return SignedCommand(
        id=envelope.id, audience=envelope.audience, key=key.id, role=key.role, command=body.command, args=body.args,
        timestamp=envelope.timestamp, digest=digest,
    )  # fmt: skip


def _flat(raw: bytes) -> tuple[Envelope, bytes, bytes]:
    """The envelope, its signature and what was signed. All fields are scalars, so there is no depth to bound."""
    try:
        text = raw.decode()
        envelope = msgspec.json.decode(text, type=Envelope)
        fields = len(json.loads(text, object_pairs_hook=list))
        signature = base64.b64decode(envelope.signature, validate=True)
        signed = envelope.signed_text()
    except (ValueError, msgspec.MsgspecError) as error:
        _refuse(CommandFault.MALFORMED, f"no envelope: {error}")
    if fields != len(Envelope.__struct_fields__):
        _refuse(CommandFault.MALFORMED, "no envelope: a field is there twice")
    return envelope, signature, signed


def _body(text: str) -> Body:
    depth = 0
    for bracket in BRACKETS.findall(STRINGS.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > MOST_DEPTH:
            _refuse(CommandFault.MALFORMED, f"the body is nested more than {MOST_DEPTH} deep")
    try:
        plain = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number, parse_float=_finite)
        msgspec.json.encode(plain)  # half a surrogate pair could not be kept
        return msgspec.convert(plain, Body)
    except (ValueError, OverflowError, msgspec.MsgspecError) as error:
        _refuse(CommandFault.MALFORMED, f"the body is no command: {error}")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field is there twice")
    return found


def _finite(text: str) -> float:
    value = float(text)
    return value if abs(value) != float("inf") else _no_number(text)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _refuse(fault: CommandFault, message: str, *, remedy: str = "") -> NoReturn:
    raise CommandRefused(fault, message, remedy=remedy)
