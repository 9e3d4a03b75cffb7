"""What is published has a reader: each argument of a command, each setting, and a writer for each field of a record.

And for each argument and each setting there is a test that changes it.
"""

import ast
import re
from collections import defaultdict
from functools import cache

from source import DAEMON, OURS, ROOT, functions, nodes, python_files, tree

from tickcast.live.commands import arguments
from tickcast.settings import Settings
from tickcast.ui.documents import reference

ARGUMENTS = DAEMON / "live" / "commands" / "arguments.py"
JSON_TO_THE_CHILD = {"Range": "goes to the job as JSON: daemon/tickcast/batch/tune/spaces.py has each of its names"}
SECTION_UNDER = {  # where a section is handed on, under which name it arrives
    "jobs": {"budget", "_budget"}, "features.set[]": {"entry"}, "codec.topics.NAME": {"codec"},
}  # fmt: skip
ANYWHERE = {"settings", "_settings", "self"}  # `self`: a check of the settings among themselves, outside the fields
READ_BY_NAME = {"open", "high", "low", "close"}  # of codec.fields: tape_columns.py asks for BAR_PRICES by name
OF_SECTION = {  # what takes the keys of a section as its own arguments: its class, and fixtures of tests
    "codec.fields": {"Fields"}, "codec.topics": {"CodecTopic"}, "kafka.security": {"KafkaSecurity"},
    "mqtt": {"MqttSettings", "source", "mirror_settings"}, "control": {"ControlSettings", "Desk"},
    "jobs": {"JobSettings", "hosting"},
    "features.set": {"FeatureEntry", "entry"}, "schedule": {"ScheduleSettings", "policy"}, "alerts": {"AlertSettings"},
}  # fmt: skip
CHANGED_BY = {  # a setting that no test calls by its whole name -> the file and the text by which it is changed
    **{
        f"codec.fields.{key}": ("unit/test_settings_reach.py", f'"{key}": "')
        for key in ("open", "high", "low", "volume")
    },
    **{f"jobs.{key}": ("unit/test_jobs.py", f'{{"{key}": ') for key in ("wall_s", "memory_bytes")},
    "codec.topics.kind": ("integration/test_warm.py", '("codec.topics.a.kind", "arrow", 1)'),
    "mqtt.key_file": ("integration/test_mqtt.py", '"key_file": own.key("client")'),
    "inference.tile": ("unit/test_onnx.py", "open_model(folder, tile=7)"),
}  # fmt: skip
WHOLE = {"Accuracy": ("unit/test_scoring_docs.py", "assert sorted(named) == sorted(Accuracy.__struct_fields__)")}
WRITTEN_ELSEWHERE = {
    "CommandRow.reply_json": "by finish_command, in SQL", "CommandRow.done_ns": "by finish_command, in SQL",
}  # fmt: skip

