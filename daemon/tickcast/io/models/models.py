"""Models: which there are, which of them serves whom, and what served before. It loads none and asks none.

A route is a text that `engine/core/routes.py` understands; its model answers.
"""

import asyncio
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tickcast.clock import Clock
from tickcast.engine.core.routes import DEFAULT, TEXT, narrowness, route_of
from tickcast.engine.inference.model_folder import NAME, RESERVED
from tickcast.errors import BadRequest, ModelFault, ModelRefused
from tickcast.io.models.artefacts import Artefacts
from tickcast.io.store.ledger import Ledger
from tickcast.io.store.ledger_rows import Action, Origin, PromotionRow, VersionRow
from tickcast.records import ModelCard

PREFIX = re.compile(r"[0-9a-f]{8,64}")  # of a digest
LATEST = "latest"


class Models:
    def __init__(self, ledger: Ledger, artefacts: Artefacts, *, clock: Clock, keep_versions: int) -> None:
        self._ledger, self.artefacts, self._clock = ledger, artefacts, clock
        self._keep_versions = keep_versions
        self._files = asyncio.Lock()  # held while files and rows are changed together

    async def register(self, folder: Path, *, origin: Origin) -> ModelCard:
        """Check a model folder, keep its files, and list it; BadModel says what is wrong with it. Twice is once."""
        async with self._files:
            card = await asyncio.to_thread(self.artefacts.add, folder, judge=refuse_bad_name)
            await self._ledger.add_version(card, origin=origin, at_ns=self._clock.now_ns())
        return card

    async def folder(self, digest: str) -> Path:
        """The folder of a registered model, its files verified again."""
        return await asyncio.to_thread(self.artefacts.open, digest)

    async def versions(self, name: str = "") -> list[VersionRow]:
        """In the order in which they came; unknown_model where there is none of that name."""
        rows = await self._ledger.versions(name)
        if name and not rows:
            raise _unknown(name, await self._ledger.versions())
        return rows

    async def versions_of(self, model: str) -> list[VersionRow]:
        """All where `model` is empty, else those that it may mean: each version of a name."""
        rows = await self._ledger.versions()
        found = [row for row in rows if model in ("", row.name)] or _meant(model, rows)
        if model and not found:
            raise _unknown(model, rows)
        return found

    async def evaluated(self, digest: str) -> dict[str, Any] | None:
        """What the newest job that judged this model found, None where none did."""
        return await self._ledger.evaluation_of(digest)

    async def stages(self) -> dict[str, str]:
        """Digest -> candidate, active or retired."""
        return await self._ledger.stages()

    async def resolve(self, model: str) -> ModelCard:
        """The card that is meant by NAME (its newest version), NAME@VERSION, a digest or its first 8 digits or more,
        or `latest` (the newest of all).
        """
        rows = await self._ledger.versions()
        found = _meant(model, rows)
        if not found:
            raise _unknown(model, rows)
        living = [row for row in found if row.tombstone_ns is None]
        if not living:
            raise ModelRefused(ModelFault.RETIRED_MODEL, f"the files of '{model}' are gone", remedy="register it again")
        if len(living) > 1:
            digests = ", ".join(row.digest[:12] for row in living)
            raise ModelRefused(
                ModelFault.AMBIGUOUS_MODEL, f"'{model}' may mean several models", remedy=f"name one of {digests}"
            )
        return living[0].card

    async def promote(
        self, model: str, route: str, *, by: str, evidence: Mapping[str, Any], command_id: str = "",
        positions: Sequence[Any] = (),
    ) -> PromotionRow:  # fmt: skip
        """From now on the route's questions go to that model. A command that comes twice promotes once."""
        refuse_bad_route(route)
        async with self._files:  # what is being promoted cannot be taken away meanwhile
            digest = (await self.resolve(model)).digest

            def decide(history: list[PromotionRow]) -> str:
                if served(history)[-1:] == [digest]:
                    raise ModelRefused(ModelFault.ALREADY_ACTIVE, f"{digest[:12]} serves {route} already")
                return digest

            row = self._row(route, "promote", by, evidence, command_id, positions)
            return await self._ledger.add_promotion(row, decide)

    async def rollback(
        self, route: str, *, by: str, evidence: Mapping[str, Any] = {}, command_id: str = "",
        positions: Sequence[Any] = (),
    ) -> PromotionRow:  # fmt: skip
        """Take back the route's last promotion that stands: what served before it serves again, or None, where the
        route had no model of its own.
        """
        refuse_bad_route(route)
        row = self._row(route, "rollback", by, evidence, command_id, positions)
        return await self._ledger.add_promotion(row, one_back)

    async def step_down(
        self, digest: str, route: str, *, by: str, evidence: Mapping[str, Any], command_id: str,
        positions: Sequence[Any] = (),
    ) -> PromotionRow:  # fmt: skip
        """From now on a rung answers the route's questions; a rollback brings back what served."""
        refuse_bad_route(route)
        row = self._row(route, "promote", by, evidence, command_id, positions)
        return await self._ledger.add_promotion(row, lambda history: digest)

    async def before(self, route: str) -> str | None:
        """Digest of what a rollback would bring back; None where the route had no model of its own before."""
        refuse_bad_route(route)
        return one_back(await self._ledger.promotions(route))

    async def active(self, route: str = DEFAULT) -> ModelCard | None:
        """Of the model that the route was given; None where it has none of its own, or a rung."""
        refuse_bad_route(route)
        standing = served(await self._ledger.promotions(route))
        if not standing:
            return None
        return next((row.card for row in await self._ledger.versions() if row.digest == standing[-1]), None)

    async def history(self, route: str = "") -> list[PromotionRow]:
        """Every promotion and rollback of a route or of all, oldest first."""
        return await self._ledger.promotions(route)

    async def routes(self) -> list[tuple[str, str]]:
        """(route, digest) of all that have a model; the first that applies to a symbol is its own."""
        return _in_precedence(now_served(await self._ledger.promotions()))

    async def retain(self, also: Collection[str] = ()) -> list[str]:
        """Take away the files of old versions, but of none that serves or served, of no parent of one that stays, and
        of none in `also`; returns the digests.
        """
        async with self._files:
            rows = [row for row in await self._ledger.versions() if row.tombstone_ns is None]
            promoted = {row.digest for row in await self._ledger.promotions() if row.digest}
            stay = staying(rows, promoted | {*also}, self._keep_versions)
            gone = [row.digest for row in rows if row.digest not in stay]
            await self._ledger.bury_versions(gone, at_ns=self._clock.now_ns())
            await asyncio.to_thread(self.artefacts.retain, stay)
        return gone

    def _row(
        self, route: str, action: Action, by: str, evidence: Mapping[str, Any], command_id: str,
        positions: Sequence[Any],
    ) -> PromotionRow:  # fmt: skip
        return PromotionRow(
            route=route, at_ns=self._clock.now_ns(), action=action, given_by=by, command_id=command_id,
            evidence_json=msgspec.json.encode(evidence).decode(),
            positions_json=msgspec.json.encode(positions).decode(),
        )  # fmt: skip


