"""A folder of a child's own that stands for the compiled kernels: it reads what others compiled and changes none of it.

numba keeps kernels as pickles, which whoever loads them runs, and it loads nothing from where it could not write. So
each kernel is linked to, one by one: what a child compiles anew takes the place of a link, never that of the file.
What every fit needs is compiled before, by a process that reads no order.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha1, sha256
from importlib.util import find_spec
from pathlib import Path

from tickcast.plugin import find

CACHE_DIR = "NUMBA_CACHE_DIR"
COMPILED = (".nbi", ".nbc")
HERE = Path(__file__).parent
OURS = HERE.parents[1]  # all whose kernels a child may use
WARM = (sys.executable, "-P", "-m", f"{__package__}.kernel_links")


def compile_ours() -> None:
    """Once for these sources, where kernels are kept; where none can be, each child compiles its own."""
    stamp = compiled_stamp()
    if stamp.exists():
        return
    with suppress(OSError):
        stamp.parent.mkdir(parents=True, exist_ok=True)
        if os.access(stamp.parent, os.W_OK) and not subprocess.run(WARM, check=False).returncode:
            stamp.touch()


def compiled_stamp() -> Path:
    """It goes when compiled kernels are dropped, as it is named like one."""
    kept = os.environ.get(CACHE_DIR)
    place = Path(kept) / _name(HERE) if kept else HERE / "__pycache__"
    sources = b"".join(file.read_bytes() for file in sorted(OURS.rglob("*.py")))
    numba = find_spec("numba")  # which is not imported before a child is held
    compiler = Path(str(numba.origin)).with_name("_version.py").read_bytes() if numba else b""
    digest = sha256(sources + compiler + sys.version.encode()).hexdigest()
    return place / f"children-{digest[:16]}.nbi"


def link_kernels(folder: Path) -> None:
    """From here on numba uses `folder`, also in what this process starts."""
    for kept, source in _kept():
        place = folder / kept
        place.mkdir(parents=True, exist_ok=True)
        for file in source.iterdir():
            if file.suffix in COMPILED and not (place / file.name).is_symlink():
                (place / file.name).symlink_to(file)
    os.environ[CACHE_DIR] = str(folder)


def _kept() -> Iterator[tuple[str, Path]]:
    """The name below a cache folder and the place of each folder of kernels; in the order in which numba looks."""
    if given := os.environ.get(CACHE_DIR):
        yield from _folders(Path(given))
        return
    for package in _packages():
        for place in package.rglob("__pycache__"):
            yield _name(place.parent), place
    yield from _folders(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "numba")


def _folders(cache: Path) -> Iterator[tuple[str, Path]]:
    if cache.is_dir():
        yield from ((place.name, place.absolute()) for place in cache.iterdir() if place.is_dir())


def _packages() -> list[Path]:
    roots = {Path(entry).absolute() for entry in sys.path if entry}
    return [path for root in roots for path in root.glob("tickcast*") if (path / "__init__.py").exists()]


def _name(sources: Path) -> str:
    """What numba calls the folder of these sources' kernels."""
    return f"{sources.name}_{sha1(str(sources).encode()).hexdigest()}"


if __name__ == "__main__":
    find("preparations", "kernels")()
