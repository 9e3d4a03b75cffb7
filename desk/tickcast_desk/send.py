"""`tickcast send`: seals a command, produces it to the control topic, and waits for replies. It carries nothing out.

What it is told as `key=value` is read as the command's schema wants it, and refused here where it does not fit.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from tickcast.clock import Clock, fresh_id
from tickcast.control import arguments
from tickcast.control.envelope import FLEET, seal
from tickcast.control.keys import Signer
from tickcast.edges.control_messages import CONTROL, REPLIES
from tickcast.edges.kafka.exchange import Question, exchange
from tickcast.errors import EXIT_DIED, EXIT_OK, BadRequest, BadSettings
from tickcast.records import Reply
from tickcast.settings import Settings, parse
from tickcast_desk.topics import count_partitions, silent_client

NAMED_BY = "topics.prefix"


@dataclass(frozen=True, slots=True)
class Request:
    command: str
    args: dict[str, Any]
    audience: str
    key: str
    private: Signer
    timeout_s: float


@dataclass(slots=True)
class Replies:
    """What came for one command. `expected` daemons were asked; the last word of each counts."""

    id: str
    expected: int
    by: dict[str, Reply] = field(default_factory=dict)

    def more(self, message: bytes) -> bool:
        """Take a message of the topic, ours or another's; says whether a reply is still to come."""
        try:
            reply = msgspec.json.decode(message, type=Reply)
        except msgspec.MsgspecError:
            return True  # of another version, or by another program
        earlier = self.by.get(reply.served_by)
        if reply.id == self.id and (earlier is None or not earlier.final):
            self.by[reply.served_by] = reply
        return not self.complete

    @property
    def missing(self) -> int:
        return max(self.expected - sum(reply.final for reply in self.by.values()), 0)

    @property
    def complete(self) -> bool:
        return not self.missing

    @property
    def ok(self) -> bool:
        return self.complete and all(reply.ok for reply in self.by.values())


def make_args(command: str, pairs: Sequence[str]) -> dict[str, Any]:
    """`symbols=A,B params.epochs=3` as the command's arguments; BadRequest where they do not fit it."""
    schema = arguments.schema(command)
    fields = schema["$defs"][schema["$ref"].rpartition("/")[2]]["properties"]
    args: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        *path, last = name.split(".")
        place = args
        for part in path:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise BadRequest(f"'{pair}': {part} has a value of its own")
        if not equals or last in place:
            raise BadRequest(f"'{pair}' is not of the form key=value, each key once")
        place[last] = parse(text) if path else _value(text, fields.get(name, {}))
    arguments.parse(command, args)
    return args


def _value(text: str, field: dict[str, Any]) -> Any:
    """A text stays one where the schema wants one, whatever it looks like; a list may come without its brackets."""
    kinds = {branch.get("type") for branch in field.get("anyOf", [field])}
    if "string" in kinds:
        return text
    if kinds == {"array"} and not text.startswith("["):
        parts = [part for part in text.split(",") if part]
        return parts if field["items"].get("type") == "string" else [parse(part) for part in parts]
    return parse(text)


async def send(settings: Settings, request: Request, *, clock: Clock) -> Replies:
    """Returns when all that were asked have given their last reply, or the time is over."""
    if settings.bus.kind != "kafka":
        raise BadSettings("commands are sent through Kafka", remedy="set bus.kind = kafka; docs/control.md has more")
    kafka, (control, answers) = settings.kafka, (settings.topics.prefix + name for name in (CONTROL, REPLIES))
    replies = Replies(fresh_id(), kafka.slots if request.audience == FLEET else 1)
    sealed = seal(
        request.command, request.args, id=replies.id, audience=request.audience, key=request.key,
        private=request.private, now_ms=clock.now_ns() // 10**6,
    )  # fmt: skip
    await count_partitions(kafka, control, named_by=NAMED_BY)
    partitions = await count_partitions(kafka, answers, named_by=NAMED_BY)
    question = Question(control, request.audience.encode(), sealed)
    with silent_client():
        await exchange(kafka, question, answers, partitions, timeout_s=request.timeout_s, more=replies.more)
    return replies


def print_replies(replies: Replies, *, as_json: bool) -> int:
    """The replies, merged; returns the exit code, 0 when everyone that was asked has done it."""
    answers = [reply for _, reply in sorted(replies.by.items())]
    if as_json:
        plain = [msgspec.to_builtins(reply) for reply in answers]
        print(json.dumps({"id": replies.id, "ok": replies.ok, "missing": replies.missing, "replies": plain}))
        return EXIT_OK if replies.ok else EXIT_DIED
    for reply in answers:
        state = ("done" if reply.final else "accepted, not yet done") if reply.ok else reply.error_code
        print(f"{reply.served_by}: {reply.command} {state}, {reply.elapsed_ms:.1f} ms")
        print(json.dumps(reply.result, indent=2) if reply.ok else reply.error)
    if replies.missing:
        print(f"{replies.missing} of {replies.expected} did not answer in time; id {replies.id}", file=sys.stderr)
    return EXIT_OK if replies.ok else EXIT_DIED