LIVE, SENT = "integration/test_arguments.py", "unit/test_control_arguments.py"
CUT = "test_stored_bars_a_file_and_rows_are_cut_to_the_span_and_the_symbols"
JOB = "test_a_job_keeps_to_its_seed_its_model_and_its_costs"
WORK = {
    "from": (LIVE, CUT), "to": (LIVE, CUT), "symbols": (LIVE, CUT), "data": (LIVE, CUT), "rows": (LIVE, CUT),
    "params": (LIVE, JOB), "seed": (LIVE, JOB),
    "resume": (LIVE, "test_jobs_are_found_by_kind_and_state_and_resumed_as_they_were"),
}  # fmt: skip
ASKED = "test_a_model_shadows_on_a_route_as_a_person_asked_and_comes_to_serve_that_alone"
UPKEEP, PERSON = "integration/test_upkeep.py", "test_a_person_is_asked_and_answers"
FORECAST = "test_a_forecast_reaches_as_far_and_is_as_sure_as_was_asked"
LEAVING = "test_a_forecast_tells_how_likely_a_price_leaves_what_was_named"
PREDICT = "test_predict_looks_at_what_it_is_given"
STATUS = "test_status_tells_all_of_one_model_and_lists_those_of_a_tag"
REPORT = "test_a_report_is_of_the_hours_the_symbols_and_the_model_that_were_asked_for"
NOTE = "test_a_note_stands_in_the_history_of_a_route"
EXPORT = "test_an_export_is_of_the_table_the_span_and_the_symbols"
JOBS = "test_jobs_are_found_by_kind_and_state_and_resumed_as_they_were"
PAGE = "test_lists_are_of_what_was_asked_for"
TRAIN = "test_a_fit_is_of_the_kind_name_tags_and_start_that_were_asked_for"
SEARCH = "test_a_search_is_as_it_was_asked_for"
AUTO = "test_a_run_of_auto_is_as_it_was_asked_for"
WALK = "test_a_walk_fits_anew_as_often_as_was_asked"
SHOWN = {  # command -> argument -> the file and the test that change it and see a difference
    "forecast": {
        "symbols": (LIVE, FORECAST), "horizon": (LIVE, FORECAST), "confidence_level": (LIVE, FORECAST),
        **dict.fromkeys(("low", "high"), (LIVE, LEAVING)),
        "model": (LIVE, "test_no_more_models_stay_loaded_than_the_settings_say"),
    },
    "predict": dict.fromkeys(("closes", "bars", "as_of", "symbol", "model", "horizon"), (LIVE, PREDICT)),
    "train": {**WORK, **dict.fromkeys(("kind", "name", "tags", "start_with"), (LIVE, TRAIN))},
    "evaluate": {**WORK, "model": (LIVE, JOB)},
    "backtest": {
        **WORK, **dict.fromkeys(("model", "fee_bps", "slippage_bps", "trials"), (LIVE, JOB)),
        **dict.fromkeys(("retrain_every_bars", "retrain_kind"), (LIVE, WALK)),
    },
    "optimize": {
        **WORK, **dict.fromkeys(("kind", "name", "trials", "metric"), (LIVE, SEARCH)),
        **dict.fromkeys(("sampler", "pruner", "seconds", "space"), (LIVE, SEARCH)),
    },
    "auto": {**WORK, **dict.fromkeys(("kinds", "name", "budget_s"), (LIVE, AUTO))},
    "status": dict.fromkeys(("section", "model", "tag"), (LIVE, STATUS)),
    "promote": dict.fromkeys(("model", "route", "force", "note"), (LIVE, NOTE)),
    "rollback": dict.fromkeys(("route", "note"), (LIVE, NOTE)),
    "shadow": dict.fromkeys(("model", "route", "note"), (UPKEEP, ASKED)),
    "approve": {"action": (UPKEEP, PERSON)}, "dismiss": {"action": (UPKEEP, PERSON)},
    "history": dict.fromkeys(("kind", "limit"), (UPKEEP, PERSON)),
    "jobs": dict.fromkeys(("job", "kind", "state", "limit"), (LIVE, JOBS)),
    "cancel": {"job": (LIVE, JOBS)},
    "symbols": dict.fromkeys(("like", "after", "limit"), (LIVE, PAGE)),
    "report": dict.fromkeys(("hours", "symbols", "model"), (LIVE, REPORT)),
    "diagnose": {"symbol": (LIVE, PAGE)},
    "recommend": {"symbols": (LIVE, "test_a_recommendation_is_of_the_symbols_that_were_asked_for")},
    "export": dict.fromkeys(("table", "from", "to", "symbols", "format"), (LIVE, EXPORT)),
}  # fmt: skip


@cache
def read_from() -> dict[str, set[str]]:
    """Attribute -> the names that it is read from: `settings.bars.kind` is `kind` of `bars`."""
    found = defaultdict(set)
    for path in python_files(*OURS):
        for node in nodes(path):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                base = node.value
                found[node.attr].add(getattr(base, "attr", getattr(base, "id", "")))
    return found


def read_arguments() -> dict[str, set[str]]:
    """Struct -> the fields that a function reads from a parameter of that type, or a method of it from itself."""
    found = defaultdict(set)
    owners = {
        id(inner): owner.name
        for owner in tree(ARGUMENTS).body if isinstance(owner, ast.ClassDef)
        for inner in owner.body
    }  # fmt: skip
    for path in python_files(*OURS):
        for function in functions(path):
            of = {a.arg: ast.unparse(a.annotation).rpartition(".")[2] for a in function.args.args if a.annotation}
            if id(function) in owners and function.name != "__post_init__":
                of["self"] = owners[id(function)]
            for node in ast.walk(function) if structs() & {*of.values()} else ():
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in of:
                    found[of[node.value.id]].add(node.attr)
    return found


@cache
def structs() -> set[str]:
    """The names of all that commands take, and of what is within."""
    kinds = vars(arguments).values()
    return {kind.__name__ for kind in kinds if isinstance(kind, type) and issubclass(kind, arguments.Arguments)}


def fields_of(kind: type) -> dict[str, str]:
    """Attribute -> the name under which it is given."""
    return dict(zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True))


