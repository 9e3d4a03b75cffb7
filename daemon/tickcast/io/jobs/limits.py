"""What a child process binds itself to before it imports anything heavy or foreign. Nothing of it can be undone.

A job dies with its parent, has bounds on processor time, address space, open files and their size, and is the first
that the kernel ends when memory runs out. Every child, the shell's too, writes nowhere but in its folder and opens no
connection, where the kernel has Landlock.
"""

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tickcast.io.jobs.folder import KERNELS, SCRATCH, Limits
from tickcast.io.jobs.kernel_links import link_kernels

OPEN_FILES = 4096
AFTER_CPU_S = 5  # between the signal that says so and the one that ends it
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
CREATE_RULESET, ADD_RULE, RESTRICT_SELF, PATH_BENEATH, VERSION = 444, 445, 446, 1, 1
WRITE_FILE, TRUNCATE = 1 << 1, 1 << 14
# write_file, remove_dir, remove_file, make_char/dir/reg/sock/fifo/block/sym; then, from later kernels, refer, truncate
WRITES_BY_VERSION = {1: sum(1 << bit for bit in (1, *range(4, 13))), 2: 1 << 13, 3: TRUNCATE}
TCP, TCP_VERSION = 0b11, 4  # bind, connect
SCOPES, SCOPES_VERSION = 0b11, 6  # abstract sockets, signals to anyone outside

libc = ctypes.CDLL(None, use_errno=True)


def bind(folder: Path, limits: Limits) -> str:
    """Apply all of it to this process; returns what keeps it within its folder: `landlock N` or `none`."""
    die_with(limits.parent)
    _bound(resource.RLIMIT_CPU, limits.cpu_s, limits.cpu_s + AFTER_CPU_S)
    _bound(resource.RLIMIT_AS, limits.memory_bytes, limits.memory_bytes)
    _bound(resource.RLIMIT_FSIZE, limits.disk_bytes, limits.disk_bytes)
    _bound(resource.RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES)
    _bound(resource.RLIMIT_CORE, 0, 0)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    return confine(folder)


def confine(folder: Path) -> str:
    """This process and all that it starts write only below `folder`; returns `landlock N`, or `none` where none is."""
    scratch = (folder / SCRATCH).absolute()
    scratch.mkdir(exist_ok=True)
    os.environ["TMPDIR"] = str(scratch)
    with suppress(OSError):  # without them it compiles its own
        link_kernels(scratch / KERNELS)
    return _write_only_in(folder)


def die_with(parent: int) -> None:
    """The system sends no signal for a parent that was gone before it was asked to."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the daemon is gone")


def _bound(what: int, soft: int, hard: int) -> None:
    """Never above what is allowed already."""
    most = resource.getrlimit(what)[1]
    if most != resource.RLIM_INFINITY:
        soft, hard = min(soft, most), min(hard, most)
    resource.setrlimit(what, (soft, hard))


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def _write_only_in(folder: Path) -> str:
    """Reading stays free: what a fit reads is spread over the whole environment."""
    version = libc.syscall(CREATE_RULESET, None, 0, VERSION)
    if version < 1:
        return "none"
    writes = sum(rights for since, rights in WRITES_BY_VERSION.items() if since <= version)
    rules = _Ruleset(writes, TCP if version >= TCP_VERSION else 0, SCOPES if version >= SCOPES_VERSION else 0)
    size = ctypes.sizeof(rules)  # a kernel that knows less of it takes the rest where it is zero
    ruleset = libc.syscall(CREATE_RULESET, ctypes.byref(rules), ctypes.c_size_t(size), 0)
    if ruleset < 0:
        return "none"
    for path in (folder, *_devices()):
        _allow(ruleset, path, writes)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    restricted = libc.syscall(RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)
    return f"landlock {version}" if restricted == 0 else "none"


def _allow(ruleset: int, path: Path, writes: int) -> None:
    rights = writes if path.is_dir() else writes & (WRITE_FILE | TRUNCATE)
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    rule = _Beneath(rights, handle)
    added = libc.syscall(ADD_RULE, ruleset, PATH_BENEATH, ctypes.byref(rule), 0)
    os.close(handle)
    if added != 0:
        raise OSError(ctypes.get_errno(), "cannot allow writing", str(path))


def _devices() -> Iterator[Path]:
    """Files that keep nothing: what goes into /dev/null, and what a GPU is told."""
    yield from Path("/dev").glob("null")
    yield from Path("/dev").glob("nvidia*")
