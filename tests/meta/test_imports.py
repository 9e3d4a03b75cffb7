"""What starting a process costs in imports: torch alone takes seconds, so the serving path must not load it."""

import json
import subprocess
import sys

import pytest

TIMEOUT_S = 120
HEAVY = {"torch", "polars", "optuna", "onnx", "matplotlib", "sklearn"}  # scipy: numba asks whether it is there
LIST_MODULES = (
    "import importlib, json, sys; [importlib.import_module(name) for name in sys.argv[1:]]; "
    "print(json.dumps(list(sys.modules)))"
)
CLASSICAL = (
    "arima", "garch", "kalman", "linear", "mstl", "naive_bayes", "prophet_like", "smoothing", "trees",
    "volatility",
)  # fmt: skip


def loaded_by(*modules):
    """Top-level packages that are loaded after a fresh interpreter imported `modules`."""
    done = subprocess.run(
        [sys.executable, "-c", LIST_MODULES, *modules], capture_output=True, text=True, timeout=TIMEOUT_S, check=True
    )
    return {name.split(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


@pytest.mark.slow
@pytest.mark.parametrize(
    "module", ["tickcast.live.daemon", "tickcast.loop.pump", "tickcast.ui.cli", "tickcast.engine.core.engine"]
)
def test_the_serving_path_imports_no_training_package(module):
    assert not loaded_by(module) & HEAVY


def test_the_settings_load_without_a_heavy_package():
    loaded = loaded_by("tickcast.settings")
    assert not loaded & (HEAVY | {"duckdb", "rich", "structlog", "numba"})


@pytest.mark.slow
def test_the_fit_of_a_classical_model_does_not_wait_for_torch():
    kinds = [f"tickcast_plugins.models.{name}" for name in CLASSICAL]
    assert "torch" not in loaded_by("tickcast.io.jobs.worker", "tickcast.batch.train.fit", *kinds)


def test_a_heavy_import_would_be_noticed():
    assert "polars" in loaded_by("polars")
