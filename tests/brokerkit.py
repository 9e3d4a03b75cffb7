"""Real Kafka for tests, benchmarks and a person: one broker or several, started here and gone with us."""

import base64
import secrets
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import for_code
from aiokafka.protocol.admin import CreateAclsRequest

from kafkanode import CLASSES, JARS, QUICK_COMPILER, KafkaNode, ask, forget
from netkit import HOST, Certificates, Proxy, free_port

REMEDY = "Java 17 and the jars of Kafka: run scripts/brokers.sh"
USER, PASSWORD = "trader", "the-right-password"
ADMIN = "User:ANONYMOUS;User:CN=client"  # the kit itself, and who comes with the certificate of the client
SCRAM = ("SCRAM-SHA-256", "SCRAM-SHA-512")
MODULES = "org.apache.kafka.common.security"
RESOURCES = {"topic": 2, "group": 3, "cluster": 4, "transactional_id": 5}  # numbers of the protocol
OPERATIONS = {"all": 2, "read": 3, "write": 4, "create": 5, "describe": 8, "idempotent_write": 12}
LITERAL, ALLOW = 3, 3


def is_installed() -> bool:
    return shutil.which("java") is not None and (JARS / "pom.xml").exists()


def unique(name: str) -> str:
    """A name that no other test uses, on a broker that many tests share."""
    return f"{name}-{secrets.token_hex(4)}"


