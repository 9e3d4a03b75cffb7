"""What commands take: the least that each needs, what is out of range, the role that it asks for."""

from inspect import signature
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from controlkit import Desk, sealed, working
from tickcast.errors import BadRequest, CommandRefused
from tickcast.io.jobs.orders import BacktestOrder, EvaluateOrder, FitOrder, Order, TuneOrder, defaults_of
from tickcast.live.commands import arguments
from tickcast.live.commands.arguments import (
    ACCEPTED,
    Arguments,
    Backtest,
    Evaluate,
    Optimize,
    Train,
    parse,
    role_of,
)
from tickcast.live.commands.at_once import Commands
from tickcast.live.commands.data_folder import below
from tickcast.live.commands.inbox import Context
from tickcast.live.commands.job_commands import JobCommands
from tickcast.live.commands.recommender import Recommender
from tickcast.live.commands.service import handlers_of
from tickcast.live.upkeep import Upkeep
from tickcast.ui.cli import main, parser
from tickcast.ui.documents.schemas import listing, schema_of
from tickcast.ui.send import make_args

JOB = "0" * 32
LEAST: dict[str, dict[str, Any]] = {
    "forecast": {"symbols": ["A"]},
    "predict": {"closes": [1.0, 2]},
    "promote": {"model": "nhits"},
    "cancel": {"job": JOB},
    "export": {"table": "bars"},
    "approve": {"action": "fit.after-0-0"},
    "dismiss": {"action": "fit.after-0-0"},
}
ROLES = {
    "read": "forecast predict status jobs report diagnose history recommend",
    "train": "train evaluate backtest optimize auto cancel export",
    "promote": "promote rollback shadow approve dismiss",
    "admin": "pause resume drain symbols",
}
FULL: dict[str, dict[str, Any]] = {
    "predict": {"bars": [{"close": 2, "open": 1, "high": 3, "low": 1, "ts": "2026-01-01T00:00:00Z"}], "horizon": 3},
    "train": {
        "kind": "gru", "name": "g", "params": {"epochs": 3, "layers": [1, 2]}, "symbols": ["A"], "seed": 7,
        "from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00+02:00", "data": "day/a.parquet",
        "start_with": {"model": "nhits@3", "mode": "transfer", "freeze": ["blocks.0.*"]},
    },
    "optimize": {"space": {"learning_rate": {"kind": "float", "low": 1e-4, "high": 1e-1, "log": True}}, "trials": 100},
    "backtest": {"fee_bps": 1, "retrain_every_bars": 500, "retrain_kind": "ridge"},
    "evaluate": {"resume": JOB},
    "status": {"section": "accuracy", "model": "nhits"},
    "promote": {"model": "0a1b2c", "route": "30%:group:majors", "force": True},
    "shadow": {"model": "0a1b2c", "route": "symbol:A", "note": "try it"},
}  # fmt: skip


def test_there_are_the_commands_of_the_design_each_with_its_role() -> None:
    assert {command: role_of(command) for command in ACCEPTED} == {
        command: role for role, commands in ROLES.items() for command in commands.split()
    }


@pytest.mark.parametrize("command", ACCEPTED)
def test_a_command_is_taken_with_the_least_that_it_needs_and_refused_without(command: str) -> None:
    least = LEAST.get(command, {})
    assert isinstance(parse(command, least), ACCEPTED[command][0])
    jsonschema.validate(least, schema_of(f"command-{command}"))
    if least:
        assert refused(command, {})
    assert "more" in refused(command, {**least, "more": 1})


@pytest.mark.parametrize(("command", "args"), [*FULL.items()])
def test_what_is_taken_fits_the_schema_and_comes_back_as_it_was(command: str, args: dict[str, Any]) -> None:
    jsonschema.validate(args, schema_of(f"command-{command}"))
    given = parse(command, args)
    again = msgspec.to_builtins(given)
    assert parse(command, again) == given
    assert args.keys() <= again.keys()


def refused(command: str, args: dict[str, Any], code: str = "bad_argument") -> str:
    with pytest.raises(CommandRefused) as error:
        parse(command, args)
    assert error.value.code == code
    return str(error.value)


