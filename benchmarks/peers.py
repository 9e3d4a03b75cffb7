"""Environments of their own for the packages that ours is measured against, so that ours need not hold them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

BUILD = Path(__file__).parents[1] / "build"
MOST_S = 1800


def python_with(name: str, *packages: str) -> Path:
    """The python of build/NAME, which has the packages; made by uv where it is not there."""
    folder = BUILD / name
    python, made = folder / "bin" / "python", folder / ".made"
    if not made.exists():
        uv = _uv()
        subprocess.run([uv, "venv", "-q", "--clear", str(folder)], check=True, timeout=MOST_S)
        subprocess.run([uv, "pip", "install", "-q", "--python", str(python), *packages], check=True, timeout=MOST_S)
        made.touch()
    return python


def _uv() -> str:
    """That of the PATH, or the one that scripts/setup.sh laid beside our python."""
    beside = Path(sys.executable).parent
    found = shutil.which("uv") or shutil.which("uv", path=os.fspath(beside))
    if found is None:
        raise FileNotFoundError(f"uv is neither on the PATH nor in {beside}: `make setup`, or `pip install uv`")
    return found
