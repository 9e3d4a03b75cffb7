"""What a test needs of the machine."""

import os

import pytest


def need(is_there: bool, what: str) -> None:
    """Skip with that message, but never in CI."""
    if not is_there:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"needs {what}")
