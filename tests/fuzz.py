"""The driver of `make fuzz`: mutated inputs by the hundred thousand, in child processes, so that a crash is seen too.

    python tests/fuzz.py [COUNT] [--bounds] [--only TARGET...]

FUZZ_SEED repeats a run. What fails is printed with its seed, and its input kept in build/fuzz. With --bounds kernels
check their bounds, compiled into a cache of their own. Exit 1 if a target crashed, hung, raised or grew.
"""

import argparse
import importlib
import mmap
import os
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

HERE = Path(__file__).parent
ROOT = HERE.parent
FOLDER = ROOT / "build" / "fuzz"
BOUNDS_CACHE = ROOT / "build" / "bounds-kernels"
COUNT = 1_000_000
STUCK_S = 120.0  # without a new input: a hang
COMPILE_S = 900.0  # before the first
SLOW_S = 30.0  # that one input may take, on a machine that does other things too
GROWTH_BYTES = 64 << 20  # of resident memory,
LONG = 10_000  # inputs: in a shorter run kernels are still compiled, and memory settles
SETTLED = 80  # after this part of the inputs
LAST_BYTES = 4 << 20  # of the input under way
STATE = struct.Struct("<QQdQQ")  # inputs begun, bytes of this one, slowest in s, resident bytes early, and at the end
PAGE = os.sysconf("SC_PAGE_SIZE")


class Seen(NamedTuple):
    """What a child has told so far, in memory that outlives it."""

    begun: int
    length: int
    slowest_s: float
    early_bytes: int
    late_bytes: int


class Result(NamedTuple):
    target: str
    seed: int
    count: int
    fault: str  # empty = none
    seen: Seen
    seconds: float

    def __str__(self) -> str:
        seen, mb = self.seen, 1 << 20
        told = f"{self.target:20} {self.count:>9,} inputs {self.seconds:6.1f} s  slowest {seen.slowest_s * 1e3:7.1f} ms"
        memory = f"  memory {seen.early_bytes / mb:.0f} -> {seen.late_bytes / mb:.0f} MB"
        return told + memory + (f"\n    FAILED: {self.fault}" if self.fault else "")


class Notes:
    """The input under way, noted where a crash does not take it along."""

    def __init__(self, file: Path, count: int) -> None:
        self._map = shared(file)
        self._count, self._begun = count, 0
        self._since, self._slowest_s, self._early_bytes = time.perf_counter(), 0.0, 0

    def __call__(self, data: bytes) -> None:
        now = time.perf_counter()
        if self._begun > 1:  # what compiles is no hang
            self._slowest_s = max(self._slowest_s, now - self._since)
        self._begun += 1
        if not self._early_bytes and self._begun >= self._count // SETTLED:
            self._early_bytes = resident_bytes()
        self._tell(data[: LAST_BYTES - STATE.size])
        self._since = time.perf_counter()

    def done(self) -> None:
        self._slowest_s = max(self._slowest_s, (time.perf_counter() - self._since) * (self._begun > 1))
        self._early_bytes = self._early_bytes or resident_bytes()
        self._tell(b"")

    def _tell(self, data: bytes) -> None:
        self._map[STATE.size : STATE.size + len(data)] = data
        state = self._begun, len(data), self._slowest_s, self._early_bytes, resident_bytes() if not data else 0
        self._map[: STATE.size] = STATE.pack(*state)


def shared(file: Path) -> mmap.mmap:
    with file.open("a+b") as opened:
        opened.truncate(LAST_BYTES)
        return mmap.mmap(opened.fileno(), LAST_BYTES)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def child(module: str, target: str, seed: int, count: int, file: Path) -> int:
    function, _ = importlib.import_module(module).TARGETS[target]
    notes = Notes(file, count)
    try:
        function(np.random.default_rng(seed), count, notes)
    except BaseException:  # a panic of Rust is no Exception
        traceback.print_exc(limit=-8)
        return 1
    notes.done()
    return 0


