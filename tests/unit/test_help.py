"""`--help` says of every option what it is, and its default where it has one."""

import argparse

import pytest

from tickcast.ui import cli

(COMMANDS,) = (action for action in cli.parser()._actions if isinstance(action, argparse._SubParsersAction))


@pytest.mark.parametrize("command", COMMANDS.choices)
def test_every_option_has_a_meaning_and_its_default_is_said(command: str) -> None:
    for action in COMMANDS.choices[command]._actions:
        if not action.option_strings or action.dest == "help":
            continue
        assert action.help, action.option_strings
        if action.nargs != 0 and action.default not in (None, [], ""):
            assert "default" in action.help, action.option_strings


def test_a_default_stands_in_the_printed_help() -> None:
    printed = " ".join(COMMANDS.choices["backtest"].format_help().split())
    assert "folder for the report and its data (default: out/backtest)" in printed
    assert "of one side, in hundredths of a percent (default: 5.0)" in printed
    assert "bars ahead that are traded; default: all" in printed


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["replay", "--data", "x", "--speed", "fast"], "'fast' is neither `max` nor a whole number above 0"),
        (["replay", "--data", "x", "--chunk", "many"], "'many' is not a whole number above 0"),
        (["synth", "--out", "x.csv", "--seed", "one"], "invalid int value"),
    ],
)
def test_a_value_that_does_not_fit_is_told_in_words(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.parser().parse_args(arguments)
    assert says in capsys.readouterr().err
