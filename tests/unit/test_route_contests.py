"""Contests of several routes beside each other: what they take, whom they follow, and what a restart finds."""

from types import SimpleNamespace
from typing import Any

import pytest

from kit import settings
from tickcast.clock import SetClock
from tickcast.errors import BadRequest
from tickcast.live.route_contests import MOST_ROUTES, RouteContests, RouteState
from tickcast.loop.facts import EngineFacts


class Models:
    """Stands in for what serves: each challenger costs so much of a core."""

    last_value = "naive"

    def __init__(self, cost: float = 0.0) -> None:
        self.cost, self.routes, self.shadows = cost, {"default": "old"}, dict[str, str]()
        self.models = SimpleNamespace(history=self.history)
        self.said: list[tuple[str, str, Any]] = []

    async def history(self, route: str) -> list[Any]:
        return []

    async def champion(self, route: str) -> str:
        return self.routes.get(route, self.routes["default"])

    async def runner_of(self, name: str) -> tuple[str, None]:
        return name, None

    async def registered(self, digest: str) -> str | None:
        return None if digest == self.last_value else digest

    def share_of(self, card: str) -> float:
        return self.cost

    def serving_now(self) -> dict[str, str]:
        return self.routes

    def contests(self) -> dict[str, str]:
        return self.shadows

    async def shadow(self, model: str, route: str, **given: Any) -> None:
        self.said.append((model, route, given.get("every")))
        if not model:
            self.shadows = {contest: of for contest, of in self.shadows.items() if of != route}
        elif route == "group:none":
            raise BadRequest("no group")
        else:
            self.shadows[given["contest"]] = route


async def look() -> EngineFacts:
    return EngineFacts(bars=99, fitted_bars=0, bar_ns=10**9, newest_ns=10**18, skill=0.1, alarm=False)


async def no_blocks(contest: str, after: int) -> list[Any]:
    return []


def contests_of(models: Models) -> RouteContests:
    ledger: Any = SimpleNamespace(blocks=no_blocks)
    given: Any = models
    return RouteContests(settings(inference__shadow_share=0.2), ledger, given, clock=SetClock(), look=look)


async def asked(held: RouteContests, route: str, model: str = "new") -> Any:
    return await held.begin_asked(route, model, alpha=lambda: 0.025)


async def test_a_shadow_takes_no_more_than_those_of_other_routes_leave() -> None:
    models = Models(cost=0.15)
    held = contests_of(models)
    assert (await asked(held, "symbol:A")).every == 1
    assert (await asked(held, "symbol:B")).every == 3  # 0.05 is left
    assert (await asked(held, "symbol:C")).every == 6  # an eighth of the share
    assert sorted(models.shadows.values()) == ["symbol:A", "symbol:B", "symbol:C"]
    for route in [f"symbol:{n}" for n in range(MOST_ROUTES - 3)]:
        await asked(held, route)
    with pytest.raises(BadRequest, match="8 routes"):
        await asked(held, "symbol:more")


@pytest.mark.parametrize(
    ("route", "model"),
    [("symbol:A", "new"), ("symbol:A", "other"), ("symbol:B", "old"), ("symbol:B", "naive"), ("group:none", "new"),
     ("default", "new")],
)  # fmt: skip
async def test_what_can_be_no_contest_is_refused_and_leaves_none(route: str, model: str) -> None:
    models = Models()
    held = contests_of(models)
    await asked(held, "symbol:A")
    before = held.told()
    with pytest.raises(BadRequest):
        await asked(held, route, model)
    assert held.told() == before
    assert held.noted().keys() == {"default", "symbol:A"}


async def test_a_contest_ends_with_the_model_that_it_was_with_and_a_route_without_one_is_left() -> None:
    models = Models()
    held = contests_of(models)
    await asked(held, "symbol:A")
    assert await held.step()  # the default's begin
    assert not await held.step()
    assert [one["route"] for one in held.told()] == ["default", "symbol:A"]
    models.routes["default"] = "another"
    assert await held.step()
    assert [(one["route"], one["role"]) for one in held.told()] == [("default", "last_value")]
    assert held.noted().keys() == {"default"}
    with pytest.raises(BadRequest, match="no contest"):
        held.of("symbol:A")


async def test_a_restart_goes_on_with_what_was_noted_and_ends_what_was_not() -> None:
    models = Models()
    held = contests_of(models)
    await asked(held, "symbol:A")
    await asked(held, "symbol:B")
    noted = held.noted()
    models.shadows["never noted"] = "symbol:C"
    del models.shadows[noted["symbol:B"].contests[0].id]  # the engine's state is older
    again = contests_of(models)
    await again.go_on({"default": RouteState(), **noted})
    assert sorted(models.shadows.values()) == ["symbol:A", "symbol:B"]
    assert [one["contest"] for one in again.told()] == [one["contest"] for one in held.told()]
