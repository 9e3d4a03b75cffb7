"""The kits of brokers do what their names say: restarts on the same data, pauses, losses, cuts, refusals."""

import asyncio
import os
import shutil
import signal
import ssl
import subprocess
import sys
from pathlib import Path

import aiomqtt
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaConnectionError, TopicAlreadyExistsError, TopicAuthorizationFailedError
from aiokafka.helpers import create_ssl_context

import brokerkit
import mosquittokit
from brokerkit import unique
from netkit import HOST, Child, Proxy, free_port, is_free, wait_until

LIMIT_S = 60.0
ROOT = Path(__file__).parents[2]


async def produce(bootstrap, topic, messages, **security):
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", **security)
    try:
        async with asyncio.timeout(LIMIT_S):
            await producer.start()
            for message in messages:
                await producer.send_and_wait(topic, message, partition=0)
    finally:
        await producer.stop()


async def consume(bootstrap, topic, count, **security):
    async with asyncio.timeout(LIMIT_S):
        async with AIOKafkaConsumer(
            bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False, **security
        ) as consumer:
            consumer.assign([TopicPartition(topic, 0)])
            return [(await consumer.getone()).value for _ in range(count)]


def scram(broker, password=brokerkit.PASSWORD, mechanism="SCRAM-SHA-512"):
    return {
        "security_protocol": "SASL_SSL",
        "ssl_context": create_ssl_context(cafile=broker.certificates.ca),
        "sasl_mechanism": mechanism,
        "sasl_plain_username": brokerkit.USER,
        "sasl_plain_password": password,
    }


async def test_what_was_produced_is_read_back(kafka):
    topic = kafka.create_topic(unique("ticks"), 2)
    await produce(kafka.bootstrap, topic, [b"a", b"b"])
    assert await consume(kafka.bootstrap, topic, 2) == [b"a", b"b"]


def test_a_topic_that_exists_is_not_made_again(kafka):
    topic = kafka.create_topic(unique("ticks"))
    with pytest.raises(TopicAlreadyExistsError):
        kafka.create_topic(topic)


async def test_a_killed_broker_comes_back_on_its_port_with_its_data(own_kafka):
    topic, before = own_kafka.create_topic(unique("ticks")), own_kafka.bootstrap
    await produce(own_kafka.bootstrap, topic, [b"a"])
    own_kafka.kill()
    assert is_free(own_kafka.nodes[0].ports["PLAINTEXT"])
    own_kafka.restart()
    assert own_kafka.bootstrap == before
    await produce(own_kafka.bootstrap, topic, [b"b"])
    assert await consume(own_kafka.bootstrap, topic, 2) == [b"a", b"b"]


async def test_a_paused_broker_answers_nothing_until_it_is_resumed(own_kafka):
    topic = own_kafka.create_topic(unique("ticks"))
    own_kafka.pause()
    sending = asyncio.create_task(produce(own_kafka.bootstrap, topic, [b"a"]))
    done, _ = await asyncio.wait({sending}, timeout=1)
    assert not done
    own_kafka.resume()
    await sending


async def test_a_cut_broker_is_refused_and_a_restored_one_goes_on(own_kafka):
    topic, address = own_kafka.create_topic(unique("ticks")), own_kafka.address("PROXIED")
    await produce(address, topic, [b"a"])
    own_kafka.proxy.cut()
    with pytest.raises(KafkaConnectionError):
        await produce(address, topic, [b"lost"])
    own_kafka.proxy.restore()
    await produce(address, topic, [b"b"])
    assert await consume(own_kafka.bootstrap, topic, 2) == [b"a", b"b"]


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_a_user_may_do_what_was_allowed_and_no_more(secure_kafka, mechanism):
    topic, address = secure_kafka.create_topic(unique("ticks")), secure_kafka.address("SASL_SSL")
    user = scram(secure_kafka, mechanism=mechanism)
    with pytest.raises(TopicAuthorizationFailedError):
        await produce(address, topic, [b"refused"], **user)
    secure_kafka.allow("topic", topic, "write", "read", "describe")
    await produce(address, topic, [b"a"], **user)
    assert await consume(address, topic, 1, **user) == [b"a"]


async def test_a_wrong_password_is_refused(secure_kafka, caplog):
    with pytest.raises(KafkaConnectionError):
        await produce(secure_kafka.address("SASL_SSL"), "any", [b"a"], **scram(secure_kafka, password="wrong"))
    assert "Authentication failed" in caplog.text


