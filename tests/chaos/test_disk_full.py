"""The disk of the store is full: the daemon waits, says so, and goes on when there is room."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaoskit import Deployment, Supervisor, pause, seed_of
from feeder import Feeder, tape
from ledger import assert_promises_kept

from needs import need
from tickcast.errors import EXIT_OK

DISK_MB = 48
pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", folder], capture_output=True)
    need(mounted.returncode == 0, "the right to mount a small disk: run this test as root")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_ticks_wait_while_the_disk_of_the_store_is_full(kafka, tmp_path, small_disk):
    messages = tape(seed_of("disk full"), partitions=4)
    deployment = Deployment(kafka, tmp_path / "daemon", store__path=str(small_disk / "store.duckdb"))
    deployment.begin(messages)
    ballast = small_disk / "ballast"
    with Feeder(kafka.bootstrap, deployment.ticks, messages) as feeder, Supervisor(deployment) as supervisor:
        supervisor.wait_for(lambda daemon: daemon.has_logged("daemon_started"), "a start")
        fill(ballast)
        supervisor.wait_for(lambda daemon: daemon.has_logged("store_stalled"), "store_stalled")
        pause(1)
        stood_at = deployment.committed()
        pause(2)
        assert deployment.committed() == stood_at  # what is not stored is not committed
        ballast.unlink()
        supervisor.wait_for(lambda _: deployment.committed() != stood_at, "a commit after the stall")
        supervisor.end(feeder)
    assert supervisor.exits == [EXIT_OK]
    assert_promises_kept(deployment)


def fill(ballast: Path) -> None:
    """Take all the room there is, to the last byte."""
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass
    assert not os.statvfs(ballast).f_bavail