def refuse_bad_name(card: ModelCard) -> None:
    """A name must be told from a rung, from a digest, from a version and from a key of the topic `models`."""
    if not NAME.fullmatch(card.name) or card.name in (LATEST, *RESERVED) or PREFIX.fullmatch(card.name):
        raise ModelRefused(
            ModelFault.BAD_NAME, f"a model cannot be named '{card.name[:80]}'",
            remedy="letters, digits, '.', '_' and '-', 64 at most; neither 'latest' nor a rung nor like a digest",
        )  # fmt: skip


def refuse_bad_route(route: str) -> None:
    try:
        route_of(route)
    except BadRequest as problem:
        raise ModelRefused(ModelFault.BAD_ROUTE, f"there is {problem.args[0]}", remedy=problem.remedy) from None


def served(history: Iterable[PromotionRow]) -> list[str]:
    """The promotions of one route that stand, oldest first: the last one serves, a rollback takes it away."""
    standing: list[str] = []
    for row in history:
        if row.action == "rollback":
            standing.pop()
        elif row.digest is not None:
            standing.append(row.digest)
    return standing


def one_back(history: Iterable[PromotionRow]) -> str | None:
    """What served a route before its last promotion that stands."""
    standing = served(history)
    if not standing:
        raise ModelRefused(ModelFault.NOTHING_TO_ROLL_BACK, "no promotion stands on this route")
    return standing[-2] if len(standing) > 1 else None


def now_served(history: Iterable[PromotionRow]) -> dict[str, str]:
    """Route -> digest."""
    last = {row.route: row.digest for row in history}
    return {route: digest for route, digest in last.items() if digest is not None}


def staying(rows: Sequence[VersionRow], wanted: set[str], keep_versions: int) -> set[str]:
    """Digests of the versions that stay: those wanted, the newest of each name, and the parents of all these."""
    by_name: dict[str, list[str]] = {}
    for row in rows:
        by_name.setdefault(row.name, []).append(row.digest)
    here, parent = {row.digest for row in rows}, {row.digest: row.parent for row in rows}
    stay = (wanted & here).union(*(digests[-keep_versions:] for digests in by_name.values()))
    return stay | ({parent[digest] for digest in stay} & here)


def _meant(model: str, rows: Sequence[VersionRow]) -> list[VersionRow]:
    name, at, version = model.partition("@")
    of_name = [row for row in rows if row.name == name]
    if at:
        return [row for row in of_name if row.version == version]
    if model == LATEST:
        return _newest(rows)
    if PREFIX.fullmatch(model):
        return [row for row in rows if row.digest.startswith(model)]
    return _newest(of_name)


def _newest(rows: Sequence[VersionRow]) -> list[VersionRow]:
    living = [row for row in rows if row.tombstone_ns is None]
    return [*(living or rows)[-1:]]


def _unknown(model: str, rows: Iterable[VersionRow]) -> ModelRefused:
    known = ", ".join(sorted({row.name for row in rows})) or "none"
    return ModelRefused(ModelFault.UNKNOWN_MODEL, f"there is no model '{model[:80]}'", remedy=f"known: {known}")


def _in_precedence(routes: Mapping[str, str]) -> list[tuple[str, str]]:
    applying = [route for route in routes if TEXT.fullmatch(route)]
    return [(route, routes[route]) for route in sorted(applying, key=lambda route: (-narrowness(route), route))]