async def test_tls_works_with_the_authority_of_the_broker_and_with_no_other(secure_kafka):
    topic, address = secure_kafka.create_topic(unique("ticks")), secure_kafka.address("SSL")
    made = secure_kafka.certificates
    known = create_ssl_context(cafile=made.ca, certfile=made.certificate("client"), keyfile=made.key("client"))
    await produce(address, topic, [b"a"], security_protocol="SSL", ssl_context=known)
    stranger = create_ssl_context(cafile=made.stranger)
    with pytest.raises(KafkaConnectionError):
        await produce(address, topic, [b"a"], security_protocol="SSL", ssl_context=stranger)
    assert await consume(secure_kafka.bootstrap, topic, 1) == [b"a"]


def client(broker, **options):
    return aiomqtt.Client(HOST, broker.port, timeout=LIMIT_S, **options)


async def test_mosquitto_forgets_when_killed_and_comes_back_on_its_port(mosquitto):
    async with client(mosquitto) as writer:
        await writer.publish("status", b"up", retain=True)
    mosquitto.kill()
    with pytest.raises(aiomqtt.MqttError):
        await client(mosquitto).__aenter__()
    mosquitto.restart()
    async with client(mosquitto) as reader:
        await reader.subscribe("status")
        await reader.publish("status", b"new")
        async with asyncio.timeout(LIMIT_S):
            assert (await anext(reader.messages)).payload == b"new"


async def test_a_secure_mosquitto_takes_the_right_password_over_tls_alone(secure_mosquitto):
    tls = ssl.create_default_context(cafile=str(secure_mosquitto.certificates.ca))
    who = {"username": mosquittokit.USER, "tls_context": tls}
    async with client(secure_mosquitto, password=mosquittokit.PASSWORD, **who) as writer:
        await writer.publish("status", b"up", qos=1)
    with pytest.raises(aiomqtt.MqttError, match="Not authorized"):
        await client(secure_mosquitto, password="wrong", **who).__aenter__()
    stranger = ssl.create_default_context(cafile=str(secure_mosquitto.certificates.stranger))
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.open_connection(HOST, secure_mosquitto.port, ssl=stranger)


async def test_a_paused_proxy_holds_bytes_back_and_loses_none():
    async def echo(reader, writer):
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    port = free_port()
    async with await asyncio.start_server(echo, HOST, port):
        with Proxy(port) as proxy:
            reader, writer = await asyncio.open_connection(HOST, proxy.port)
            writer.write(b"a")
            assert await asyncio.wait_for(reader.readexactly(1), LIMIT_S) == b"a"
            proxy.pause()
            writer.write(b"b")
            answer = asyncio.create_task(reader.readexactly(1))
            done, _ = await asyncio.wait({answer}, timeout=0.3)
            assert not done
            proxy.resume()
            assert await asyncio.wait_for(answer, LIMIT_S) == b"b"
            proxy.cut()
            with pytest.raises(ConnectionError):
                await asyncio.wait_for(reader.readexactly(1), LIMIT_S)
            writer.close()


def test_a_child_dies_with_the_process_that_started_it_even_by_sigkill(tmp_path):
    code = (
        "import pathlib, time; from netkit import Child;"
        "child = Child(['sleep', '600'], pathlib.Path('log'));"
        "pathlib.Path('pid').write_text(str(child.pid)); time.sleep(600)"
    )
    environ = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=environ)
    pid = tmp_path / "pid"
    wait_until(lambda: pid.exists() and pid.read_text() != "", "the child's pid")
    child = Path("/proc") / pid.read_text()
    assert child.exists()
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_until(lambda: not child.exists(), "the end of the child")


def test_a_child_that_ends_at_once_shows_its_log(tmp_path):
    child = Child(["sh", "-c", "echo no such port; exit 3"], tmp_path / "log")
    with pytest.raises(RuntimeError, match=r"ended with 3\nno such port"):
        child.wait_until(lambda: False, "answer")
    child.kill()


def test_the_installer_says_what_is_missing_and_how_to_get_it(tmp_path):
    checkout, programs = tmp_path / "checkout", tmp_path / "bin"
    for part in ("scripts/brokers.sh", "tests/kafka/pom.xml"):
        (checkout / part).parent.mkdir(parents=True)
        shutil.copy(ROOT / part, checkout / part)
    programs.mkdir()
    for name in ("bash", "cmp", "dirname", "mktemp", "rm", "tail"):
        (programs / name).symlink_to(shutil.which(name))
    tried = subprocess.run(
        [checkout / "scripts/brokers.sh"], env={"PATH": str(programs)}, capture_output=True, text=True
    )
    assert tried.returncode == 1
    assert "missing: Java 17 or newer: apt-get install openjdk-17-jre-headless" in tried.stderr
    assert "missing: Maven, which fetches Kafka's jars: apt-get install maven" in tried.stderr
