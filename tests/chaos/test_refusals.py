"""A broker that refuses the daemon, or is not there: the message names the setting, the code says what to do."""

from functools import partial

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import DeleteAclsRequest
from chaoskit import MODES, OUTPUTS, Deployment, is_long
from feeder import Feeder, feed_at_once, tape
from ledger import assert_promises_kept

from brokerkit import ALLOW, LITERAL, OPERATIONS, PASSWORD, RESOURCES, USER
from kafkanode import ask
from netkit import free_port
from tickcast.errors import EXIT_DIED, EXIT_OK, EXIT_REFUSED

pytestmark = pytest.mark.timeout(120)
Right = tuple[str, str, tuple[str, ...]]


@pytest.fixture
def secured(secure_kafka, tmp_path) -> Deployment:
    """As it should be but for its rights: TLS, and a user with a password."""
    password = tmp_path / "password"
    password.write_text(PASSWORD)
    return Deployment(
        secure_kafka, tmp_path / "daemon", listener="SASL_SSL", kafka__security__protocol="SASL_SSL",
        kafka__security__username=USER, kafka__security__password_file=str(password),
        kafka__security__ca_file=str(secure_kafka.certificates.ca),
    )  # fmt: skip


def rights(deployment: Deployment) -> dict[str, Right]:
    """All that a daemon needs, by what it needs it for."""
    outputs = {name: ("topic", deployment.prefix + name, ("write", "describe")) for name in OUTPUTS}
    return outputs | {
        "ticks": ("topic", deployment.ticks, ("read", "describe")),
        "group": ("group", deployment.group, ("read", "describe")),
        "slot": ("transactional_id", f"tickcast.{deployment.group}.0", ("write", "describe")),
    }


def allow(deployment: Deployment, *, without: str = "") -> None:
    """All rights but one: of a thing (`ticks`) or of an operation on it (`forecasts write`)."""
    for what, (resource, name, operations) in rights(deployment).items():
        given = [operation for operation in operations if without not in (what, f"{what} {operation}")]
        if given:
            deployment.broker.allow(resource, name, *given)


def test_with_all_rights_it_answers(secured):
    allow(secured)
    feed_at_once(secured.broker.bootstrap, secured.ticks, tape(1, partitions=4), 100)
    secured.run_undisturbed()


@pytest.mark.parametrize(
    ("without", "named"),
    [
        ("ticks", "topics.ticks"), ("ticks read", "ticks-"), ("forecasts", "topics.prefix"), ("dlq", "topics.prefix"),
        ("forecasts write", "forecasts"), ("group", "kafka.group"),
        ("slot", "slot 0 of kafka.group"),
    ],
)  # fmt: skip
def test_a_missing_right_refuses_the_start_and_says_which(secured, without, named):
    allow(secured, without=without)
    feed_at_once(secured.broker.bootstrap, secured.ticks, tape(1, partitions=4), 300)
    daemon = secured.start()
    assert daemon.ended() == EXIT_REFUSED, daemon.log()
    assert named in daemon.last_words, daemon.log()
    assert "docs/kafka.md" in daemon.last_words


def withdraw(deployment: Deployment, what: str) -> None:
    """One operation on one thing, which may be given back: `ticks read`."""
    thing, operation = what.split()
    resource, name, _ = rights(deployment)[thing]
    request = DeleteAclsRequest(RESOURCES[resource], name, LITERAL, f"User:{USER}", "*", OPERATIONS[operation], ALLOW)
    answer = ask(deployment.broker.bootstrap, partial(AIOKafkaAdminClient._send_request, request=request))
    ((code, _, matching),) = answer.filter_responses
    assert (code, len(matching)) == (0, 1)


@pytest.mark.parametrize(
    ("what", "delivery"),
    [("ticks read", "at_least_once"), ("forecasts write", "at_least_once"), ("forecasts write", "exactly_once"),
     *(("group read", mode) for mode in MODES if is_long())],
)  # fmt: skip
def test_a_right_that_is_withdrawn_while_it_runs_is_asked_for_until_it_is_back(secured, what, delivery):
    secured.delivery = secured.settings["kafka.delivery"] = delivery
    allow(secured)
    messages = tape(2, partitions=4)
    secured.begin(messages)
    daemon = secured.start()
    with Feeder(secured.broker.bootstrap, secured.ticks, messages, per_s=200):
        before = sum(secured.committed().values())
        daemon.wait_until(lambda: sum(secured.committed().values()) > before, "a commit")
        withdraw(secured, what)
        daemon.wait_until(lambda: daemon.log().count("broker_refuses") > 1, "it to have asked again")
        allow(secured)
        before = sum(secured.committed().values())
        daemon.wait_until(lambda: sum(secured.committed().values()) > before, "it to go on")
    daemon.wait_until(secured.is_caught_up, "the end of the topic")
    assert daemon.drain() == EXIT_OK, daemon.log()
    assert_promises_kept(secured)


def test_a_right_that_stays_withdrawn_ends_the_daemon_with_1_and_its_name(secured):
    allow(secured)
    daemon = secured.start(runtime__max_wait_s=2)
    feed_at_once(secured.broker.bootstrap, secured.ticks, tape(3, partitions=4), 100)
    daemon.wait_until(secured.is_caught_up, "the ticks to be committed")
    withdraw(secured, "slot write")
    feed_at_once(secured.broker.bootstrap, secured.ticks, tape(3, partitions=4), 10)
    assert daemon.ended() == EXIT_DIED, daemon.log()
    assert "broker_refuses" in daemon.log()
    assert "slot 0 of kafka.group" in daemon.last_words
    assert "docs/kafka.md" in daemon.last_words


def test_an_authority_that_we_do_not_trust_is_refused(secured):
    daemon = secured.start(kafka__security__ca_file=str(secured.broker.certificates.stranger))
    assert daemon.ended() == EXIT_REFUSED, daemon.log()
    assert "kafka.security.protocol, .ca_file" in daemon.log()


def test_a_wrong_password_is_refused(secured, tmp_path):
    wrong = tmp_path / "wrong"
    wrong.write_text("guessed")
    daemon = secured.start(kafka__security__password_file=str(wrong))
    assert daemon.ended() == EXIT_REFUSED, daemon.log()
    assert f"refuses the user '{USER}'" in daemon.log()
    assert "kafka.security.username, .password_file" in daemon.log()
    assert "guessed" not in daemon.log()


@pytest.mark.parametrize(
    ("setting", "value"), [("topics.ticks", ["no.such.topic"]), ("topics.prefix", "no.such.prefix.")]
)
def test_a_missing_topic_is_refused(kafka, tmp_path, setting, value):
    daemon = Deployment(kafka, tmp_path / "daemon").start(**{setting: value})
    assert daemon.ended() == EXIT_REFUSED, daemon.log()
    assert f"of {setting}" in daemon.log()
    assert "not exist (`tickcast topics --create`" in daemon.log()
    assert all(f"'no.such.prefix.{name}'" in daemon.log() for name in OUTPUTS[:-1]) == (setting == "topics.prefix")


def test_a_broker_that_is_away_is_waited_for_and_given_up_after_max_wait_s(kafka, tmp_path):
    address = f"127.0.0.1:{free_port()}"
    daemon = Deployment(kafka, tmp_path / "daemon").start(kafka__bootstrap_servers=address, runtime__max_wait_s=2)
    assert daemon.ended() == EXIT_DIED, daemon.log()
    assert daemon.log().count("broker_away") >= 2  # while it waits, and at last
    assert "kafka.bootstrap_servers" in daemon.last_words
