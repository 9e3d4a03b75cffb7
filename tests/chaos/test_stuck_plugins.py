"""A plugin that never returns: `runtime.turn_limit_s` ends the process, and the tick that does it is set aside."""

import json
import sys

import pytest
from chaoskit import Deployment
from feeder import START_NS
from test_poison import headers

from kafkakit import Message
from netkit import wait_until
from tickcast.errors import EXIT_DIED, EXIT_OK

pytestmark = pytest.mark.timeout(180)
MOST_DEATHS = 6  # of two ticks: each alone twice, and at first among others
STUCK_IN_FEATURE, STUCK_IN_MODEL = 30, 40
PROGRAM = """
import sys, threading
from tickcast.__main__ import main
from tickcast.plugin import find
feature, model = find("features", "log_return"), find("models", "holt")
compute, answer = feature.compute, model.answer

def stuck_feature(self, bars, symbol, ordinal, out):
    if (bars.close[bars.start[symbol] + (ordinal & bars.wrap)] == 666).any():
        threading.Event().wait()
    compute(self, bars, symbol, ordinal, out)

def stuck_model(self, questions):
    if (questions.anchor == 667).any():
        threading.Event().wait()
    return answer(self, questions)

feature.compute, model.answer = stuck_feature, stuck_model
sys.exit(main())
"""


def tick(number: int) -> Message:
    price = {STUCK_IN_FEATURE: 666, STUCK_IN_MODEL: 667}.get(number, 100 + number % 7)
    text = {"symbol": "S", "ts": START_NS + number * 10**7, "price": price, "size": 1}
    return Message(0, b"S", json.dumps(text).encode())


async def test_a_plugin_that_never_returns_ends_the_daemon_and_its_tick_is_set_aside(kafka, tmp_path):
    deployment = Deployment(
        kafka, tmp_path / "daemon", partitions=1, runtime__turn_limit_s=1, features__set=[{"kind": "log_return"}]
    )
    offsets = await deployment.send(map(tick, range(60)))
    codes = []
    while True:
        daemon = deployment.start(program=[sys.executable, "-c", PROGRAM])
        wait_until(lambda daemon=daemon: deployment.is_caught_up() or not daemon.is_alive, "an end", limit_s=60)
        if daemon.is_alive:
            break
        codes.append(daemon.ended())
        assert "tickcast: turn_limit: a turn took longer than runtime.turn_limit_s = 1" in daemon.log()
        assert len(codes) <= MOST_DEATHS, daemon.log()[-4000:]
    assert daemon.drain() == EXIT_OK, daemon.log()[-4000:]
    assert set(codes) == {EXIT_DIED}
    letters = [headers(letter) for letter in await deployment.read("dlq")]
    stuck = {offsets[STUCK_IN_FEATURE], offsets[STUCK_IN_MODEL]}
    assert {(int(each["offset"]), each["reason"]) for each in letters} == {(offset, "fatal") for offset in stuck}
    answered = {forecast["source"]["offset"] for forecast in await deployment.forecasts()}
    assert answered == {*offsets[1:]} - stuck
