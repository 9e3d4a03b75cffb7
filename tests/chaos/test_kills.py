"""SIGKILL at every named seam, and at random times while ticks flow."""

import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from chaoskit import MODES, Deployment, Supervisor, is_long, modes, seed_of
from feeder import Feeder, Message, feed_at_once, tape
from ledger import check
from seams import SEAMS

from brokerkit import KafkaBroker

KILLS = 60 if is_long() else 3  # at random times, in each mode
ROUNDS = 4 if is_long() else 1  # through all seams, in each mode
FIRST_TICKS, TICKS_PER_S = 500, 200 if is_long() else 500


def begun(kafka: KafkaBroker, folder: Path, delivery: str, messages: Iterator[Message]) -> Deployment:
    """Some ticks are through and a snapshot is there: from then on a kill may come at any time."""
    deployment = Deployment(kafka, folder, delivery=delivery)
    feed_at_once(kafka.bootstrap, deployment.ticks, messages, FIRST_TICKS)
    deployment.run_undisturbed()
    assert deployment.has_snapshot()
    return deployment


def assert_promises_kept(deployment: Deployment) -> None:
    reference = deployment.twin("reference")
    reference.run_undisturbed()
    assert not check(deployment, reference=reference).faults(exactly_once=deployment.delivery == "exactly_once")


@pytest.mark.timeout(1800 if is_long() else 300)
@modes(*MODES)
def test_every_tick_is_answered_when_the_daemon_dies_at_any_seam(kafka, tmp_path, delivery):
    seed = seed_of(f"seams, {delivery}")
    rng, messages = np.random.default_rng(seed), tape(seed, partitions=4)
    deployment = begun(kafka, tmp_path / "daemon", delivery, messages)
    with Feeder(kafka.bootstrap, deployment.ticks, messages, per_s=TICKS_PER_S):
        for seam in list(SEAMS) * ROUNDS:
            daemon = deployment.start_to_die(seam, int(rng.integers(1, 4)))
            assert daemon.ended() == -signal.SIGKILL, f"{seam}\n{daemon.log()[-4000:]}"
    deployment.run_undisturbed()
    assert_promises_kept(deployment)


@pytest.mark.timeout(1800 if is_long() else 300)
@modes(*MODES)
def test_every_tick_is_answered_when_the_daemon_dies_at_random_times(kafka, tmp_path, delivery):
    seed = seed_of(f"random kills, {delivery}")
    rng, messages = np.random.default_rng(seed), tape(seed, partitions=4)
    deployment = begun(kafka, tmp_path / "daemon", delivery, messages)
    with (
        Feeder(kafka.bootstrap, deployment.ticks, messages, per_s=TICKS_PER_S) as feeder,
        Supervisor(deployment) as supervisor,
    ):
        for number in range(KILLS):
            if number % 4:  # each fourth may hit the start
                supervisor.wait_for(lambda daemon: daemon.has_logged("slot_taken"), "a start")
            supervisor.kill_after(float(rng.uniform(0, 3)))
        feeder.finish()
        supervisor.catch_up()
        supervisor.drain()
    assert supervisor.exits == [-signal.SIGKILL] * KILLS + [0]
    assert_promises_kept(deployment)
