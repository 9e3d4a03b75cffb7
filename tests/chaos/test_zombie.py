"""A daemon is stopped (SIGSTOP), another takes its slot, and the first comes back as a zombie."""

import signal

import pytest
from chaoskit import MODES, Deployment, is_long, modes, pause, seed_of
from feeder import Feeder, tape
from ledger import assert_promises_kept
from seams import SEAMS

from tickcast.errors import EXIT_DIED, EXIT_FENCED, EXIT_OK

pytestmark = pytest.mark.timeout(300)
CALL_TIMEOUT_S = 2
TAKE_OVERS = 20 if is_long() else 2
STOPPED_AT = list(SEAMS) if is_long() else ["offsets"]


@modes(*MODES)
def test_a_daemon_that_lost_its_slot_while_it_was_stopped_ends_with_75_and_spoils_nothing(kafka, tmp_path, delivery):
    messages = tape(seed_of(f"zombie, {delivery}"), partitions=4)
    deployment = Deployment(kafka, tmp_path / "daemon", delivery=delivery, kafka__call_timeout_s=CALL_TIMEOUT_S)
    deployment.begin(messages)
    stores = [deployment.store]
    with Feeder(kafka.bootstrap, deployment.ticks, messages):
        for seam in STOPPED_AT:
            zombie = deployment.start_to_stop(seam, 3)
            zombie.wait_until(lambda zombie=zombie: zombie.is_stopped, f"the stop at {seam}")
            stores.append(tmp_path / seam / "store.duckdb")  # on another machine, with the same snapshots
            stores[-1].parent.mkdir()
            heir = deployment.start(store__path=str(stores[-1]), runtime__folder=str(stores[-1].parent / "run"))
            heir.wait_for("daemon_started")
            pause(CALL_TIMEOUT_S)  # its calls have had no answer in time, when it looks
            zombie.signal(signal.SIGCONT)
            assert zombie.ended() == EXIT_FENCED, f"{seam}\n{zombie.log()[-4000:]}"
            assert "another daemon has taken this slot" in zombie.log()
            assert heir.drain() == EXIT_OK
    deployment.run_undisturbed()
    assert_promises_kept(deployment, stores=stores)


@modes(*MODES)
def test_a_daemon_whose_slot_is_taken_while_it_runs_ends_with_75_each_time(kafka, tmp_path, delivery):
    deployment = Deployment(
        kafka, tmp_path / "daemon", delivery=delivery, store__unit_ms=2000
    )  # fenced between commits
    with Feeder(kafka.bootstrap, deployment.ticks, tape(seed_of(f"taken, {delivery}"), partitions=4)):
        daemon = deployment.start()
        for number in range(TAKE_OVERS):
            daemon.wait_for("daemon_started")
            folder = tmp_path / f"heir-{number}"
            folder.mkdir()
            heir = deployment.start(store__path=str(folder / "store.duckdb"), runtime__folder=str(folder))
            assert daemon.ended() == EXIT_FENCED, daemon.log()[-4000:]
            assert "another daemon has taken this slot" in daemon.log()
            daemon = heir
        daemon.wait_for("daemon_started")
    assert daemon.drain() == EXIT_OK


def test_a_daemon_whose_transaction_grew_too_old_while_nobody_took_its_slot_is_one_to_restart(kafka, tmp_path):
    messages = tape(seed_of("stopped alone"), partitions=4)
    deployment = Deployment(
        kafka, tmp_path / "daemon", delivery="exactly_once", kafka__transaction_timeout_s=CALL_TIMEOUT_S,
        kafka__call_timeout_s=CALL_TIMEOUT_S,
    )  # fmt: skip
    with Feeder(kafka.bootstrap, deployment.ticks, messages):
        daemon = deployment.start_to_stop("publish", 5)
        daemon.wait_until(lambda: daemon.is_stopped, "the stop within a transaction")
        pause(2 * CALL_TIMEOUT_S)
        daemon.signal(signal.SIGCONT)
        assert daemon.ended() == EXIT_DIED, daemon.log()[-4000:]
        assert "kafka.transaction_timeout_s" in daemon.log()
    deployment.run_undisturbed()
