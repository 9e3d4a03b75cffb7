"""Which topics a deployment on Kafka needs, and how each is made. It speaks to no broker."""

from tickcast.io.control_messages import CONTROL, JOBS, REPLIES
from tickcast.io.kafka.topics import Topic
from tickcast.settings import Settings

MODELS = "models"  # topic, after `topics.prefix`
ALWAYS = ("forecasts", "dlq", "accuracy", "health")
BY_SYMBOL = ("forecasts", "features")  # spread over partitions like the ticks; the others are few


def wanted(settings: Settings) -> list[Topic]:
    """Those that are read and those that are written."""
    kafka, prefix = settings.kafka, settings.topics.prefix
    names = [*ALWAYS, *(["features"] if settings.features.publish else [])]
    names += [CONTROL, REPLIES, JOBS] if settings.control.keys_file else []
    names += [] if kafka.models == "none" else [MODELS]
    ticks = [Topic(name, "topics.ticks", kafka.topic_partitions) for name in settings.topics.ticks]
    return ticks + [
        Topic(prefix + name, "topics.prefix", kafka.topic_partitions if name in BY_SYMBOL else 1, name == MODELS)
        for name in names
    ]
