"""SIGKILL at every named seam, and at random times while ticks flow."""

import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from chaoskit import MODES, Deployment, Supervisor, is_long, modes, seed_of
from feeder import Feeder, tape
from ledger import assert_promises_kept
from seams import SEAMS

from brokerkit import KafkaBroker
from kafkakit import Message
from tickcast.errors import EXIT_OK

KILLS = 60 if is_long() else 3  # at random times, in each mode
ROUNDS = 4 if is_long() else 1  # through all seams, in each mode
TICKS_PER_S = 200 if is_long() else 500


def begun(
    kafka: KafkaBroker, folder: Path, delivery: str, name: str
) -> tuple[Deployment, Iterator[Message], np.random.Generator]:
    """A deployment of which some ticks are through, the ticks that follow, and chance."""
    seed = seed_of(f"{name}, {delivery}")
    messages, deployment = tape(seed, partitions=4), Deployment(kafka, folder, delivery=delivery)
    deployment.begin(messages)
    return deployment, messages, np.random.default_rng(seed)


@pytest.mark.timeout(1800 if is_long() else 300)
@modes(*MODES)
def test_every_tick_is_answered_when_the_daemon_dies_at_any_seam(kafka, tmp_path, delivery):
    deployment, messages, rng = begun(kafka, tmp_path / "daemon", delivery, "seams")
    with Feeder(kafka.bootstrap, deployment.ticks, messages, per_s=TICKS_PER_S):
        for seam in list(SEAMS) * ROUNDS:
            daemon = deployment.start_to_die(seam, int(rng.integers(1, 4)))
            assert daemon.ended() == -signal.SIGKILL, f"{seam}\n{daemon.log()[-4000:]}"
    deployment.run_undisturbed()
    assert_promises_kept(deployment)


@pytest.mark.timeout(1800 if is_long() else 300)
@modes(*MODES)
def test_every_tick_is_answered_when_the_daemon_dies_at_random_times(kafka, tmp_path, delivery):
    deployment, messages, rng = begun(kafka, tmp_path / "daemon", delivery, "random kills")
    with (
        Feeder(kafka.bootstrap, deployment.ticks, messages, per_s=TICKS_PER_S) as feeder,
        Supervisor(deployment) as supervisor,
    ):
        for number in range(KILLS):
            if number % 4:  # each fourth may hit the start
                supervisor.wait_for(lambda daemon: daemon.has_logged("slot_taken"), "a start")
            supervisor.kill_after(float(rng.uniform(0, 3)))
        supervisor.end(feeder)
    assert supervisor.exits == [-signal.SIGKILL] * KILLS + [EXIT_OK]
    assert_promises_kept(deployment)
