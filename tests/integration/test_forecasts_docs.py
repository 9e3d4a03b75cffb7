"""docs/forecasts.md describes each key of a really published record, and its code gives the same ids and numbers."""

import asyncio
import json
import math
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from livekit import Live, live_settings, running
from pagekit import code_of
from tickcast.batch.synth import Market, json_messages
from tickcast.engine.core.ladder import RUNGS
from tickcast.engine.core.questions import bar_identity
from tickcast.errors import Quality
from tickcast.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs" / "forecasts.md").read_text(encoding="utf-8")
(EXAMPLE,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
SECONDS = 12


@pytest.fixture(scope="module")
def page_code(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return code_of(PAGE, tmp_path_factory.mktemp("page"))


async def published(settings: Settings) -> tuple[list[dict[str, Any]], Live]:
    market = Market(seed=3, symbols=3, tick_rate_hz=60)
    ticks = market.ticks(market.start_ns + SECONDS * 10**9)
    async with running(settings) as live:
        await live.send([message for _, message in json_messages(ticks)])
        return await live.forecasts(), live


def described_fields() -> set[str]:
    rows = PAGE.split("| field | meaning |\n")[1].split("\n\n")[0].splitlines()[1:]
    return {re.findall(r"`(\w+)`", row)[0] for row in rows}


async def test_every_key_of_a_published_record_is_described_and_no_other(tmp_path: Path) -> None:
    records, _ = await published(live_settings(tmp_path, window__lookback=12, forecast__horizon=3))
    keys = list(records[-1])
    assert set(keys) == described_fields()
    example = json.loads(EXAMPLE)
    assert list(example) == keys
    assert [type(example[key]) for key in keys] == [type(records[-1][key]) for key in keys]
    assert set(records[-1]["source"]) == {"topic", "partition", "offset"}


@pytest.mark.parametrize("kind", ["time", "tick", "volume"])
async def test_ids_confidence_and_sigma_follow_from_the_code_on_the_page(
    tmp_path: Path, page_code: ModuleType, kind: str
) -> None:
    settings = live_settings(tmp_path, window__lookback=12, forecast__horizon=3, bars__kind=kind, model__default="holt")
    records, live = await published(settings)
    digests = {card.name: card.digest for card in live.daemon.session.serving.cards}
    assert len(records) > 20
    for record in records[:: len(records) // 20]:
        assert record["id"] == page_code.forecast_id(
            digests[record["model"]], bar_identity(settings), 3, record["symbol"], record["as_of_ns"], record["tie"]
        )
        distances = [[math.log(q / record["anchor"]) for q in step] for step in record["quantiles"]]
        assert record["confidence"] == pytest.approx(page_code.confidence(record["levels"], distances[-1]), abs=1e-5)
        widths = [page_code.sigma(record["levels"], step) for step in distances]
        assert record["sigma"] == pytest.approx(widths, rel=1e-5)


def test_the_bars_of_an_id_are_named_as_on_the_page(tmp_path: Path) -> None:
    assert json.dumps(bar_identity(live_settings(tmp_path))) in PAGE


@pytest.mark.slow
async def test_feature_vectors_have_the_keys_that_the_page_names(tmp_path: Path) -> None:
    settings = live_settings(tmp_path, features__publish="true")
    async with running(settings) as live:
        vectors = live.bus.subscribe(settings.topics.prefix + "features")
        market = Market(seed=3, symbols=3, tick_rate_hz=60)
        await live.send([m for _, m in json_messages(market.ticks(market.start_ns + SECONDS * 10**9))])
        async with asyncio.timeout(30):
            (batch, *_) = await vectors.next_batches(5)
    keys = list(json.loads(batch.message(0)))
    assert ", ".join(f"`{key}`" for key in keys) in PAGE.split("## Feature vectors")[1]


def test_the_page_names_every_rung_and_every_flag_and_no_other() -> None:
    def first_column(head: str) -> list[str]:
        return re.findall(r"^\| `(\w+)` \|", PAGE.split(head)[1].split("\n\n")[0], re.MULTILINE)

    assert first_column("| rung | needs | says |") == list(RUNGS)
    assert first_column("| flag | meaning |") == [str(flag.name).lower() for flag in Quality]
