"""After a restart without a snapshot the model that served before is loaded again, to stand in for its successor."""

from pathlib import Path

import pytest

from livekit import live_settings, running
from registrykit import HORIZON, LEVELS, LOOKBACK, model_folder
from tickcast.engine.core.questions import bar_identity


@pytest.mark.slow
async def test_after_a_restart_the_model_before_stands_in(tmp_path: Path) -> None:
    settings = live_settings(
        tmp_path, window__lookback=LOOKBACK, forecast__horizon=HORIZON, forecast__quantiles=LEVELS, features__set="[]",
        features__future="[]",
    )  # fmt: skip
    async with running(settings) as live:
        for shift, name in enumerate(("one", "two", "three")):
            made = model_folder(tmp_path / name, name, shift=shift, bars=bar_identity(settings))
            await live.daemon.session.commands.serving_models.models.register(made, origin="import")
            assert (await live.daemon.command("promote", model=name, force=True)).ok
        assert (await live.daemon.command("rollback")).ok
    async with running(settings) as live:
        ladder = live.daemon.session.serving.ladder
        assert ladder is not None
        assert [ladder.cards[number].name for number in ladder._firsts] == ["naive", "one", "two"]
        assert ladder.first.name == "two"
