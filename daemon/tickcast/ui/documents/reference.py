"""Pages made from the code: docs/reference.md and config/default.toml. It renders text and decides nothing.

`make docs` writes both; a test fails when a committed page differs from what the code renders.
"""

import json
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from tickcast import errors, records
from tickcast.settings import Settings
from tickcast.topics import OWN_TOPICS
from tickcast.ui.documents.schema_rows import NOTHING, SchemaRow, rows

EXIT_MEANING = {
    "EXIT_OK": "drained: every question answered, everything published and stored",
    "EXIT_DIED": "died; a supervisor restarts it, and start-up is recovery",
    "EXIT_UNFINISHED": "`tickcast send`: all that were asked have begun, and somebody is still at work",
    "EXIT_FENCED": "fenced: another process has this slot; do not restart",
    "EXIT_REFUSED": "refused to start: settings, model, store or data; the message names the remedy",
    "EXIT_SECOND_SIGNAL": "a second signal cut the drain short",
}

REASON_MEANING = {
    errors.Reason.ACCEPTED: "entered its window",
    errors.Reason.EMPTY: "a message without bytes",
    errors.Reason.MALFORMED: "not of the codec's format: broken JSON, broken UTF-8, a truncated batch",
    errors.Reason.MISSING_FIELD: "a mapped field is absent or null",
    errors.Reason.BAD_NUMBER: "a number field holds no finite number",
    errors.Reason.BAD_TIME: "the event time cannot be read or lies outside 64-bit nanoseconds",
    errors.Reason.BAD_SYMBOL: "the symbol is empty, too long, or no text",
    errors.Reason.SYMBOL_LIMIT: "a new symbol, and all `symbols.limit` places are taken by symbols that are not silent",
    errors.Reason.SYMBOL_RATE: "a new symbol beyond `symbols.new_per_minute`, while all places are taken",
    errors.Reason.TOO_LARGE: "longer than `codec.max_message_bytes`, or than `kafka.expanded_bytes` when decompressed",
    errors.Reason.OTHER_EVENT: "a well-formed message of the feed that is no tick; counted, never a dead letter",
    errors.Reason.CORRUPT: "a batch of records is damaged: checksum, compression, codec or framing",
    errors.Reason.TOMBSTONE: "a record whose value is null; counted, never a dead letter",
    errors.Reason.LATE: "before the end of its partition's last closed bar, or older than `bars.lateness_ms` allows",
    errors.Reason.HELD: "jumped beyond `quality.max_jump_ms`; waits until other ticks of the partition confirm it",
    errors.Reason.NON_FINITE: "price, bid, ask or size is NaN or infinite",
    errors.Reason.NON_POSITIVE: "the price is not positive where the transform needs it to be",
    errors.Reason.NEGATIVE_SIZE: "the size is below zero",
    errors.Reason.WRONG_UNIT: "the event time lies outside 1900 to 2100, or early in 1970: check `codec.time_unit`",
    errors.Reason.FUTURE: "too far ahead of its record's stamp (`quality.future_ms`) or the clock (`quality.ahead_ms`)",
    errors.Reason.ANCIENT: "further behind its record's stamp than `quality.ancient_ms`",
    errors.Reason.JUMP: "was held, and a later tick of the partition contradicted it",
    errors.Reason.OUTLIER: "further from the last price than `quality.outlier_sigmas` one-tick moves",
    errors.Reason.CROSSED: 'bid above ask, with `quality.crossed = "reject"`',
    errors.Reason.DUPLICATE: "its sequence number is not above its symbol's last",
    errors.Reason.MARKET_CLOSED: "outside the hours of `bars.calendar`",
    errors.Reason.SYMBOL_IN_TWO_PARTITIONS: "its symbol lives in another partition",
    errors.Reason.FATAL: "the process ended in it: alone, and more than once",
}

QUALITY_MEANING = {
    errors.Quality.FALLBACK: "the model gave nothing usable: the one before it answered, or the last value",
    errors.Quality.CORRECTED: "shifted by what the points of its model were off of late (`inference.bias_correction`)",
    errors.Quality.ADAPTIVE_COLD: "too few labels yet to move the quantiles: they are the model's own",
    errors.Quality.IN_SAMPLE: "the model was trained on this span; left out of headlines",
}

