"""How arguments of shell commands are read, for all that take them. It knows no command."""

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from tickcast.errors import EXIT_DIED, EXIT_OK, BadSettings
from tickcast.io.jobs.folder import ORDER
from tickcast.io.jobs.orders import Order, defaults_of
from tickcast.remedies import say_refused
from tickcast.settings import Origins, Settings, parse

PIPE_COLUMNS = 200
Handler = Callable[[argparse.Namespace, Settings, Origins], int]
Add = Callable[[str, Handler, str], argparse.ArgumentParser]


def pairs(texts: list[str]) -> dict[str, Any]:
    """KEY=VALUE, each value as in a settings file."""
    found = {}
    for text in texts:
        name, is_given, value = text.partition("=")
        if not is_given:
            raise BadSettings(f"'{text}' has no '='", remedy="give KEY=VALUE")
        found[name.strip()] = parse(value)
    return found


def take_defaults(command: argparse.ArgumentParser, order: type[Order]) -> dict[str, Any]:
    """What an order has where nobody says, for the options that are called like its keys."""
    own = defaults_of(order)
    command.set_defaults(**{action.dest: own[action.dest] for action in command._actions if action.dest in own})
    return own


def say_defaults(command: argparse.ArgumentParser) -> None:
    """Each option's default at the end of its help, where it has one and the help does not name it."""
    for action in command._actions:
        has_one = action.default is not None and action.default not in ("", [], argparse.SUPPRESS)
        if action.option_strings and action.nargs != 0 and has_one and "default" not in (action.help or ""):
            action.help = f"{action.help} (default: %(default)s)"


def terminal() -> Console:
    """Standard output, as wide as it is; where that is unknown, as in a pipe, nothing is cut for want of width."""
    console = Console()
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(width=PIPE_COLUMNS)


class Doubts:
    """Tells a person what is wrong with the data. With any, a command that did its work still does not end with 0."""

    def __init__(self) -> None:
        self.exit_code = EXIT_OK

    def __call__(self, why: str) -> None:
        say_refused(why)
        self.exit_code = EXIT_DIED


def comma_list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


@contextmanager
def told_how_to_go_on(folder: Path, command: str) -> Iterator[None]:
    """A Ctrl-C, once there is something to go on with."""
    try:
        yield
    except KeyboardInterrupt:
        if (folder / ORDER).exists():
            raise KeyboardInterrupt(f"go on with tickcast {command} --resume {folder}") from None
        raise
