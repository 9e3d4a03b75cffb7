"""What every fit needs is compiled once and for all, before a child is held."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tickcast.io.jobs import kernel_links
from tickcast.io.jobs.kernel_links import compile_ours, compiled_stamp


def test_what_fits_need_is_compiled_once_for_these_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    marks = "import pathlib, os; pathlib.Path(os.environ['NUMBA_CACHE_DIR'], 'ran').open('a').write('x')"
    monkeypatch.setattr(kernel_links, "WARM", (sys.executable, "-c", marks))
    compile_ours()
    compile_ours()
    assert (tmp_path / "ran").read_text() == "x"
    compiled_stamp().unlink()
    monkeypatch.setattr(kernel_links, "WARM", (sys.executable, "-c", "raise SystemExit(1)"))
    compile_ours()
    assert not compiled_stamp().exists()


@pytest.mark.slow
def test_a_fit_compiles_nothing_that_was_compiled_for_all() -> None:
    """The kernels of another fit than the made-up one, in another process, all come from where they are kept."""
    environ = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    subprocess.run(kernel_links.WARM, env=environ, check=True)
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from tickcast.batch.train import dataset, splits, warm\n"
        "from tickcast.engine.core import windows\n"
        "warm.ROWS = 300\n"
        "warm.warm()\n"
        "kernels = dataset._targets, splits._usable, windows.gather, windows.target_channel\n"
        "print([sum(k.stats.cache_misses.values()) for k in kernels], sum(kernels[0].stats.cache_hits.values()))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[0, 0, 0, 0] 1"