@pytest.mark.parametrize(
    ("command", "args", "word"),
    [
        ("forecast", {"symbols": []}, "symbols"),
        ("forecast", {"symbols": ["A" * 49]}, "symbols"),
        ("forecast", {"symbols": "A"}, "symbols"),
        ("forecast", {"symbols": ["A"], "model": "../m"}, "model"),
        ("forecast", {"symbols": ["A"], "model": "m\n"}, "model"),
        ("predict", {"closes": [1.0], "bars": [{"close": 1}]}, "closes"),
        ("predict", {"closes": ["1"]}, "closes"),
        ("predict", {"closes": [10**400]}, "predict"),
        ("predict", {"bars": [{"close": 1, "low": 2}]}, "low"),
        ("predict", {"bars": [{"close": 1, "high": 0.5}]}, "high"),
        ("predict", {"bars": [{"close": 1, "volume": -1}]}, "volume"),
        ("predict", {"closes": [1.0] * 10_001}, "closes"),
        ("train", {"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, "before"),
        ("train", {"from": "2026-01-02T00:00:00"}, "from"),
        ("train", {"from": 1}, "from"),
        ("train", {"data": "/etc/passwd"}, "data"),
        ("train", {"data": "../a"}, "data"),
        ("train", {"data": "a/../../b"}, "data"),
        ("train", {"data": "a//b"}, "data"),
        ("train", {"data": "a\\b"}, "data"),
        ("train", {"data": "a\x00"}, "data"),
        ("train", {"data": "a", "rows": [{"close": 1, "symbol": "A", "ts": "2026-01-01T00:00:00Z"}]}, "not both"),
        ("train", {"rows": [{"close": 1}]}, "symbol"),
        ("train", {"seed": -1}, "seed"),
        ("train", {"seed": 10**300}, "seed"),
        ("train", {"params": {str(n): n for n in range(65)}}, "params"),
        ("train", {"start_with": {"model": ""}}, "model"),
        ("train", {"resume": "x"}, "resume"),
        ("train", {"resume": JOB, "kind": "gru", "seed": 1}, "leave out seed, kind"),
        ("evaluate", {"resume": JOB, "from": "2026-01-01T00:00:00Z"}, "leave out from"),
        ("backtest", {"retrain_kind": "ridge"}, "retrain_every_bars"),
        ("backtest", {"fee_bps": -1}, "fee_bps"),
        ("backtest", {"retrain_every_bars": 5}, "retrain_kind"),
        ("optimize", {"trials": 0}, "trials"),
        ("optimize", {"sampler": "magic"}, "sampler"),
        ("optimize", {"space": {"a": {"kind": "float", "low": 2, "high": 1}}}, "low"),
        ("optimize", {"space": {"a": {"kind": "float", "low": 0, "high": 1, "log": True}}}, "log"),
        ("optimize", {"space": {"a": {"kind": "choice"}}}, "choice"),
        ("promote", {"model": "m", "route": "everywhere"}, "route"),
        ("promote", {"model": ""}, "model"),
        ("cancel", {"job": ""}, "job"),
        ("jobs", {"limit": 0}, "limit"),
        ("status", {"section": "secrets"}, "section"),
        ("export", {"table": "keys"}, "table"),
        ("pause", {"seconds": 1}, "seconds"),
    ],
)
def test_an_argument_that_does_not_fit_is_named(command: str, args: dict[str, Any], word: str) -> None:
    assert word in refused(command, args)


def test_an_unknown_command_is_refused_with_those_that_there_are() -> None:
    message = refused("sell", {}, "unknown_command")
    assert all(command in message for command in ACCEPTED)


def test_a_span_is_told_in_exact_nanoseconds() -> None:
    given = parse("train", {"from": "2026-01-01T00:00:00.000001Z"})
    assert isinstance(given, Train)
    assert given.span_ns() == (1_767_225_600_000_001_000, None)


def test_a_name_of_data_never_leads_out_of_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "inner").mkdir(parents=True)
    (tmp_path / "secret").write_text("")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "inner" / "up").symlink_to(tmp_path)
    assert below(folder, "inner/a.csv") == (folder / "inner" / "a.csv").resolve()
    for name in ("link", "inner/up", "inner/up/secret", "../secret", "", ".", "inner/.."):
        with pytest.raises(CommandRefused, match="outside"):
            below(folder, name)
    with pytest.raises(CommandRefused, match=r"control\.data_folder"):
        below(None, "a")


