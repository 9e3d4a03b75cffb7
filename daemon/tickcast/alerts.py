"""The alerts: one list of all that a person must know, a line for each. docs/alerts.md has a paragraph on each."""

from typing import NamedTuple

from tickcast.records import Severity

PAGE = "docs/alerts.md"


class AlertKind(NamedTuple):
    """`error`: forecasts are lost or wrong until somebody acts. `warning`: they will be, or may be."""

    name: str
    severity: Severity
    meaning: str
    remedy: str

    @property
    def runbook(self) -> str:
        return f"{PAGE}#{self.name}"


_LIST = (
    AlertKind(
        "source_silent", "warning", "nothing comes, although all that is there has been read",
        "see whether the feed still produces, and to which topic",
    ),
    AlertKind(
        "source_behind", "error", "records wait and what is read is old: forecasts come too late",
        "see what takes the time (latency_ms, unasked), and add slots or ask fewer questions",
    ),
    AlertKind(
        "partition_late", "warning", "most ticks of the partition come after their bar has closed",
        "raise bars.lateness_ms, or find the producer whose clock is ahead",
    ),
    AlertKind(
        "partition_stopped", "error", "the partition brought nothing but bad messages and is read no more",
        "compare codec.* with what is in the topic, then restart",
    ),
    AlertKind(
        "ticks_refused", "warning", "a large share of the messages is refused for one reason",
        "the detail names the setting; the messages are in dlq",
    ),
    AlertKind(
        "store_stalled", "error", "the store takes nothing: soon nothing is fetched, and then the daemon ends",
        "free space on the disk of store.path, or repair it",
    ),
    AlertKind(
        "disk_low", "warning", "a disk that the daemon writes to is nearly full",
        "free space, or lower store.keep_days and jobs.keep",
    ),
    AlertKind(
        "memory_high", "warning", "the process nears the memory that it may take",
        "lower symbols.limit, window.lookback or store.memory_bytes, or give it more",
    ),
    AlertKind(
        "loop_lag", "warning", "the event loop wakes late: the machine is overloaded",
        "see what else runs on it; lower jobs.workers",
    ),
    AlertKind(
        "client_rebuilt", "warning", "a Kafka client stood still although there was more to read, and was replaced",
        "see the broker's log; the third time in a row ends the daemon",
    ),
    AlertKind(
        "broker_away", "error", "a broker does not answer",
        "start the broker, or see the network; what is published waits or gives way",
    ),
    AlertKind(
        "jobs_failing", "warning", "the last two jobs of a kind failed",
        "`tickcast send jobs kind=KIND state=failed` says why",
    ),
    AlertKind(
        "model_refused", "error", "a model that is to serve a route cannot; another one answers there",
        "the detail says why: promote another version, or put its files back",
    ),
    AlertKind(
        "model_failing", "error", "a model gives nothing usable, and another one or last value answers instead",
        "roll back; compare its features with what the feed brings now",
    ),
    AlertKind(
        "skill_low", "warning", "a model that serves does worse than last value",
        "retrain it, or roll back; `tickcast send report` has the figures",
    ),
    AlertKind(
        "coverage_off", "warning", "the outer band of a model holds too few or too many of the true values",
        "after a break of the market wait for the widening; else retrain",
    ),
    AlertKind(
        "drift", "warning", "what comes is not what it was: a family of detectors alarms",
        "`tickcast send status section=accuracy` shows whether skill suffers; retrain if it does",
    ),
    AlertKind(
        "approval_wanted", "warning", "the schedule would do something that waits for a person",
        "`tickcast send status section=decisions` shows it; `approve` or `dismiss` it",
    ),
    AlertKind(
        "stepped_down", "error", "a model lost to last value, which answers in its place",
        "`tickcast send history kind=step_down` has the evidence; let a fit come due, or roll back",
    ),
)  # fmt: skip
ALERTS = {kind.name: kind for kind in _LIST}
