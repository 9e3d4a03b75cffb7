"""An installation of the wheel with no extra: an environment that holds what the base install asks for, and no more.

The packages are linked from the environment that runs the tests, so that it takes a second and no network.
"""

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
OURS = ("daemon/tickcast", "plugins/tickcast_plugins")
TIMEOUT_S = 120


def build_wheel(folder: Path) -> Path:
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=TIMEOUT_S)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(folder: Path) -> Path:
    """The interpreter of a new environment in `folder`."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True, timeout=TIMEOUT_S)
    (site,) = (folder / "env" / "lib").glob("python*/site-packages")
    with zipfile.ZipFile(build_wheel(folder)) as archive:
        archive.extractall(site)
    (info,) = site.glob("tickcast-*.dist-info")
    for needed in closure(Distribution.at(info)):
        link(needed, site)
    keep_kernels(site)
    return folder / "env" / "bin" / "python"


def closure(project: Distribution) -> list[Distribution]:
    """What it requires without an extra, and what these require."""
    found: dict[str, Distribution] = {}
    open_ends = [(project, "")]
    while open_ends:
        asking, extra = open_ends.pop()
        for text in asking.requires or []:
            needed = Requirement(text)
            if needed.marker is not None and not needed.marker.evaluate({"extra": extra}):
                continue
            if needed.name.lower() not in found:
                found[needed.name.lower()] = brought = distribution(needed.name)
                open_ends += [(brought, extra) for extra in ("", *needed.extras)]
    return list(found.values())


def link(package: Distribution, site: Path) -> None:
    here = Path(str(package.locate_file("")))
    for name in {file.parts[0] for file in package.files or []} - {"..", "__pycache__"}:
        if not (site / name).exists():
            (site / name).symlink_to(here / name)


def keep_kernels(site: Path) -> None:
    """Kernels that the checkout has compiled serve here, too: numba goes by a source's time and size."""
    for root in map(ROOT.__truediv__, OURS):
        for source in root.rglob("*.py"):
            stamp = source.stat()
            os.utime(site / source.relative_to(root.parent), ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        for cache in root.rglob("__pycache__/*.nb?"):
            target = site / cache.relative_to(root.parent)
            target.parent.mkdir(exist_ok=True)
            shutil.copy2(cache, target)
