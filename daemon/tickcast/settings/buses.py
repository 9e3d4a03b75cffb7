"""Settings of the buses: topics, Kafka and MQTT. `settings/__init__.py` holds the tree that they are part of."""

from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from tickcast.settings.section import Natural, Positive, Section


class BusSettings(Section):
    kind: Literal["memory", "kafka", "mqtt"] = "memory"
    """Where ticks come from and forecasts go: the embedded bus without a broker, Kafka, or MQTT alone."""


class TopicSettings(Section):
    prefix: str = "tickcast."
    """Put before the default name of every topic that tickcast writes."""
    ticks: list[str] = ["tickcast.ticks"]
    """Topics that ticks are read from, as written."""


class KafkaSecurity(Section):
    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """How the broker is spoken to."""
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    """How a SASL protocol proves who we are."""
    username: str = ""
    """User of a SASL protocol."""
    password_file: Path | None = None
    """File that holds the password, such as a systemd credential."""
    ca_file: Path | None = None
    """Certificates that the broker's must be signed by; default: the system's."""
    cert_file: Path | None = None
    """Our own certificate, where the broker asks for one."""
    key_file: Path | None = None
    """The key of `cert_file`."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.protocol.startswith("SASL") and not (self.username and self.password_file):
            raise ValueError(f"protocol {self.protocol} needs kafka.security.username and .password_file")
        return self


class KafkaSettings(Section):
    bootstrap_servers: str = "127.0.0.1:9092"
    """Brokers to begin with, as host:port, separated by commas."""
    group: str = "tickcast"
    """Names the deployment: its committed offsets and its transactional ids."""
    slot: Natural = 0
    """Which of the slots this daemon is."""
    slots: Positive = 1
    """Slots of the deployment: slot i owns the partitions p with p mod slots = i."""
    assignment: Literal["static", "group"] = "static"
    """Fixed slots that are fenced, or an elastic consumer group (at-least-once, no snapshots)."""
    delivery: Literal["at_least_once", "exactly_once"] = "at_least_once"
    """Duplicates of equal id after a crash, or one transaction per commit unit."""
    start: Literal["earliest", "latest"] = "earliest"
    """Where a deployment begins that has never committed."""
    lost_offsets: Literal["fail", "earliest", "latest"] = "fail"
    """What to do when the broker no longer holds the committed position."""
    models: Literal["none", "follow", "lead"] = "none"
    """The compacted topic `models`: a store that never promoted a model learns from it what serves (follow); slot 0
    also writes what it promotes (lead)."""
    compression: Literal["lz4", "none"] = "lz4"
    """How published batches are compressed."""
    encoding: Literal["json", "arrow"] = "json"
    """Forecasts and feature vectors one by one as JSON, or many in a message as an Arrow IPC stream."""
    fetch_max_bytes: Positive = 16 << 20
    """Most bytes of one fetch over all partitions."""
    fetch_partition_bytes: Positive = 2 << 20
    """Most bytes of one fetch from one partition."""
    batch_bytes: Positive = 900_000
    """A published batch is split above this, and a dead letter cut; keep it below the broker's message.max.bytes."""
    expanded_bytes: Positive = 32 << 20
    """A fetched batch that would become larger than this when it is decompressed is refused."""
    in_flight_bytes: Positive = 64 << 20
    """Published bytes that may wait for the broker; beyond it fetching waits."""
    call_timeout_s: Positive = 60
    """Deadline of every call that closes a transaction."""
    transaction_timeout_s: Positive = 60
    """The broker aborts a transaction that is open for longer."""
    watchdog_s: Positive = 60
    """A partition with lag whose position stands still for this long gets a new client."""
    poison_run: Natural = 100_000
    """Bad messages in a row that stop the fetching of their partition; 0 = never."""
    topic_partitions: Positive = 4
    """Partitions of a topic of ticks, forecasts or features that `tickcast topics --create` makes; others get one."""
    topic_replicas: Natural = 0
    """Replicas of each topic that it makes; 0 = the broker's default."""
    security: KafkaSecurity = KafkaSecurity()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.slot >= self.slots:
            raise ValueError(f"kafka.slot {self.slot} is not below kafka.slots {self.slots}")
        if self.assignment == "group" and self.delivery == "exactly_once":
            raise ValueError("kafka.delivery exactly_once needs kafka.assignment static: a group cannot fence")
        return self


class MqttSettings(Section):
    url: str = "mqtt://127.0.0.1:1883"
    """Broker to mirror to; `mqtts://` for TLS."""
    mirror: list[Literal["forecasts", "features", "accuracy", "drift", "jobs", "health", "alerts"]] = []
    """Topics that are mirrored; none = MQTT is not spoken, unless bus.kind is mqtt."""
    ticks: list[str] = ["tickcast/ticks/#"]
    """With bus.kind = mqtt: topic filters that ticks are read from."""
    prefix: str = "tickcast"
    """First part of the name of every topic that is mirrored."""
    qos: Literal[0, 1] = 0
    """Quality of service of what is mirrored."""
    queue_messages: Positive = 10_000
    """Messages that wait for the broker; beyond it the oldest are dropped and counted."""
    client_id: str = ""
    """Name of this client; empty = one made from the process."""
    username: str = ""
    """User, where the broker asks for one."""
    password_file: Path | None = None
    """File that holds the password, such as a systemd credential."""
    ca_file: Path | None = None
    """Certificates that the broker's must be signed by; default: the system's."""
    cert_file: Path | None = None
    """Our own certificate, where the broker asks for one."""
    key_file: Path | None = None
    """The key of `cert_file`."""
