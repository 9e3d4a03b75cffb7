"""The broker dies, stops, or is cut off while ticks flow: the daemon goes on, or ends with 1 and a restart recovers."""

from collections.abc import Callable
from functools import partial

import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError
from chaoskit import MODES, Deployment, Supervisor, is_long, modes, pause, seed_of
from feeder import Feeder, tape
from ledger import assert_promises_kept

from brokerkit import KafkaCluster
from kafkakit import OUTPUTS
from kafkanode import ask, forget
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


@modes("exactly_once")
def test_too_few_replicas_in_sync_are_waited_for_and_nothing_is_lost(kafka_cluster, tmp_path, delivery):
    """What it publishes to wants all three; with one of them dead nothing is published, stored or committed."""
    messages = tape(seed_of(f"too few in sync, {delivery}"), partitions=4)
    deployment = Deployment(kafka_cluster, tmp_path / "daemon", delivery=delivery)
    for name in OUTPUTS:
        ask(kafka_cluster.bootstrap, partial(want_in_sync, topic=deployment.prefix + name, count=3))
    deployment.begin(messages)
    node = kafka_cluster.nodes[-1]
    with Feeder(kafka_cluster.bootstrap, deployment.ticks, messages) as feeder, Supervisor(deployment) as supervisor:
        supervisor.wait_for(lambda daemon: daemon.has_logged("daemon_started"), "a start")
        node.kill()
        supervisor.wait_for(lambda _: len(brokers(kafka_cluster)) == 2, "the cluster to miss one")
        forget(kafka_cluster.bootstrap)
        pause(1)
        stood_at, ends = deployment.committed(), deployment.ends()
        pause(2)
        assert deployment.committed() == stood_at
        assert sum(deployment.ends().values()) > sum(ends.values())  # ticks want two
        node.start()
        node.wait(3)
        supervisor.wait_for(lambda _: sum(deployment.committed().values()) > sum(ends.values()), "it to go on")
        supervisor.end(feeder)
    assert supervisor.exits == [EXIT_OK]
    assert_promises_kept(deployment)


async def want_in_sync(admin, *, topic, count):
    resource = ConfigResource(ConfigResourceType.TOPIC, topic, configs={"min.insync.replicas": str(count)})
    await admin.alter_configs([resource])


def brokers(cluster):
    """That are alive, as the first of them sees it."""

    async def seen(admin):
        return (await admin.describe_cluster())["brokers"]

    try:
        return ask(cluster.nodes[0].address(), seen)
    except KafkaError:  # it had asked the one that is dead
        return []
