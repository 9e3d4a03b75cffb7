"""Runs the benchmark scripts and prints every figure with the machine and the versions it was measured on.

    python benchmarks/run.py             all of them, but for the long ones; writes benchmarks/results/bench.json
    python benchmarks/run.py NAME...     these; each writes benchmarks/results/NAME.json

Each figure becomes a line of benchmarks/results/history.jsonl, too, and with it of docs/figures.md.

A script is a file of this folder with a `main()` that returns a list of `stats.Figure`. Each runs in a process of
its own, so that none warms or disturbs another. Exit 1 if a script failed or a figure lies beyond its bar.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from figures import HISTORY, PAGE, add_to_history, verdict, write_page
from tickcast.clock import SystemClock

HERE = Path(__file__).parent
RESULTS = HERE / "results"
NOT_SCRIPTS = {"run", "pairs", "stats", "figures", "kafka_child", "kafka_peer"}
LONG = {  # by name; `make bench` prints their last result
    "accuracy",
    "coverage_by_step",
    "jobs",
    "kafka_commands",
    "kafka_ingest",
    "kafka_job",
    "kafka_latency",
    "loop_drift",
    "loop_leaving",
    "loop_online",
    "loop_replay",
    "loop_volatility",
    "optimize",
    "soak",
    "step",
    "training",
}
TIMEOUT_S = 3600
PACKAGES = ("numpy", "numba", "torch", "onnxruntime", "duckdb", "polars", "msgspec", "aiokafka")
CHILD = """
import importlib, json, sys
figures = importlib.import_module(sys.argv[1]).main() or []
with open(sys.argv[2], "w") as file:
    json.dump([figure.as_json() for figure in figures], file)
"""

Result = dict[str, Any]


def scripts() -> list[str]:
    return sorted(path.stem for path in HERE.glob("*.py") if path.stem not in NOT_SCRIPTS and has_main(path))


def has_main(path: Path) -> bool:
    return "\ndef main(" in path.read_text(encoding="utf-8")


def machine() -> dict[str, Any]:
    return {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "load_before": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "tickcast": version("tickcast"),
        **{name: version(name) for name in PACKAGES},
    }


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def measure(name: str) -> Result:
    """Run one script in its own process; what it prints is shown as it comes."""
    out = RESULTS / f".{name}.part"
    environment = {**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CHILD, name, str(out)]
    try:
        done = subprocess.run(command, env=environment, cwd=HERE.parent, timeout=TIMEOUT_S)
        failed = f"exit {done.returncode}" if done.returncode else ""
        figures = [] if failed else json.loads(out.read_text())
    except subprocess.TimeoutExpired:
        failed, figures = f"no end after {TIMEOUT_S} s", []
    finally:
        out.unlink(missing_ok=True)
    return {"script": name, "failed": failed, "figures": figures}


def lines(result: Result) -> Iterable[str]:
    yield f"\n{result['script']}" + (f"  FAILED: {result['failed']}" if result["failed"] else "")
    for figure in result["figures"]:
        value = f"{figure['value']:,.4g} {figure['unit']}"
        if figure["low"] is not None and figure["high"] is not None:
            value += f" [{figure['low']:,.4g}, {figure['high']:,.4g}]"
        sign = "<=" if figure["better"] == "lower" else ">="
        bar = "" if figure["bar"] is None else f"  {sign} {figure['bar']:,.4g}: {verdict(figure).replace('*', '')}"
        note = f"  ({figure['note']})" if figure["note"] else ""
        yield f"  {figure['name']:<58} {value:>24}{bar}{note}"


def last_result(name: str) -> Result | None:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text())["results"][0] if path.exists() else None


def holds(result: Result) -> bool:
    return not result["failed"] and all(figure["holds"] is not False for figure in result["figures"])


def today() -> str:
    return datetime.fromtimestamp(SystemClock().now_ns() / 1e9, UTC).date().isoformat()


def save(name: str, where: dict[str, Any], results: list[Result]) -> None:
    text = json.dumps({"machine": where, "results": results}, indent=1, ensure_ascii=False)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Run the benchmark scripts.")
    parser.add_argument("names", nargs="*", help="scripts to run; none = all but the long ones")
    names: list[str] = parser.parse_args(arguments).names
    if unknown := set(names) - set(scripts()):
        parser.error(f"no benchmark named {', '.join(sorted(unknown))}; there are {', '.join(scripts()) or 'none'}")
    RESULTS.mkdir(exist_ok=True)
    where = machine()
    print("\n".join(f"{key:>12}: {value}" for key, value in where.items()), flush=True)
    results = []
    for name in names or [script for script in scripts() if script not in LONG]:
        result = measure(name)
        results.append(result)
        print("\n".join(lines(result)), flush=True)
        add_to_history(today(), name, result["figures"], RESULTS / HISTORY.name)
        if names:
            save(name, where, [result])
    if not names:
        save("bench", where, results)
        for name in sorted(LONG):
            if (last := last_result(name)) is not None:
                print("\n".join(lines({**last, "script": f"{name} (last committed result)"})))
    write_page(RESULTS / HISTORY.name, PAGE)
    return 0 if all(map(holds, results)) else 1


if __name__ == "__main__":
    sys.exit(main())
