"""The registry over a real store: what a name means, what serves, what served, what may go."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from registrykit import PROMOTED, Registry, model_folder, registry_in, write_card
from storekit import SECOND, T0, value
from tickcast.engine.inference.model_folder import GRAPH
from tickcast.errors import BadModel, ModelFault, ModelRefused
from tickcast.io.models.models import staying
from tickcast.live.serving_models import ServingModels


@pytest.fixture
async def registry(tmp_path):
    async with registry_in(tmp_path, registry__keep_versions=2) as opened:
        yield opened


async def refused(fault: ModelFault, awaitable: Any) -> ModelRefused:
    with pytest.raises(ModelRefused) as caught:
        await awaitable
    assert caught.value.code == fault.value
    return caught.value


async def stages(registry: Registry) -> dict[str, str]:
    return await registry.models.stages()


async def test_a_model_is_found_by_name_version_digest_and_latest(registry: Registry) -> None:
    old, other = await registry.add(), await registry.add("other", shift=0.5)
    new = await registry.add(shift=0.25)
    version = (await registry.models.resolve(old)).version
    meant = {
        "small": new, f"small@{version}": old, "other": other, "latest": new, old: old, other[:8]: other,
        other[:20]: other,
    }  # fmt: skip
    assert {text: (await registry.models.resolve(text)).digest for text in meant} == meant
    rows = await registry.models.versions("small")
    assert [(row.digest, row.origin, row.tombstone_ns) for row in rows] == [(old, "fit", None), (new, "fit", None)]
    assert len(await registry.models.versions()) == 3


async def test_what_is_unknown_or_may_mean_several_is_refused_by_code(registry: Registry) -> None:
    for text in ("small", "latest", "", "small@1", "../../etc", "0" * 64, "0" * 8):
        assert "known: none" in str(await refused(ModelFault.UNKNOWN_MODEL, registry.models.resolve(text)))
    one, two = await registry.add(), await registry.add()
    version = (await registry.models.resolve(one)).version
    error = await refused(ModelFault.AMBIGUOUS_MODEL, registry.models.resolve(f"small@{version}"))
    assert one[:12] in str(error)
    assert two[:12] in str(error)
    await refused(ModelFault.UNKNOWN_MODEL, registry.models.resolve(one[:7]))  # shorter than a prefix may be
    await refused(ModelFault.UNKNOWN_MODEL, registry.models.versions("other"))


@pytest.mark.parametrize("name", ["latest", "", "a/b", "a@b", "../x", "x" * 65, "deadbeef", "@default", ".x", "a b"])
async def test_a_name_that_could_be_something_else_is_refused_and_nothing_kept(registry: Registry, name: str) -> None:
    folder = model_folder(registry.folder / "odd", name)
    await refused(ModelFault.BAD_NAME, registry.models.register(folder, origin="import"))
    assert not registry.artefacts.digests()
    assert not await registry.models.versions()


async def test_a_damaged_folder_is_refused_and_nothing_kept(registry: Registry) -> None:
    folder = model_folder(registry.folder / "bad")
    (folder / GRAPH).write_bytes(b"\x80\x02]q\x00.")
    with pytest.raises(BadModel, match="damaged"):
        await registry.models.register(folder, origin="import")
    write_card(folder)
    with pytest.raises(BadModel, match="a pickle"):
        await registry.models.register(folder, origin="import")
    assert not await registry.models.versions()


async def test_two_promotions_and_a_rollback_are_the_history_of_a_route(registry: Registry) -> None:
    models = registry.models
    one, two = await registry.add(), await registry.add(shift=0.5)
    assert await stages(registry) == {one: "candidate", two: "candidate"}
    await registry.promote(one, positions=[["ticks", 0, 7]])
    assert await stages(registry) == {one: "active", two: "candidate"}
    await registry.promote(two)
    assert await stages(registry) == {one: "retired", two: "active"}
    registry.clock.now += SECOND
    row = await models.rollback("default", by="ops", command_id="c9")
    assert row.digest == one
    assert await stages(registry) == {one: "active", two: "retired"}
    history = await models.history("default")
    assert [(r.sequence, r.action, r.digest, r.given_by) for r in history] == [
        (1, "promote", one, "tests"), (2, "promote", two, "tests"), (3, "rollback", one, "ops"),
    ]  # fmt: skip
    assert (history[0].evidence_json, history[0].positions_json) == ('{"skill":0.1}', '[["ticks",0,7]]')
    _, rows = await registry.store.query("SELECT digest, from_ns, to_ns FROM served ORDER BY from_ns")
    at = [row.at_ns for row in history]
    assert rows == [(one, at[0], at[1]), (two, at[1], at[2]), (one, at[2], None)]


async def test_rollbacks_go_back_step_by_step_to_a_route_without_a_model_and_no_further(registry: Registry) -> None:
    models = registry.models
    one, two, three = [await registry.add(shift=shift) for shift in (0.1, 0.2, 0.3)]
    await refused(ModelFault.NOTHING_TO_ROLL_BACK, models.rollback("default", by="ops"))
    await registry.promote(one)
    await registry.promote(two)
    assert await models.before("default") == one
    assert (await models.rollback("default", by="ops")).digest == one
    await registry.promote(three)
    assert (await models.rollback("default", by="ops")).digest == one
    assert await models.before("default") is None
    assert (await models.rollback("default", by="ops")).digest is None
    await refused(ModelFault.NOTHING_TO_ROLL_BACK, models.before("default"))
    assert await models.active() is None
    assert await models.routes() == []
    await refused(ModelFault.NOTHING_TO_ROLL_BACK, models.rollback("default", by="ops"))
    assert await value(registry.store, "SELECT count(*) FROM promotions") == 6


async def test_routes_come_with_the_symbols_own_first(registry: Registry) -> None:
    one, two, three, four = [await registry.add(shift=shift) for shift in (0.1, 0.2, 0.3, 0.4)]
    for digest, route in ((one, "default"), (two, "group:majors"), (three, "symbol:BTC/USDT"), (one, "symbol:A:B"),
                          (two, "30%:default")):  # fmt: skip
        await registry.promote(digest, route)
    assert await registry.models.routes() == [
        ("symbol:A:B", one), ("symbol:BTC/USDT", three), ("group:majors", two), ("30%:default", two),
        ("default", one),
    ]  # fmt: skip
    assert await stages(registry) == {one: "active", two: "active", three: "active", four: "candidate"}
    await registry.promote(four, "default")
    assert (await stages(registry))[four] == "active"
    assert (await stages(registry))[one] == "active"  # still a symbol's
    shown = await registry.models.active("symbol:A:B")
    assert shown is not None
    assert shown.digest == one


@pytest.mark.parametrize(
    "route",
    ["", "symbol", "symbol:", "group:", "user:x", "Default", "shadow", "default:x", "0%:default", "9%:symbol:A"],
)
async def test_a_route_that_is_none_is_refused(registry: Registry, route: str) -> None:
    digest = await registry.add()
    await refused(ModelFault.BAD_ROUTE, registry.models.promote(digest, route, **PROMOTED))
    await refused(ModelFault.BAD_ROUTE, registry.models.rollback(route, by="ops"))
    await refused(ModelFault.BAD_ROUTE, registry.models.active(route))


async def test_the_same_command_promotes_once_and_the_same_model_is_not_promoted_again(registry: Registry) -> None:
    one, two = await registry.add(), await registry.add(shift=0.5)
    given = {"command_id": "c1", **PROMOTED}
    first = await registry.models.promote(one, "default", **given)
    await registry.promote(two)
    assert await registry.models.promote(one, "default", **given) == first
    active = await registry.models.active()
    assert active is not None
    assert active.digest == two
    await refused(ModelFault.ALREADY_ACTIVE, registry.models.promote(two, "default", **PROMOTED))
    rolled = await registry.models.rollback("default", by="ops", command_id="c2")
    assert await registry.models.rollback("default", by="ops", command_id="c2") == rolled
    assert len(await registry.models.history()) == 3


async def test_promotions_at_once_all_stand_in_some_order(registry: Registry) -> None:
    digests = [await registry.add(shift=shift) for shift in (0.1, 0.2, 0.3, 0.4)]
    await asyncio.gather(*(registry.models.promote(d, "default", **PROMOTED) for d in digests))
    history = await registry.models.history()
    assert [row.sequence for row in history] == [1, 2, 3, 4]
    assert {row.digest for row in history} == {*digests}


async def test_old_versions_go_but_none_that_served_or_is_a_parent_or_is_asked_for(registry: Registry) -> None:
    served, parent, wanted, old = [await registry.add(shift=shift) for shift in (0.1, 0.2, 0.3, 0.4)]
    child = await registry.add(shift=0.5, parent=parent)
    newest = await registry.add(shift=0.6)
    alone = await registry.add("other")
    await registry.promote(served)
    await registry.promote(newest)
    assert await registry.models.retain([wanted]) == [old]
    stay = {served, parent, wanted, child, newest, alone}
    assert registry.artefacts.digests() == stay
    assert {row.digest for row in await registry.models.versions() if row.tombstone_ns is None} == stay
    assert (await stages(registry))[old] == "retired"
    await refused(ModelFault.RETIRED_MODEL, registry.models.resolve(old))
    await refused(ModelFault.UNKNOWN_MODEL, registry.models.folder(old))
    assert await registry.models.retain([wanted]) == []
    assert (await registry.models.rollback("default", by="ops")).digest == served
    assert await registry.models.folder(served)


async def test_the_roster_lets_old_versions_go_but_none_that_is_loaded(registry: Registry) -> None:
    loaded, old, newer, newest = [await registry.add(shift=shift) for shift in (0.1, 0.2, 0.3, 0.4)]
    card = await registry.models.resolve(loaded)
    serving: Any = SimpleNamespace(ladder=SimpleNamespace(cards=[card], first=card))
    none: Any = None
    serving_models = ServingModels(
        serving, registry.models, none, thread=none, commits=none, clock=registry.clock, questions_per_s=float,
        on_change=lambda: None,
    )  # fmt: skip
    with capture_logs() as logs:
        await serving_models.retain()
        await serving_models.retain()
    assert registry.artefacts.digests() == {loaded, newer, newest}
    assert [line["digests"] for line in logs] == [[old[:12]]]


async def test_a_version_that_went_lives_again_when_it_comes_again(registry: Registry) -> None:
    first = await registry.add(shift=0.1)
    folder = next(registry.folder.iterdir())
    for shift in (0.2, 0.3):
        await registry.add(shift=shift)
    assert await registry.models.retain() == [first]
    registered = (await registry.models.versions())[0].registered_ns
    await registry.models.register(folder, origin="fleet")
    assert (await registry.models.resolve(first)).digest == first
    row = (await registry.models.versions())[0]
    assert (row.registered_ns, row.origin, row.tombstone_ns) == (registered, "fit", None)


async def test_registering_twice_is_once_and_the_card_comes_back_whole(registry: Registry) -> None:
    lineage = {
        "parent": "1" * 64, "dataset_hash": "h", "code_version": "9", "settings_digest": "s", "export_path": "e",
        "metrics": {"skill": 0.25, "none": None}, "seed": 2**62, "trained_to_ns": T0,
    }  # fmt: skip
    digest = await registry.add(**lineage)
    folder = next(registry.folder.iterdir())
    card = await registry.models.register(folder, origin="import")
    assert card.digest == digest
    (row,) = await registry.models.versions()
    assert row.card == card
    assert {name: getattr(card, name) for name in lineage} == lineage
    assert (row.parent, row.dataset_hash) == ("1" * 64, "h")


def test_the_versions_that_stay_are_counted_by_name() -> None:
    from tickcast.io.store.ledger_rows import VersionRow

    blank = dict.fromkeys(("version", "kind", "parent", "dataset_hash", "card_json"), "")
    row = VersionRow(digest="", name="", origin="fit", created_ns=0, registered_ns=0, **blank)  # type: ignore[arg-type]
    rows = [msgspec.structs.replace(row, digest=f"{name}{n}", name=name) for n in range(3) for name in "ab"]
    assert staying(rows, set(), 1) == {"a2", "b2"}
    assert staying(rows, {"a0", "elsewhere"}, 1) == {"a0", "a2", "b2"}


async def test_a_shared_folder_of_artefacts_is_where_the_setting_says(tmp_path: Path) -> None:
    async with registry_in(tmp_path, registry__folder=tmp_path / "elsewhere") as registry:
        digest = await registry.add()
        assert (await registry.models.folder(digest)).parent == tmp_path / "elsewhere"