FAULT_MEANING: dict[errors.CommandFault | errors.JobFault, str] = {
    errors.CommandFault.OVERSIZED: "the envelope is longer than `control.max_bytes`; no reply",
    errors.CommandFault.MALFORMED: "no envelope; no reply. Or, in one that is genuine, a body that is no command",
    errors.CommandFault.UNKNOWN_KEY: "`control.keys_file` has no such key; no reply",
    errors.CommandFault.BAD_SIGNATURE: "the signature is not that of the key over this text; no reply",
    errors.CommandFault.WRONG_AUDIENCE: "genuine, and meant for another daemon; no reply",
    errors.CommandFault.STALE: "its timestamp is further from now than `control.max_age_s`",
    errors.CommandFault.UNKNOWN_COMMAND: "there is no such command, or this daemon does not offer it",
    errors.CommandFault.ROLE_TOO_LOW: "the role of the key does not include the command",
    errors.CommandFault.BAD_ARGUMENT: "an argument is unknown, missing, of another type or out of its range",
    errors.CommandFault.TOO_MANY: "beyond `control.per_minute` commands of a key, or the queue of jobs is full",
    errors.CommandFault.REPLAYED: "its id was used before, by another command or key",
    errors.CommandFault.TIMED_OUT: "it took longer than `control.timeout_s`",
    errors.CommandFault.INTERRUPTED: "the daemon ended before the command did",
    errors.CommandFault.ANSWER_TOO_LARGE: "done, but its answer fits no message: ask for less",
    errors.CommandFault.FAILED: "an error of ours: the log has it",
    errors.JobFault.UNKNOWN_JOB: "there is no such job, or its folder was dropped (`jobs.keep`)",
    errors.JobFault.NOT_RUNNING: "the job has ended already",
    errors.JobFault.NOT_RESUMABLE: "the job is done, waits, runs, or its folder is gone",
}

TOPIC_MEANING = {topic.name: topic.meaning for topic in OWN_TOPICS.values() if not topic.of_commands}
OF_COMMANDS = {topic.name: topic.meaning for topic in OWN_TOPICS.values() if topic.of_commands}

HEAD = """# Reference

Made from the code by `make docs`; do not edit. The settings stand with comments in `config/default.toml`.
"""


def render() -> str:
    """docs/reference.md."""
    parts = [HEAD, *_settings(), *_codes(), *_topics(), *_records()]
    return "\n".join(parts).rstrip() + "\n"


def setting_rows() -> list[SchemaRow]:
    return list(rows(Settings.model_json_schema()))


def record_types() -> list[type[records.Record]]:
    public = (item for item in vars(records).values() if isinstance(item, type) and issubclass(item, records.Record))
    return [item for item in public if item is not records.Record]


def exit_codes() -> dict[str, int]:
    return {name: value for name, value in vars(errors).items() if name.startswith("EXIT_")}


def error_types(parent: type[errors.TickcastError] = errors.TickcastError) -> Iterator[type[errors.TickcastError]]:
    """The tree, parents before their children."""
    for child in parent.__subclasses__():
        yield child
        yield from error_types(child)


def _settings() -> Iterator[str]:
    yield "## Settings\n"
    yield (
        "Files given with `--config` come first, then the environment (`TICKCAST_SECTION__KEY`), then the command "
        "line (`--set section.key=value`); later ones win. Unknown keys are refused. `tickcast check` prints every "
        "value with its origin.\n"
    )
    table = ((f"`{row.name}`", row.kind, _shown(row.default), row.meaning) for row in setting_rows())
    yield _table(("setting", "value", "default", "meaning"), table)


