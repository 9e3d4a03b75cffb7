"""The broker dies, stops, or is cut off while ticks flow: the daemon goes on, or ends with 1 and a restart recovers."""

from collections.abc import Callable

import pytest
from chaoskit import MODES, Deployment, Supervisor, is_long, modes, pause, seed_of
from feeder import Feeder, tape
from ledger import assert_promises_kept

from brokerkit import KafkaCluster
from tickcast.errors import EXIT_DIED, EXIT_OK

pytestmark = pytest.mark.timeout(400)
ROUNDS = 3 if is_long() else 1
PAUSE_S, TRANSACTION_S, CALL_S = (30, 25, 20) if is_long() else (8, 5, 3)


@pytest.fixture
def survives(tmp_path) -> Callable[..., Supervisor]:
    """Runs a supervised daemon, breaks something under it, and checks the ledger at the end."""

    def check_it(broker: KafkaCluster, breakage: Callable[[], None], delivery: str, **settings: object) -> Supervisor:
        messages = tape(seed_of(f"broker loss, {delivery}"), partitions=4)
        deployment = Deployment(broker, tmp_path / "daemon", delivery=delivery, **settings)
        deployment.begin(messages)
        with Feeder(broker.bootstrap, deployment.ticks, messages) as feeder, Supervisor(deployment) as supervisor:
            for _ in range(ROUNDS):
                supervisor.wait_for(lambda daemon: daemon.has_logged("daemon_started"), "a start")
                pause(1)
                breakage()
                pause(1)
            supervisor.end(feeder)
        assert supervisor.exits == [EXIT_DIED] * (len(supervisor.exits) - 1) + [EXIT_OK]
        assert_promises_kept(deployment)
        return supervisor

    return check_it


@modes(*MODES)
def test_a_broker_that_is_killed_and_comes_back(own_kafka, survives, delivery):
    survives(own_kafka, own_kafka.restart, delivery)


@modes("exactly_once")
def test_a_broker_that_stops_for_longer_than_a_commit_may_take(own_kafka, survives, delivery):
    def breakage() -> None:
        own_kafka.pause()
        pause(PAUSE_S)
        own_kafka.resume()

    limits = {"kafka.call_timeout_s": CALL_S, "kafka.transaction_timeout_s": TRANSACTION_S}
    survives(own_kafka, breakage, delivery, **limits)  # it dies if it was committing just then, and else goes on


@modes("at_least_once")
def test_a_port_that_is_cut_and_restored(own_kafka, survives, delivery):
    def breakage() -> None:
        own_kafka.proxy.cut()
        pause(3)
        own_kafka.proxy.restore()

    survives(own_kafka, breakage, delivery, listener="PROXIED")


@modes("exactly_once")
def test_a_cluster_that_is_restarted_as_a_whole(kafka_cluster, survives, delivery):
    survives(kafka_cluster, kafka_cluster.restart, delivery)


@modes("at_least_once")
def test_one_broker_of_three_that_dies_and_comes_back(kafka_cluster, survives, delivery):
    nodes = iter(kafka_cluster.nodes * ROUNDS)

    def breakage() -> None:
        node = next(nodes)
        node.kill()
        pause(5)
        node.start()
        node.wait(3)

    survives(kafka_cluster, breakage, delivery)
