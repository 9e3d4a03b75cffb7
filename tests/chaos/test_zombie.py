"""A daemon is stopped (SIGSTOP), another takes its slot, and the first comes back as a zombie."""

import signal

import pytest
from chaoskit import Deployment, is_long, pause, seed_of
from feeder import Feeder, feed_at_once, tape
from ledger import check

from tickcast.errors import EXIT_FENCED, EXIT_OK

pytestmark = pytest.mark.timeout(300)
ROUNDS = 5 if is_long() else 1
MODES = pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])


@MODES
def test_a_daemon_that_lost_its_slot_while_it_was_stopped_ends_with_75_and_spoils_nothing(kafka, tmp_path, delivery):
    seed = seed_of(f"zombie, {delivery}")
    messages = tape(seed, partitions=4)
    deployment = Deployment(kafka, tmp_path / "daemon", delivery=delivery)
    feed_at_once(kafka.bootstrap, deployment.ticks, messages, 500)
    deployment.run_undisturbed()
    stores = [deployment.store]
    with Feeder(kafka.bootstrap, deployment.ticks, messages):
        daemon = deployment.start()
        for number in range(ROUNDS):
            daemon.wait_for("daemon_started")
            pause(1.5)
            daemon.signal(signal.SIGSTOP)
            stores.append(tmp_path / f"heir-{number}.duckdb")  # it is on another machine, with the same snapshots
            heir = deployment.start(store__path=str(stores[-1]), runtime__folder=str(tmp_path / f"heir-{number}"))
            heir.wait_for("daemon_started")
            daemon.signal(signal.SIGCONT)
            assert daemon.ended() == EXIT_FENCED, daemon.log()[-4000:]
            assert "another daemon has taken this slot" in daemon.log()
            daemon = heir
    daemon.wait_until(deployment.is_caught_up, "the end of the topic")
    assert daemon.drain() == EXIT_OK
    reference = deployment.twin("reference")
    reference.run_undisturbed()
    ledger = check(deployment, reference=reference, stores=stores)
    assert not ledger.faults(exactly_once=delivery == "exactly_once")