class KafkaCluster:
    """Brokers that form a cluster, ready when made; their data is gone after `close`.

    `secure` adds the listeners SSL and SASL_SSL and lets nobody do anything without `allow`, but for whoever comes
    without a name or with the client's certificate; `proxied` adds PROXIED, behind a proxy for each node; with
    `full_speed` the JVM starts slower and serves faster. Further keywords are properties of the brokers, `_` for a dot.
    """

    def __init__(
        self, size: int = 3, *, heap_mb: int = 256, port: int | None = None, secure: bool = False,
        proxied: bool = False, full_speed: bool = False, **properties: object,
    ) -> None:  # fmt: skip
        self._folder = Path(tempfile.mkdtemp(prefix="tickcast-kafka-"))
        self.certificates = Certificates(self._folder / "certificates")
        listeners = ["PLAINTEXT", "CONTROLLER", *(("SSL", "SASL_SSL") if secure else ()), *(("PROXIED",) * proxied)]
        jvm = (f"-Xms{min(heap_mb, 128)}m", f"-Xmx{heap_mb}m", *(() if full_speed else (QUICK_COMPILER,)))
        self.nodes: list[KafkaNode] = []
        try:
            for number in range(1, size + 1):
                ports = {name: free_port() for name in listeners}
                if port and number == 1:
                    ports["PLAINTEXT"] = port
                self.nodes.append(KafkaNode(number, self._folder / str(number), ports, jvm=jvm))
            self._format(_dotted(properties), secure=secure)
            if size == 1 and not CLASSES.exists():
                self.nodes[0].leave_classes()
            self.restart()
        except BaseException:
            self.close()
            raise

    def _format(self, properties: dict[str, object], *, secure: bool) -> None:
        cluster = base64.urlsafe_b64encode(b"\0" + secrets.token_bytes(15)).decode().rstrip("=")
        users = tuple(f"{mechanism}=[name={USER},password={PASSWORD}]" for mechanism in SCRAM if secure)
        common = _replicated(self.nodes)
        if secure:
            self.certificates.make()
            common |= _secured(self.certificates)
        with ThreadPoolExecutor(len(self.nodes)) as each:
            list(each.map(lambda node: node.format(cluster, common | properties, scram=users), self.nodes))

    @property
    def bootstrap(self) -> str:
        return self.address()

    def address(self, listener: str = "PLAINTEXT") -> str:
        """Bootstrap servers of a listener: PLAINTEXT, SSL, SASL_SSL or PROXIED."""
        return ",".join(node.address(listener) for node in self.nodes)

    def create_topic(self, name: str, partitions: int = 1, **config: object) -> str:
        """Create it, with `retention_ms=1000` for retention.ms, and return its name."""
        self.create_topics(name, partitions=partitions, **config)
        return name

    def create_topics(self, *names: str, partitions: int = 1, **config: object) -> None:
        """All at once."""
        texts = {key: str(value) for key, value in _dotted(config).items()}
        topics = [NewTopic(name, partitions, len(self.nodes), topic_configs=texts) for name in names]
        answer = ask(self.bootstrap, lambda admin: admin.create_topics(topics))
        for name, code, message in answer.topic_errors:
            if code:
                raise for_code(code)(f"topic {name}: {message}")

    def allow(
        self, resource: Literal["topic", "group", "cluster", "transactional_id"], name: str, *operations: str
    ) -> None:
        """Let USER do these OPERATIONS; any name is `*`, and the cluster's is `kafka-cluster`."""
        for operation in operations:
            request = CreateAclsRequest(
                RESOURCES[resource], name, LITERAL, f"User:{USER}", "*", OPERATIONS[operation], ALLOW
            )
            answer = ask(self.bootstrap, partial(AIOKafkaAdminClient._send_request, request=request))
            for code, message in answer.creation_responses:
                if code:
                    raise for_code(code)(f"{operation} on {resource} {name}: {message}")

    def kill(self) -> None:
        """SIGKILL for all of them."""
        for node in self.nodes:
            node.kill()

    def restart(self) -> None:
        """All of them on their ports and data, killed first where they run; they answer on return."""
        self.kill()
        for node in self.nodes:
            node.start()
        for node in self.nodes:
            node.wait(len(self.nodes))

    def mend(self) -> None:
        """All of them run, can be reached and answer, whatever was done to them."""
        for node in self.nodes:
            node.mend()
        for node in self.nodes:
            node.wait(len(self.nodes))

    def close(self) -> None:
        forget(self.bootstrap)
        for node in self.nodes:
            node.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class KafkaBroker(KafkaCluster):
    """A cluster of one, with the options of KafkaCluster."""

    def __init__(self, *, heap_mb: int = 384, **options: Any) -> None:
        super().__init__(1, heap_mb=heap_mb, **options)

    @property
    def proxy(self) -> Proxy:
        """What stands before the listener PROXIED."""
        (node,) = self.nodes
        if node.proxy is None:
            raise RuntimeError("this broker was made without proxied=True")
        return node.proxy

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        self.nodes[0].pause()

    def resume(self) -> None:
        self.nodes[0].resume()


def _dotted(properties: dict[str, object]) -> dict[str, object]:
    return {key.replace("_", "."): value for key, value in properties.items()}


def _replicated(nodes: list[KafkaNode]) -> dict[str, object]:
    size, most = len(nodes), len(nodes) // 2 + 1
    return {
        "controller.quorum.voters": ",".join(f"{n.number}@{HOST}:{n.ports['CONTROLLER']}" for n in nodes),
        "default.replication.factor": size,
        "min.insync.replicas": most,
        "offsets.topic.replication.factor": size,
        "transaction.state.log.replication.factor": size,
        "transaction.state.log.min.isr": most,
    }


def _secured(certificates: Certificates) -> dict[str, object]:
    pair = certificates.folder / "server-pair.pem"
    pair.write_text(certificates.key("server").read_text() + certificates.certificate("server").read_text())
    jaas = "listener.name.sasl_ssl.{}.sasl.jaas.config"
    return {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": pair,
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": certificates.ca,
        "ssl.client.auth": "requested",
        "sasl.enabled.mechanisms": ",".join(("PLAIN", *SCRAM)),
        jaas.format("plain"): f'{MODULES}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";',
        **{jaas.format(mechanism.lower()): f"{MODULES}.scram.ScramLoginModule required;" for mechanism in SCRAM},
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": ADMIN,
    }