def drive(
    target: str, seed: int, count: int, *, module: str = "fuzz_targets", folder: Path = FOLDER, bounds: bool = False,
    stuck_s: float = STUCK_S,
) -> Result:  # fmt: skip
    """One target in one child; its input is kept where it fails."""
    folder.mkdir(parents=True, exist_ok=True)
    file, log = folder / f"{target}-{seed}.input", folder / f"{target}-{seed}.log"
    file.unlink(missing_ok=True)
    notes, began = shared(file), time.monotonic()
    order = [sys.executable, str(HERE / "fuzz.py"), "--child", module, target, str(seed), str(count), str(file)]
    with log.open("wb") as said:
        process = subprocess.Popen(order, env=environment(bounds=bounds), stdout=said, stderr=said, cwd=ROOT)
        hung = not _watched(process, notes, stuck_s)
    seen = Seen(*STATE.unpack(notes[: STATE.size]))
    fault = _fault(process.returncode, seen, log.read_text(errors="replace"), count=count, hung=hung)
    result = Result(target, seed, count, fault, seen, time.monotonic() - began)
    if fault:
        file.with_suffix(".bin").write_bytes(notes[STATE.size : STATE.size + seen.length])
    else:
        log.unlink()
    file.unlink()
    return result


def environment(*, bounds: bool) -> dict[str, str]:
    paths = [str(HERE), str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")]
    more = {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(BOUNDS_CACHE)} if bounds else {}
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONFAULTHANDLER": "1"} | more


def _watched(process: subprocess.Popen[bytes], notes: mmap.mmap, stuck_s: float) -> bool:
    """Whether it came to an end by itself; killed where no new input is begun for so long."""
    begun, since = 0, time.monotonic()
    while True:
        try:
            process.wait(0.5)
            return True
        except subprocess.TimeoutExpired:
            now, (at, *_) = time.monotonic(), STATE.unpack(notes[: STATE.size])
            begun, since = (at, now) if at != begun else (begun, since)
            if now - since > (stuck_s if begun > 1 else max(stuck_s, COMPILE_S)):
                process.kill()
                process.wait()
                return False


def _fault(code: int, seen: Seen, said: str, *, count: int, hung: bool) -> str:
    if hung:
        return f"input {seen.begun} hangs"
    if code < 0:
        return f"input {seen.begun} crashed it by signal {-code}\n{said[-3000:]}"
    if code:
        return f"input {seen.begun}: {said[-3000:]}"
    if count >= LONG and seen.slowest_s > SLOW_S:
        return f"an input took {seen.slowest_s:.1f} s"
    if count >= LONG and seen.late_bytes - seen.early_bytes > GROWTH_BYTES:
        return "memory grew"
    return ""


def main(given: Sequence[str]) -> int:
    if given[:1] == ["--child"]:
        module, target, seed, count, file = given[1:]
        return child(module, target, int(seed), int(count), Path(file))
    parser = argparse.ArgumentParser(description="mutated inputs for all that reads what others wrote")
    parser.add_argument("count", nargs="?", type=int, default=COUNT)
    parser.add_argument("--bounds", action="store_true", help="kernels check their bounds")
    parser.add_argument("--only", nargs="+", default=[], metavar="TARGET")
    asked = parser.parse_args(given)
    sys.path[:0] = [str(HERE), str(ROOT / "benchmarks")]
    from fuzz_targets import TARGETS

    seed = int(os.environ.get("FUZZ_SEED") or int.from_bytes(os.urandom(4), "big"))
    print(f"FUZZ_SEED={seed}", flush=True)
    wanted = {name: share for name, (_, share) in TARGETS.items() if (name in asked.only if asked.only else share)}
    whole, failed = sum(wanted.values()), 0
    counts = {name: round(asked.count * share / whole) if whole else asked.count for name, share in wanted.items()}
    with ThreadPoolExecutor(2) as pool:
        orders = [pool.submit(drive, name, seed, count, bounds=asked.bounds) for name, count in counts.items()]
        for order in orders:
            print(result := order.result(), flush=True)
            failed += bool(result.fault)
    print(f"{failed} of {len(wanted)} targets failed: inputs and logs are in {FOLDER}" if failed else "nothing failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