def _codes() -> Iterator[str]:
    yield "## Exit codes\n"
    yield _table(
        ("code", "name", "meaning"),
        ((str(code), f"`{name}`", EXIT_MEANING[name]) for name, code in exit_codes().items()),
    )
    yield "## Errors\n"
    yield "Each error has one fate; its code is stable.\n"
    tree = (errors.__doc__ or "").split("\n\n", 1)[1].strip()
    yield f"```\n{tree}\n```\n"
    yield _table(("code", "error", "exit"), ((f"`{e.code}`", e.__name__, str(e.exit_code)) for e in error_types()))
    yield "## Reject reasons\n"
    yield "What can become of a tick. Every consumed tick ends as accepted, late, rejected or held.\n"
    yield _table(
        ("reason", "number", "meaning"),
        ((f"`{reason.name.lower()}`", str(reason.value), REASON_MEANING[reason]) for reason in errors.Reason),
    )
    yield "## Refused commands\n"
    yield "Codes of a reply beside those of the errors; [control](control.md) has the order in which they are found.\n"
    yield _table(("code", "meaning"), ((f"`{fault.value}`", meaning) for fault, meaning in FAULT_MEANING.items()))
    yield "## Quality of a forecast\n"
    yield "Flags of a forecast; several may be set, none means that nothing is amiss.\n"
    yield _table(
        ("flag", "bit", "meaning"),
        ((f"`{(flag.name or '').lower()}`", str(flag.value), QUALITY_MEANING[flag]) for flag in errors.Quality),
    )


def _topics() -> Iterator[str]:
    yield "## Topics\n"
    yield "What tickcast writes, with the default `topics.prefix`; it reads the topics of `topics.ticks`.\n"
    topics = (TOPIC_MEANING | OF_COMMANDS).items()
    lines = ((f"`{Settings().topics.prefix}{name}`", meaning) for name, meaning in topics)
    yield _table(("topic", "what it holds"), lines)


def _records() -> Iterator[str]:
    yield "## Records\n"
    for record in record_types():
        yield f"### {record.__name__}\n"
        if record.__doc__ and not record.__doc__.startswith(f"{record.__name__}("):
            yield " ".join(record.__doc__.split()) + "\n"
        fields = rows(msgspec.json.schema(record))
        yield _table(("field", "value", "default"), ((f"`{f.name}`", f.kind, _shown(f.default)) for f in fields))


def _shown(default: Any) -> str:
    if default is NOTHING:
        return "required"
    return "" if default is None else f"`{_toml(default)}`"


def _table(head: tuple[str, ...], lines: Iterable[tuple[str, ...]]) -> str:
    def line(cells: Iterable[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    return "\n".join([line(head), line("---" for _ in head), *map(line, lines)]) + "\n"


def render_defaults() -> str:
    """config/default.toml: every key with its default and its meaning; what is off by default is commented out."""
    out = [
        "# Every setting with its default and its meaning. Made from the code by `make docs`; do not edit: copy the",
        "# keys that you change to a file of your own. Files < environment (TICKCAST_SECTION__KEY) < --set.",
    ]
    section = ""
    for row in sorted(_own_keys(), key=_place):
        table, _, key = row.name.rpartition(".")
        if row.kind.startswith("table"):
            out += ["", *_comment(row.meaning), f"[{row.name}]"]
            continue
        if table != section:
            out += ["", f"[{table}]"]
            section = table
        out += _comment(row.meaning)
        if "|" in row.kind and not isinstance(row.default, bool):
            out.append(f"# {row.kind}")
        out.append(f"# {key} =" if row.default is None else f"{key} = {_toml(row.default)}")
    return "\n".join(out) + "\n"


def _own_keys() -> Iterator[SchemaRow]:
    """Settings that have one place in a file; keys below a name of the user's own have none."""
    return (row for row in setting_rows() if ".NAME" not in row.name and "[]" not in row.name)


def _place(row: SchemaRow) -> tuple[list[str], bool]:
    """Sections in the order of the code, and in each its own keys before its tables, as TOML wants it."""
    order = list(Settings.model_fields)
    head, *rest = row.name.split(".")
    return [f"{order.index(head):03d}", *rest[:-1]], row.kind.startswith("table")


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, width=116, initial_indent="# ", subsequent_indent="# ")


def _toml(value: Any) -> str:
    """A default as TOML; JSON spells all of these the same way."""
    return json.dumps(value)


def write(root: Path) -> list[Path]:
    """Both pages, below the root of a checkout."""
    pages = {root / "docs" / "reference.md": render(), root / "config" / "default.toml": render_defaults()}
    for path, text in pages.items():
        path.write_text(text, encoding="utf-8")
    return list(pages)


if __name__ == "__main__":
    for page in write(Path(__file__).parents[4]):
        print(f"written: {page.name}")
