"""Rows of the ledger about models: versions, promotions, decisions, data sets, trajectories. They do nothing."""

from typing import Any, Literal, Self

import msgspec

from tickcast.records import ModelCard

Origin = Literal["fit", "import", "fleet", "folder"]  # a folder that the settings name
Action = Literal["promote", "rollback"]
Event = Literal["proposed", "approved", "dismissed", "begun", "done", "failed"]


class VersionRow(msgspec.Struct, frozen=True, kw_only=True):
    """A model that was registered. `tombstone_ns`: its files are gone since then."""

    digest: str
    name: str
    version: str
    kind: str
    parent: str
    dataset_hash: str
    card_json: str
    origin: Origin
    created_ns: int
    registered_ns: int
    tombstone_ns: int | None = None

    @classmethod
    def of(cls, card: ModelCard, *, origin: Origin, at_ns: int) -> Self:
        return cls(
            digest=card.digest, name=card.name, version=card.version, kind=card.kind, parent=card.parent,
            dataset_hash=card.dataset_hash, card_json=msgspec.json.encode(card).decode(), origin=origin,
            created_ns=card.created_ns, registered_ns=at_ns,
        )  # fmt: skip

    @property
    def card(self) -> ModelCard:
        return msgspec.json.decode(self.card_json, type=ModelCard)


class PromotionRow(msgspec.Struct, frozen=True, kw_only=True):
    """From `at_ns` on the route's questions go to `digest`; None: the route has no model of its own any more."""

    route: str
    at_ns: int
    action: Action
    given_by: str
    sequence: int = 0
    digest: str | None = None
    evidence_json: str = "{}"
    command_id: str = ""
    positions_json: str = "[]"


class DatasetRow(msgspec.Struct, frozen=True, kw_only=True):
    """What a model learnt from; `rule` is how windows were drawn from the bars, features included."""

    hash: str
    source: str
    rule: dict[str, Any]
    symbols: int
    bars: int
    from_ns: int
    to_ns: int
    added_ns: int
    signature: dict[str, float] = {}  # loop.signature.Signature, of its training part


class TrajectoryRow(msgspec.Struct, frozen=True, kw_only=True):
    """What a fit or a search found, on data of which kind: a row of the view `trajectories`."""

    job: str
    made_by: str  # kind of that job
    kind: str  # of the model
    fit: dict[str, Any]  # the order of the fit, or that which all trials shared
    params: dict[str, Any]  # of the best trial, or those that the fit was given
    metric: str  # that was sought
    skill: float | None  # on the hold-out, with its interval
    skill_low: float | None
    skill_high: float | None
    cost_us: float | None
    signature: dict[str, Any]
    at_ns: int


class DecisionRow(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided about a model, or became of that. `why` is what spoke for it when it came due."""

    at_ns: int
    action: str  # by which what belongs together is known
    kind: str
    event: Event
    route: str = "default"
    model: str = ""  # digest
    champion: str = ""  # digest of who served then
    why: list[str] = []
    evidence_json: str = "{}"
    given_by: str = "schedule"
    sequence: int = 0
