"""What is shipped: the wheel holds code, plugins, migrations and settings, and runs without the checkout."""

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from source import OURS, ROOT

import tickcast

TIMEOUT_S = 120
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The wheel, built without a network and laid out as an installer would."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=TIMEOUT_S)
    (wheel,) = folder.glob("*.whl")
    target = folder / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


KINDS = ("py", "sql", "toml", "service")


def run(folder, *arguments):
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith("COV")
    }  # not the checkout's code
    environment = {**inherited, "PYTHONPATH": str(folder), "NUMBA_CACHE_DIR": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_wheel_holds_every_module_migration_and_settings_file(unpacked):
    for source, target in (
        *((root, root.name) for root in OURS),
        (ROOT / "migrations", "tickcast/migrations"),
        (ROOT / "config", "tickcast/config"),
        (ROOT / "systemd", "tickcast/systemd"),
    ):
        wanted = {str(path.relative_to(source)) for kind in KINDS for path in source.rglob(f"*.{kind}")}
        assert wanted
        assert not [name for name in wanted if not (unpacked / target / name).is_file()]


def test_the_wheel_holds_our_packages_the_licence_and_nothing_else(unpacked):
    assert {path.name for path in unpacked.iterdir()} == {
        *(root.name for root in OURS),
        f"tickcast-{PROJECT['version']}.dist-info",
    }
    assert list(unpacked.glob("*.dist-info/licenses/LICENSE"))


def test_the_unpacked_wheel_runs_from_its_own_folder(unpacked):
    assert Path(run(unpacked, "-c", "import tickcast; print(tickcast.__file__)")).is_relative_to(unpacked)
    assert run(unpacked, "-c", "from tickcast.ui.cli import main; main()", "--version").endswith(PROJECT["version"])


@pytest.mark.slow
def test_every_entry_point_of_the_wheel_loads(unpacked):
    code = (
        "from importlib.metadata import distribution\n"
        "points = [p for p in distribution('tickcast').entry_points if p.group.startswith('tickcast.')]\n"
        "print(len([p.load() for p in points]))"
    )
    assert int(run(unpacked, "-c", code)) == sum(map(len, PROJECT["entry-points"].values()))


def test_package_project_and_changelog_agree_on_the_version():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert tickcast.__version__ == PROJECT["version"]
    assert f"## {PROJECT['version']}" in changelog


def test_set_up_and_pages_name_the_pythons_of_the_classifiers():
    versions = [name.rpartition(" ")[2] for name in PROJECT["classifiers"] if name.startswith("Programming Language")]
    assert PROJECT["requires-python"] == f">={versions[0]}"
    assert " ".join(f"python{version}" for version in versions) in (ROOT / "scripts/setup.sh").read_text("utf-8")
    said = f"Python {', '.join(versions[:-1])} or {versions[-1]}"
    for page in ("CONTRIBUTING.md", "docs/getting-started.md"):
        assert said in (ROOT / page).read_text("utf-8"), page
