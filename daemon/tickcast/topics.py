"""The topics of tickcast's own: one list, a line for each. Names stand after `topics.prefix`; those of ticks are the
user's.
"""

from collections.abc import Callable
from typing import NamedTuple

from tickcast.settings import Settings

ALERTS, CONTROL, REPLIES, JOBS, MODELS = "alerts", "control", "replies", "jobs", "models"


def _always(settings: Settings) -> bool:
    return True


def _with_commands(settings: Settings) -> bool:
    return bool(settings.control.keys_file)


class OwnTopic(NamedTuple):
    name: str
    meaning: str
    needed: Callable[[Settings], bool] = _always
    of_commands: bool = False  # else it is of the stream
    by_symbol: bool = False  # keyed by symbol and spread over partitions like the ticks; the others are few
    compacted: bool = False


_LIST = (
    OwnTopic("forecasts", "one record per answered question, keyed by its symbol", by_symbol=True),
    OwnTopic(
        "shadow", "forecasts of models that answer beside those that serve, in the same form",
        lambda settings: settings.schedule.autonomy >= 2, by_symbol=True,
    ),
    OwnTopic(
        "features", "the feature vectors, when `features.publish` is on", lambda settings: settings.features.publish,
        by_symbol=True,
    ),
    OwnTopic("accuracy", "figures per model, group, horizon and window; `Accuracy` below"),
    OwnTopic(
        "drift", "evidence that something has changed, by family and partition, and alarms; `Drift` below",
        lambda settings: settings.drift.enabled,
    ),
    OwnTopic("health", "a snapshot of the daemon; `Health` below"),
    OwnTopic(ALERTS, "what a person must know: when it begins, while it lasts, when it ends; `Alert` below"),
    OwnTopic("dlq", "messages that were refused, byte by byte as they came"),
    OwnTopic(
        CONTROL, "signed commands to the daemon, read where `control.keys_file` is set", _with_commands,
        of_commands=True,
    ),
    OwnTopic(REPLIES, "what came of each command; `Reply` below", _with_commands, of_commands=True),
    OwnTopic(
        JOBS, "what becomes of each job; `JobEvent` below",
        lambda settings: _with_commands(settings) or settings.schedule.autonomy >= 2, of_commands=True,
    ),
    OwnTopic(
        MODELS, "with `kafka.models`: cards, files and routes of the models that serve; compacted",
        lambda settings: settings.kafka.models != "none", of_commands=True, compacted=True,
    ),
)  # fmt: skip
OWN_TOPICS = {topic.name: topic for topic in _LIST}
