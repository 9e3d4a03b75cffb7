"""Who is fenced: by another daemon, or by a broker that gave up a transaction that was open for too long."""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tickcast.errors import BrokerAway
from tickcast.io.kafka import client
from tickcast.io.kafka.delivery import Delivery
from tickcast.settings.buses import KafkaSettings

OURS = {("ticks", 0): 40, ("ticks", 1): 7}


def held(offsets: Mapping[tuple[str, int], int]) -> dict[tuple[str, int], client.Committed]:
    return {source: client.Committed(offset, {}) for source, offset in offsets.items()}


async def was_alone(monkeypatch: pytest.MonkeyPatch, *answers: Any, open_for_s: float = 9.0) -> bool:
    told: Iterator[Any] = iter(answers)

    async def committed(settings: KafkaSettings, sources: Any) -> Any:
        answer = next(told)
        if isinstance(answer, Exception):
            raise answer
        return held(answer)

    async def commit(at: Any) -> None: ...

    monkeypatch.setattr(client, "committed", committed)
    delivery = Delivery(KafkaSettings(transaction_timeout_s=5, call_timeout_s=3), max_away_s=1, commit_by=commit)
    delivery._committed = dict(OURS)
    delivery._begun = asyncio.get_running_loop().time() - open_for_s
    try:
        return await delivery._was_alone()
    finally:
        await delivery._outbox.close()
        await client.stop(delivery._plain.stop())
        assert next(told, None) is None, "not asked as often as expected"


@pytest.mark.parametrize(
    ("answers", "alone"),
    [
        ([OURS], True),
        ([OURS | {("ticks", 1): 6}, {("ticks", 0): 40}, OURS], True),  # what was answered is written a moment later
        ([BrokerAway("it starts")], True),  # the next start finds out
        ([OURS | {("ticks", 1): 8}], False),
        ([OURS | {("ticks", 0): 39}, OURS | {("ticks", 0): 41}], False),
    ],
)
async def test_who_left_a_transaction_open_too_long_was_alone_unless_another_went_on(monkeypatch, answers, alone):
    assert await was_alone(monkeypatch, *answers) is alone


async def test_a_transaction_that_had_time_left_was_taken_by_another(monkeypatch):
    assert not await was_alone(monkeypatch, open_for_s=1.0)
