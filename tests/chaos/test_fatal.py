"""What the process dies over: found within a few starts, set aside as a dead letter, and nothing else is lost."""

import json
import signal
import sys
from itertools import islice

import pytest
from chaoskit import HERE, Daemon, Deployment, is_long
from deadly import DEADLY_BATCH
from feeder import feed_at_once, tape
from ledger import assert_promises_kept, read
from test_poison import headers, produce, tick

from kafkakit import Message

pytestmark = pytest.mark.timeout(300)
SURVIVED = [sys.executable, HERE / "deadly.py"]
TICKS = 60


def with_deadly(words: list[bytes]) -> list[Message]:
    """Honest ticks, with what is deadly among them; a daemon that it does not kill cannot read it."""
    ticks = list(islice(tape(7, partitions=2), TICKS))
    for number, word in enumerate(words):
        ticks.insert(20 + 5 * number, Message(0, b"S0", b'{"symbol": "S0", ' + word))
    return ticks


def ends(daemon: Daemon) -> list[int]:
    return [int(line.rsplit(" ", 1)[1]) for line in daemon.log().splitlines() if line.startswith("ended with ")]


def fatal(deployment: Deployment) -> list[bytes]:
    """What was set aside, each once: at least once may publish a letter again."""
    letters = read(deployment, deployment.prefix + "dlq")
    found = {headers(letter)["offset"]: letter for letter in letters if headers(letter)["reason"] == "fatal"}
    assert {headers(letter)["stage"] for letter in found.values()} <= {"engine"}
    return [letter.value for letter in found.values()]


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        ([b"deadly crash", b"deadly grip"], {"delivery": "exactly_once"}),
        *(([([b"deadly kill", b"deadly hang"], {}), ([b"deadly error"], {"kafka__assignment": "group"})]) * is_long()),
    ],
)
def test_what_the_process_dies_over_is_set_aside_and_all_others_are_answered(kafka, tmp_path, words, settings):
    deployment = Deployment(kafka, tmp_path / "daemon", partitions=2, runtime__turn_limit_s=1.5, **settings)
    messages = with_deadly(words)
    feed_at_once(kafka.bootstrap, deployment.ticks, iter(messages), len(messages))
    daemon = deployment.start(program=SURVIVED)
    daemon.wait_until(deployment.is_caught_up, "the end of the topic", limit_s=120)
    deaths = len(ends(daemon))
    assert deaths <= 2 * len(words) + 1
    daemon.drain()
    assert ends(daemon)[deaths:] == [0], daemon.log()[-4000:]
    assert [value.partition(b", ")[2] for value in fatal(deployment)] == words
    assert_promises_kept(deployment)


def test_a_batch_that_is_deadly_to_open_is_set_aside_whole(kafka, tmp_path):
    deployment = Deployment(kafka, tmp_path / "daemon", partitions=1)
    good = [tick(number) for number in range(20)]
    offsets = produce(kafka, deployment.ticks, [*good[:10], DEADLY_BATCH, *good[10:]])
    daemon = deployment.start(program=SURVIVED)
    daemon.wait_until(deployment.is_caught_up, "the end of the topic", limit_s=120)
    assert ends(daemon) == [-signal.SIGKILL] * 3
    daemon.wait_until(lambda: '"one_by_one"' in daemon.log(), "what it says")
    daemon.drain()
    (batch,) = fatal(deployment)
    assert DEADLY_BATCH in batch
    forecasts = [json.loads(record.value) for record in read(deployment, deployment.prefix + "forecasts")]
    assert {forecast["source"]["offset"] for forecast in forecasts} == {*offsets[1:10], *offsets[11:]}
    health = json.loads(max(read(deployment, deployment.prefix + "health"), key=lambda record: record.timestamp).value)
    assert health["fatal"] == {f"{deployment.ticks}/0": 1}
