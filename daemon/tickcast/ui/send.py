"""`tickcast send`: seals a command, produces it to the control topic, waits for replies, and says of those who gave
none what the broker knows of them. It carries nothing out.

What it is told as `key=value` is read as the command's schema wants it, and refused here where it does not fit.
"""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from tickcast.clock import Clock, fresh_id
from tickcast.errors import EXIT_DIED, EXIT_OK, EXIT_UNFINISHED, BadRequest, BadSettings
from tickcast.io.kafka.by_hand import count_partitions, silent_client
from tickcast.io.kafka.exchange import MessagePlace, Question, exchange, was_read
from tickcast.live.commands import arguments
from tickcast.live.commands.envelope import FLEET, own_audience, seal
from tickcast.live.commands.keys import Signer, read_keys
from tickcast.records import Reply
from tickcast.settings import Settings, parse
from tickcast.settings.buses import KafkaSettings
from tickcast.topics import CONTROL, REPLIES

NAMED_BY = "topics.prefix"
CHECKS = "see --audience, kafka.group and topics.prefix, and that it runs with control.keys_file"


@dataclass(frozen=True, slots=True)
class SendRequest:
    command: str
    args: dict[str, Any]
    audience: str
    key: str
    private: Signer
    timeout_s: float


@dataclass(slots=True)
class Replies:
    """What came for one command from the daemons that were asked; the last word of each counts."""

    id: str
    asked: list[str]  # their audiences
    by: dict[str, Reply] = field(default_factory=dict)
    silent: dict[str, str] = field(default_factory=dict)  # who gave no reply at all, and why

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
        return max(len(self.asked) - sum(reply.final for reply in self.by.values()), 0)

    @property
    def complete(self) -> bool:
        return not self.missing

    @property
    def ok(self) -> bool:
        return self.complete and all(reply.ok for reply in self.by.values())

    @property
    def running(self) -> list[Reply]:
        """Of those who have begun and are still at work."""
        return [reply for reply in self.by.values() if not reply.final]

    @property
    def exit_code(self) -> int:
        if self.ok:
            return EXIT_OK
        begun = self.missing == len(self.running) and all(reply.ok for reply in self.by.values())
        return EXIT_UNFINISHED if begun else EXIT_DIED


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


async def send(settings: Settings, request: SendRequest, *, clock: Clock) -> Replies:
    """Returns when all that were asked have given their last reply, or the time is over."""
    if settings.bus.kind != "kafka":
        raise BadSettings("commands are sent through Kafka", remedy="set bus.kind = kafka; docs/control.md has more")
    kafka, (control, answers) = settings.kafka, (settings.topics.prefix + name for name in (CONTROL, REPLIES))
    fleet = [own_audience(kafka.group, slot) for slot in range(kafka.slots)]
    replies = Replies(fresh_id(), fleet if request.audience == FLEET else [request.audience])
    sealed = seal(
        request.command, request.args, id=replies.id, audience=request.audience, key=request.key,
        private=request.private, now_ms=clock.now_ns() // 10**6,
    )  # fmt: skip
    await count_partitions(kafka, control, named_by=NAMED_BY)
    partitions = await count_partitions(kafka, answers, named_by=NAMED_BY)
    question = Question(control, request.audience.encode(), sealed)
    with silent_client():
        place = await exchange(kafka, question, answers, partitions, timeout_s=request.timeout_s, more=replies.more)
        if replies.missing > len(replies.running):
            for audience in replies.asked:
                if audience not in replies.by:
                    replies.silent[audience] = await _why_silent(kafka, audience, place, request.key)
    return replies


async def _why_silent(kafka: KafkaSettings, audience: str, place: MessagePlace, key: str) -> str:
    """A daemon tells strangers nothing; how far it has read its commands, the broker knows."""
    group, _, slot = audience.rpartition("/")
    if kafka.assignment == "group" or not (group and slot.isdecimal()):
        return "nobody answered: " + CHECKS
    of_slot = kafka.model_copy(update={"group": group, "slot": int(slot)})
    read = await was_read(of_slot, place)
    if read is None:
        return f"no daemon of that name ever took commands here: {CHECKS}"
    if not read:
        return "it has not read the command: it is not running, or busy; what is not stale by then it takes up later"
    return (
        f"it has read the command and gave no answer: its keys file has no key '{key}' with this secret "
        "(its log says command_refused), or it is still at work"
    )


def refuse_unknown_key(settings: Settings, request: SendRequest) -> None:
    """Where the daemon's keys file is at hand it says so before anything is sent."""
    path = settings.control.keys_file
    if path is None or not os.access(path, os.R_OK):
        return
    keys = read_keys(path)
    if request.key not in keys:
        raise BadRequest(f"{path} has no key '{request.key}'", remedy=f"it has {', '.join(keys) or 'none'}")
    if not keys[request.key].has_signed(b"", request.private.sign(b"")):
        raise BadRequest(f"the secret is not that of the key '{request.key}' in {path}", remedy="see --key-file")


def print_replies(replies: Replies, *, as_json: bool) -> int:
    """The replies, merged; returns the exit code, 0 when everyone that was asked has done it."""
    answers = [reply for _, reply in sorted(replies.by.items())]
    if as_json:
        plain = [msgspec.to_builtins(reply) for reply in answers]
        told = {"id": replies.id, "ok": replies.ok, "missing": replies.missing, "silent": replies.silent}
        print(json.dumps({**told, "replies": plain}))
        return replies.exit_code
    for reply in answers:
        state = ("done" if reply.final else "accepted, not yet done") if reply.ok else reply.error_code
        print(f"{reply.served_by}: {reply.command} {state}, {reply.elapsed_ms:.1f} ms")
        print(json.dumps(reply.result, indent=2) if reply.ok else reply.error)
    for reply in replies.running:
        job = reply.result.get("job")
        ask = f"tickcast send jobs job={job}" if job else "send the same again"
        print(f"{reply.served_by} is still at work: {ask} says how far it is", file=sys.stderr)
    for audience, why in replies.silent.items():
        print(f"{audience} did not answer in time: {why}; id {replies.id}", file=sys.stderr)
    return replies.exit_code