def test_a_person_types_arguments_as_the_schema_wants_them() -> None:
    assert make_args("forecast", ["symbols=A,B", "model=123"]) == {"symbols": ["A", "B"], "model": "123"}
    assert make_args("predict", ["closes=1,2.5", "horizon=3"]) == {"closes": [1, 2.5], "horizon": 3}
    assert make_args("train", ["kind=gru", "params.epochs=3", "params.loss=mae", "from=2026-01-01T00:00:00Z"]) == {
        "kind": "gru", "params": {"epochs": 3, "loss": "mae"}, "from": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    assert make_args("promote", ["model=m", "force=true"]) == {"model": "m", "force": True}
    assert make_args("optimize", ['space.lr={kind="float", low=0.1, high=1}'])["space"]["lr"]["high"] == 1
    for wrong in (["symbols"], ["symbols=A", "symbols=B"], ["symbols=A", "symbols.x=1"], ["symbols=A", "more=1"], []):
        with pytest.raises(BadRequest):
            make_args("forecast", wrong)


def test_defaults_fit_their_own_ranges() -> None:
    for command, (kind, _) in ACCEPTED.items():
        least = parse(command, LEAST.get(command, {}))
        assert msgspec.convert(msgspec.to_builtins(least), kind) == least
    assert Optimize().trials == 50
    assert Backtest().trials == 1


@pytest.mark.parametrize(
    ("name", "kind", "order"),
    [
        ("train", Train, FitOrder), ("evaluate", Evaluate, EvaluateOrder), ("backtest", Backtest, BacktestOrder),
        ("optimize", Optimize, TuneOrder),
    ],
)  # fmt: skip
def test_a_job_is_the_same_whoever_asks_for_it_without_saying_more(
    name: str, kind: type[Arguments], order: type[Order]
) -> None:
    shell = {"train": "fit"}.get(name, name)
    least = ["--data", "x", *(["--model", "m"] if name == "evaluate" else [])]
    typed = vars(parser().parse_args([shell, *least]))
    ordered, by_command = defaults_of(order), defaults_of(kind)
    for key in ordered.keys() & by_command.keys():
        assert [*by_command[key]] == ordered[key] if key == "tags" else by_command[key] == ordered[key], key
    unsaid = {"train": {"name", "start"}, "optimize": {"trials", "seconds", "space"}}.get(name, set())
    assert {key: typed[key] for key in (ordered.keys() & typed.keys()) - unsaid}.items() <= ordered.items()


def test_what_is_of_the_fits_of_a_walk_is_refused_without_one(capsys: pytest.CaptureFixture[str]) -> None:
    for given in (["--param", "epochs=3"], ["--retrain-kind", "ridge"]):
        assert main(["backtest", "--data", "x", *given]) == BadRequest.exit_code
        assert "--retrain-every" in capsys.readouterr().err


async def test_a_command_is_its_arguments_and_one_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ACCEPTED, "echo", ACCEPTED["status"])  # so that it goes again

    @arguments.command("echo", "read")
    class Echo(Arguments, frozen=True):
        text: str

    class Own:
        async def echo(self, given: Echo, context: Context) -> dict[str, Any]:
            return {"text": given.text}

    assert role_of("echo") == "read"
    assert schema_of("command-echo")["properties"]["text"] == {"type": "string"}
    assert "what `echo` takes; role read" in listing()
    assert make_args("echo", ["text=1"]) == {"text": "1"}
    async with working(Desk(handlers_of(Own()))) as desk:
        await desk.give(sealed("echo", {"text": "hello"}, role="read"), sealed("echo", {"texts": "hello"}, id="two"))
        done, refused = await desk.replied(2)
    assert (done.result, refused.error_code) == ({"text": "hello"}, "bad_argument")


def test_every_command_has_one_method_that_takes_its_arguments():
    owners = [object.__new__(kind) for kind in (Commands, JobCommands, Upkeep, Recommender)]
    handlers = handlers_of(*owners)
    assert handlers.keys() == ACCEPTED.keys()
    for name, (kind, _) in ACCEPTED.items():
        assert sum(hasattr(owner, name) for owner in owners) == 1, name
        assert signature(handlers[name]).parameters["given"].annotation is kind, name
