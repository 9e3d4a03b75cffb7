"""How old what was read is, where more waits: what `health.lag_s` tells."""

from types import SimpleNamespace
from typing import Any

from codec_messages import raw_of

from tickcast.clock import SetClock
from tickcast.live.buses.kafka_edges import KafkaSource
from tickcast.live.recovery import Placement
from tickcast.settings import Settings

SECOND = 10**9


def test_the_lag_in_seconds_is_the_age_of_the_newest_record_while_others_wait() -> None:
    waiting = {("t", 0): 3}
    reader: Any = SimpleNamespace(lag=lambda: waiting)
    clock = SetClock(100 * SECOND)
    source = KafkaSource(reader, Settings(), clock, Placement({}, {}, {}, {}, {}, frozenset(), True))
    assert source.lag_s() == 0.0  # nothing was read yet
    source.events([raw_of([b"a", b"b"], stamps=[90 * SECOND, 92 * SECOND])])
    assert source.lag_s() == 8.0
    waiting[("t", 0)] = 0
    assert source.lag_s() == 0.0
