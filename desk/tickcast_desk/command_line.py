"""How arguments of shell commands are read, for all that take them. It knows no command."""

import argparse
from collections.abc import Callable
from typing import Any

from tickcast.errors import BadSettings
from tickcast.settings import Origins, Settings, parse

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


def comma_list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
