"""Which topics a deployment on Kafka needs, and how each is made. It speaks to no broker."""

from tickcast.io.kafka.topics import Topic
from tickcast.settings import Settings
from tickcast.topics import OWN_TOPICS


def wanted(settings: Settings) -> list[Topic]:
    """Those that are read and those that are written."""
    many, prefix = settings.kafka.topic_partitions, settings.topics.prefix
    ticks = [Topic(name, "topics.ticks", many) for name in settings.topics.ticks]
    return ticks + [
        Topic(prefix + topic.name, "topics.prefix", many if topic.by_symbol else 1, topic.compacted)
        for topic in OWN_TOPICS.values()
        if topic.needed(settings)
    ]
