"""The base install, without torch, polars and their like: it serves an ONNX model, and names what it lacks."""

import json
import os
import subprocess
from pathlib import Path

import pytest

import installkit
from modelkit import Fitted, model_settings
from tickcast.batch.synth import json_messages
from tickcast.extras import EXTRA_OF

TIMEOUT_S = 120
TESTS = Path(__file__).parents[1]
SERVE = """
import asyncio, json, sys
from pathlib import Path
from livekit import running
from tickcast.settings import Settings

async def serve(config, messages, out):
    async with running(Settings(**json.loads(Path(config).read_text()))) as live:
        await live.send(Path(messages).read_bytes().splitlines(), chunk=2000)
        await live.stored()
        told = await live.daemon.command("train", kind="ridge")
        found = [(f["rung"], f["model"]) for f in await live.forecasts()]
    Path(out).write_text(json.dumps([found, told.error_code, told.error, sorted(sys.modules)]))

asyncio.run(serve(*sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installkit.install(tmp_path_factory.mktemp("base"))


def run(python: Path, folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    return subprocess.run(
        [python, *map(str, arguments)], cwd=folder, env=environment | {"PYTHONPATH": str(TESTS)},
        capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_it_serves_an_onnx_model_and_a_job_says_which_extra_it_lacks(python, fitted: Fitted, tmp_path: Path) -> None:
    config, messages = tmp_path / "settings.json", tmp_path / "ticks.jsonl"
    settings = model_settings("time", tmp_path, model__default=fitted.models["time"], store__bars="all")
    config.write_text(settings.model_dump_json(exclude_defaults=True))
    messages.write_bytes(b"\n".join(message for _, message in json_messages(fitted.ticks)[:6000]))
    done = run(python, tmp_path, "-c", SERVE, config, messages, tmp_path / "told.json")
    assert done.returncode == 0, done.stderr
    forecasts, code, error, modules = json.loads((tmp_path / "told.json").read_text())
    assert ["model", "small-time"] in forecasts
    assert code == "missing_package"
    assert "tickcast[train]" in error
    assert not set(EXTRA_OF) & set(modules)


@pytest.mark.parametrize(
    ("command", "extra"),
    [("replay --data nothing.csv", "replay"), ("synth --out t.csv", "replay"), ("optimize --data t.csv", "train")],
)
def test_a_command_that_needs_an_extra_names_it(python, tmp_path: Path, command: str, extra: str) -> None:
    done = run(python, tmp_path, "-m", "tickcast", *command.split())
    assert done.returncode == 78, done.stderr
    assert f"'tickcast[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr
