"""A share of a route's symbols has a model of its own, through a restart, until that model has the whole route."""

import json
from pathlib import Path

import numpy as np

from argumentskit import SECOND, T0, World, model_in, settings_of
from livekit import running
from tickcast.figures import LEAST_BLOCKS, LEAST_DRAWN


def many(first: int, bars: int) -> list[bytes]:
    """Of twelve symbols, from that bar on."""
    price = 100 * np.exp(np.cumsum(np.random.default_rng(4).standard_t(4, (first + bars, 12)) * 1e-3, axis=0))
    return [
        json.dumps({"symbol": f"S{n}", "ts": T0 + i * SECOND, "price": float(price[i, n]), "size": 1}).encode()
        for i in range(first, first + bars) for n in range(12)
    ]  # fmt: skip


async def test_a_share_of_the_symbols_goes_to_another_model_until_that_has_them_all(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, model__default=model_in(tmp_path / "one", "one"), symbols__limit=32)
    async with running(settings) as live:
        world, serving_models = World(live, "", tmp_path, tmp_path), live.daemon.session.commands.serving_models
        one, routes = live.daemon.session.serving.cards[0].digest, live.daemon.session.serving.engine.routes
        two = await serving_models.models.register(model_in(tmp_path / "two", "two", description="2"), origin="import")
        await live.send(many(0, 40))
        await world.ok("promote", model="two", route="50%:default", force=True)
        assert (await world.ok("status", section="routes"))["routes"] == {"default": one, "50%:default": two.digest}
        assert "already_active" in await world.refused("promote", model="one", route="20%:default", force=True)
        assert "50%:default has a model" in await world.refused("promote", model="two", route="20%:default", force=True)
        assert "bad_argument" in await world.refused("promote", model="two", route="50%:symbol:S1", force=True)
        drawn = {*routes.names_in("50%:default")}
        assert 0 < len(drawn) < 12
        await live.forecasts()
        await live.send(many(40, 160))
        who = {forecast["symbol"]: forecast["model"] for forecast in await live.forecasts()}
        assert {symbol for symbol, model in who.items() if model == "two"} == drawn
        await live.stored()
        (share,) = (await world.ok("report"))["shares"]
        assert share["blocks"] > LEAST_BLOCKS
        for side, model, symbols in (("drawn", two.digest, len(drawn)), ("rest", one, 12 - len(drawn))):
            assert [share[side][name] for name in ("model", "symbols", "judged")] == [model, symbols, symbols]
        assert share["insufficient"] == (min(len(drawn), 12 - len(drawn)) < LEAST_DRAWN)
    async with running(settings) as live:  # after a restart, too
        world, serving_models = World(live, "", tmp_path, tmp_path), live.daemon.session.commands.serving_models
        assert {*live.daemon.session.serving.engine.routes.names_in("50%:default")} == drawn
        assert await world.ok("promote", model="two", force=True)
        assert (await world.ok("status", section="routes"))["routes"] == {"default": two.digest}
        assert (await world.ok("report"))["shares"] == []
        rows = await serving_models.models.history("50%:default")
        assert [(row.action, row.digest) for row in rows] == [("promote", two.digest), ("rollback", None)]
