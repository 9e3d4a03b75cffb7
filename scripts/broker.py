"""`make broker`: one Kafka and one mosquitto for a person, with all topics, until Ctrl-C. It keeps no data."""

import signal
import sys
import time
from contextlib import ExitStack, suppress

import brokerkit
import mosquittokit
from brokerkit import KafkaBroker
from mosquittokit import Mosquitto
from netkit import free_port, is_free
from tickcast.live.buses.kafka_topics import wanted
from tickcast.settings import Settings, load


def main() -> None:
    if not brokerkit.is_installed():
        sys.exit(f"broker: needs {brokerkit.REMEDY}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ExitStack() as stack, suppress(KeyboardInterrupt):
        kafka = stack.enter_context(KafkaBroker(port=usual_or_free(9092), heap_mb=512, full_speed=True))
        mqtt = None
        if mosquittokit.is_installed():
            mqtt = stack.enter_context(Mosquitto(port=usual_or_free(1883)))
        create_topics(kafka)
        print(guide(kafka, mqtt), flush=True)
        while kafka.nodes[0].child.is_alive:
            time.sleep(0.2)
        sys.exit(f"broker: Kafka ended\n{kafka.nodes[0].child.log()[-2000:]}")


def usual_or_free(port: int) -> int:
    return port if is_free(port) else free_port()


def create_topics(kafka: KafkaBroker) -> None:
    """All that any settings may ask for."""
    every = load(overrides={"features.publish": "true", "control.keys_file": "any", "kafka.models": "lead"}, environ={})
    for topic in wanted(every[0]):
        compacted = {"cleanup_policy": "compact"} if topic.compacted else {}
        kafka.create_topic(topic.name, topic.partitions, **compacted)


def guide(kafka: KafkaBroker, mqtt: Mosquitto | None) -> str:
    """What runs, and what to type in two other terminals."""
    usual = Settings()
    where = f" --set kafka.bootstrap_servers={kafka.bootstrap}" * (kafka.bootstrap != usual.kafka.bootstrap_servers)
    mirror = f" --set mqtt.url={mqtt.url}" * (mqtt is not None and mqtt.url != usual.mqtt.url)
    return "\n".join((
        f"Kafka      {kafka.bootstrap}",
        f"mosquitto  {mqtt.url if mqtt else f'not here; needs {mosquittokit.REMEDY}'}",
        "",
        "In a second terminal, the daemon:",
        f"  .venv/bin/tickcast run --set bus.kind=kafka{where}{mirror}",
        "In a third, sample ticks:",
        f"  .venv/bin/tickcast synth --to kafka{where}",
        "",
        "Ctrl-C ends both and drops their data.",
    ))  # fmt: skip


if __name__ == "__main__":
    main()