def test_every_argument_of_every_command_is_read_by_who_carries_it_out():
    read, unread = read_arguments(), []
    for kind, _ in arguments.ACCEPTED.values():
        names = set().union(*(read[parent.__name__] for parent in kind.__mro__))
        unread += [f"{kind.__name__}.{name}" for name in fields_of(kind) if name not in names]
    inner = {arguments.Bar: {"bar", "row"}, arguments.StartArguments: {"start", "start_with"}}
    for kind, names in inner.items():
        unread += [f"{kind.__name__}.{name}" for name in fields_of(kind) if not read_from()[name] & names]
    assert not unread
    seen = {parent.__name__ for kind, _ in arguments.ACCEPTED.values() for parent in kind.__mro__}
    assert structs() - seen - {kind.__name__ for kind in inner} == JSON_TO_THE_CHILD.keys()
    spaces = (DAEMON / "batch" / "tune" / "spaces.py").read_text(encoding="utf-8")
    assert not [name for name in fields_of(arguments.Range) if not re.search(rf"\b{name}\b", spaces)]


def test_for_every_argument_a_test_is_named_that_gives_it():
    for command, (kind, _) in arguments.ACCEPTED.items():
        assert set(SHOWN.get(command, {})) == set(fields_of(kind).values()), command
    lost = []
    for command, shown in SHOWN.items():
        for name, (file, test) in shown.items():
            text = (ROOT / "tests" / file).read_text(encoding="utf-8")
            body = text.partition(f"def {test}(")[2].partition("\nasync def test_")[0]
            if not re.search(rf'\b{name}=|"{name}"|\b{name.upper()}\b|WITHIN', body):
                lost.append(f"{command}.{name}: {test}")
    assert not lost


def test_every_setting_is_read_outside_its_definition():
    unread = []
    for row in reference.setting_rows():
        section, _, key = row.name.rpartition(".")
        under = {section.rpartition(".")[2], *SECTION_UNDER.get(section, ())} | ANYWHERE
        by_name = section.endswith("fields") and key in READ_BY_NAME
        if not (read_from()[key] & under or by_name):
            unread.append(row.name)
    assert not unread


def test_for_every_setting_there_is_a_test_that_changes_it():
    """By its whole name, as a key of its section, or where CHANGED_BY says."""
    given, passed = set(), defaultdict(set)
    for path in python_files(ROOT / "tests"):
        if path.parent.name != "meta":
            text = path.read_text(encoding="utf-8")
            given.update(re.findall(r"([A-Za-z_][\w.]*) ?=", text), re.findall(r"[\"']([\w.]+)[\"'=]", text))
            for name, words in calls(path):
                passed[name].update(words)
    untested = set()
    for row in reference.setting_rows():
        name = row.name.replace("[]", "").replace("codec.topics.NAME.fields", "codec.fields").replace(".NAME", "")
        section, _, key = name.rpartition(".")
        takers = OF_SECTION.get(section, {f"{section.capitalize()}Settings"})
        if not given & {name, name.replace(".", "__")} and not any(key in passed[taker] for taker in takers):
            untested.add(name)
    assert untested == set(CHANGED_BY)
    lost = {
        name for name, (file, text) in CHANGED_BY.items()
        if text not in (ROOT / "tests" / file).read_text(encoding="utf-8")
    }  # fmt: skip
    assert not lost
    assert Settings()  # the defaults themselves are a deployment


def calls(path):
    """What each call of the file names, and the keywords that it gives."""
    for node in nodes(path):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            yield name, {word.arg for word in node.keywords if word.arg}


def test_every_field_of_every_record_is_given_a_value_by_somebody():
    given = defaultdict(set)
    for path in python_files(*OURS):
        for name, words in calls(path):
            given[name].update(words)
    lost = [
        f"{record.__name__}.{field}"
        for record in reference.record_types()
        for field in record.__struct_fields__
        if field != "schema" and field not in given[record.__name__] | given["replace"]
        and record.__name__ not in WRITTEN_ELSEWHERE
    ]  # fmt: skip
    assert set(lost) == {name for name in WRITTEN_ELSEWHERE if "." in name}


def test_every_field_of_every_record_is_looked_at_by_a_test():
    """What is published is read by others; here tests stand for them. Those in WHOLE are compared field by field."""
    text = "\n".join(
        path.read_text(encoding="utf-8") for path in python_files(ROOT / "tests") if path.parent.name != "meta"
    )
    looked = {*re.findall(r"\.(\w+)\b", text), *re.findall(r"[\"'](\w+)[\"']", text)}
    unseen = {
        f"{record.__name__}.{field}"
        for record in reference.record_types()
        for field in record.__struct_fields__
        if field != "schema" and field not in looked and record.__name__ not in WHOLE
    }
    assert not unseen
    assert all(test in (ROOT / "tests" / file).read_text(encoding="utf-8") for file, test in WHOLE.values())
