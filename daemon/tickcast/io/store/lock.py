"""The store's own lock file: one process at a time, named by its pid. It never touches the database file.

DuckDB's own lock is not enough: closing any second handle to the database file drops it without a word.
"""

import fcntl
import os
from pathlib import Path
from time import sleep
from typing import Self

from tickcast.errors import BadStore

WAIT_S = 2.0  # a query from the command line holds the lock for a moment; a daemon waits that long for it
_POLL_S = 0.05


class StoreLock:
    """Held from construction to `release`; the kernel drops it with the process."""

    def __init__(self, database: Path, *, wait_s: float = WAIT_S) -> None:
        self.path = database.with_name(database.name + ".lock")
        try:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise BadStore(
                f"cannot create the lock file {self.path}: {error.strerror}",
                remedy="the folder of store.path must be writable",
            ) from None
        for _ in range(max(1, round(wait_s / _POLL_S))):
            if self._take():
                return
            sleep(_POLL_S)
        holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(self._fd)
        if holder == str(os.getpid()):
            raise BadStore(f"{database} is open in this process already", remedy="give each store a path of its own")
        raise BadStore(
            f"{database} is held by process {holder}",
            remedy=f"stop that process, or give this one another store.path; the lock is {self.path}",
        )

    def _take(self) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        return True

    def release(self) -> None:
        os.ftruncate(self._fd, 0)
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
