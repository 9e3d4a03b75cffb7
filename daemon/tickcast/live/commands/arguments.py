"""What each command takes: types, ranges, the role it needs, its JSON Schema. It carries nothing out.

Defaults that depend on the deployment are left empty here and filled by who carries the command out.
"""

from collections.abc import Callable
from math import inf
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import msgspec
from msgspec import Meta, Struct, field

from tickcast.errors import CommandFault, CommandRefused
from tickcast.io.jobs import orders
from tickcast.live.commands import argument_types as of
from tickcast.live.commands.keys import Role
from tickcast.records import JobState, field_default
from tickcast.symbols import NAME_BYTES

SCHEMA = 1
ALL = "default"
BACKTEST, TUNE = (orders.defaults_of(kind) for kind in (orders.BacktestOrder, orders.TuneOrder))


class Arguments(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Accepted(NamedTuple):
    """What a command takes, and who may give it."""

    takes: type[Arguments]
    role: Role


Kind = TypeVar("Kind", bound=Arguments)
ACCEPTED: dict[str, Accepted] = {}  # by name: all that the inbox, the shell and the documents know of commands


def command(name: str, role: Role) -> Callable[[type[Kind]], type[Kind]]:
    """This is what the command of that name takes. The method of that name carries it out: see service.handlers_of."""

    def accept(kind: type[Kind]) -> type[Kind]:
        ACCEPTED[name] = Accepted(kind, role)
        return kind

    return accept


class Bar(Arguments, frozen=True):
    """One row. A price alone is a bar of that one price."""

    close: float
    open: float | None = None
    high: float | None = None
    low: float | None = None
    volume: Annotated[float, Meta(ge=0)] = 0.0
    ts: of.Time | None = None
    symbol: Annotated[str, Meta(max_length=NAME_BYTES)] = ""

    def __post_init__(self) -> None:
        open, high, low = (self.close if price is None else price for price in (self.open, self.high, self.low))
        if self.low is not None and low > min(open, self.close, high):
            raise ValueError("a bar's low is above its open, close or high")
        if self.high is not None and high < max(open, self.close, low):
            raise ValueError("a bar's high is below its open, close or low")


class EventSpan(Arguments, frozen=True):
    """A span of event time; an end that is left out is open."""

    start: of.Time | None = field(name="from", default=None)
    end: of.Time | None = field(name="to", default=None)

    def __post_init__(self) -> None:
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise ValueError("`from` must be before `to`")

    def span_ns(self) -> tuple[int | None, int | None]:
        start, end = (None if time is None else of.nanoseconds(time) for time in (self.start, self.end))
        return start, end


class JobData(EventSpan, frozen=True):
    """What a job is done on: stored bars, those of a file, or rows; of these the ones that end within the span, of
    `symbols`. `resume` takes up a job that was ended, as it was ordered."""

    symbols: of.Symbols = ()
    data: of.DataName = ""
    rows: Annotated[tuple[Bar, ...], Meta(max_length=100_000)] = ()
    params: of.Params = {}
    seed: orders.Seed = 0
    resume: of.Job = ""

    def __post_init__(self) -> None:
        EventSpan.__post_init__(self)
        if self.data and self.rows:
            raise ValueError("`data` or `rows`, not both")
        if self.rows and any(not row.symbol or row.ts is None for row in self.rows):
            raise ValueError("each of `rows` needs `symbol` and `ts`")
        if self.resume and (beside := [name for name in said(self) if name != "resume"]):
            raise ValueError(f"a job is resumed as it was ordered: leave out {', '.join(beside)}")


@command("forecast", "read")
class Forecast(Arguments, frozen=True):
    """The next bars of symbols, from what the daemon knows now; with `confidence_level` the interval that holds the
    truth that often, between equal tails; with `low`, `high` or both how likely the price of a symbol leaves them."""

    symbols: Annotated[tuple[of.Symbol, ...], Meta(min_length=1, max_length=1000)]
    model: of.Model = ""
    horizon: of.Horizon = 0
    confidence_level: Annotated[float, Meta(gt=0, lt=1)] | None = None
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        low, high = self.bounds or (-inf, inf)
        if not low < high:
            raise ValueError("`low` must be below `high`")
        if self.bounds is not None and len(self.symbols) > 1:
            raise ValueError("`low` and `high` are prices of one symbol")

    @property
    def bounds(self) -> tuple[float, float] | None:
        if self.low is None and self.high is None:
            return None
        return -inf if self.low is None else self.low, inf if self.high is None else self.high


@command("predict", "read")
class Predict(Arguments, frozen=True):
    """The next bars after a window that is given."""

    closes: Annotated[tuple[float, ...], Meta(max_length=10_000)] = ()
    bars: Annotated[tuple[Bar, ...], Meta(max_length=10_000)] = ()
    as_of: of.Time | None = None  # end of the last bar, for models that look at the calendar
    symbol: Annotated[str, Meta(max_length=NAME_BYTES)] = ""
    model: of.Model = ""
    horizon: of.Horizon = 0

    def __post_init__(self) -> None:
        if bool(self.closes) == bool(self.bars):
            raise ValueError("either `closes` or `bars`")


@command("status", "read")
class Status(Arguments, frozen=True):
    """What the daemon is doing. With `model` all that is known of that model; with `tag` the models that carry it."""

    section: of.Section = "summary"
    model: of.Model = ""
    tag: Annotated[str, Meta(max_length=of.TAG_LENGTH)] = ""

    def __post_init__(self) -> None:
        if self.model and self.section not in ("summary", "models", "accuracy"):
            raise ValueError(f"`model` chooses among models and their figures: there is none in section {self.section}")
        if self.tag and self.section not in ("summary", "models"):
            raise ValueError(f"`tag` chooses among models: there is none in section {self.section}")


@command("jobs", "read")
class Jobs(Arguments, frozen=True):
    job: of.Job = ""
    kind: Literal["", orders.JobKind] = ""
    state: Literal["", JobState] = ""
    limit: Annotated[int, Meta(ge=1, le=1000)] = 20


@command("report", "read")
class ReportArguments(Arguments, frozen=True):
    """How forecasts did in the last hours."""

    hours: Annotated[int, Meta(ge=1, le=24 * 366)] = 24
    symbols: of.Symbols = ()
    model: of.Model = ""


@command("diagnose", "read")
class Diagnose(Arguments, frozen=True):
    """What a person should look at: lag, cold symbols, refused messages, a store that is behind; why forecasts fail."""

    symbol: Annotated[str, Meta(max_length=NAME_BYTES)] = ""


@command("recommend", "read")
class Recommend(Arguments, frozen=True):
    """Which kinds of model are worth trying for symbols, and why."""

    symbols: of.Symbols = ()


class StartArguments(Arguments, frozen=True):
    """A model that training begins with."""

    model: of.OneModel
    mode: orders.StartMode = "warm"
    freeze: Annotated[tuple[of.Pattern, ...], Meta(max_length=64)] = ()


@command("train", "train")
class Train(JobData, frozen=True):
    """Fit a model. `params` are keys of the order of a fit (docs/models.md) or parameters of the kind; `members` among
    them are names of models."""

    kind: of.Name = orders.KIND
    name: Annotated[str, Meta(max_length=64, description="of the model; empty = its kind")] = ""
    tags: of.Tags = ()
    start_with: StartArguments | None = None

    def __post_init__(self) -> None:
        JobData.__post_init__(self)
        of.members_of(self.params)


@command("evaluate", "train")
class Evaluate(JobData, frozen=True):
    """Judge a model on data."""

    model: of.Model = ""


@command("backtest", "train")
class Backtest(JobData, frozen=True):
    """Walk forward through history and trade on the forecasts."""

    model: of.Model = ""
    fee_bps: of.Bps = BACKTEST["fee_bps"]
    slippage_bps: of.Bps = BACKTEST["slippage_bps"]
    retrain_every_bars: Annotated[int, Meta(ge=0, le=10_000_000, description="0 = never")] = 0
    retrain_kind: Annotated[str, Meta(max_length=64)] = ""
    trials: of.Tried = BACKTEST["trials"]

    def __post_init__(self) -> None:
        JobData.__post_init__(self)
        if self.retrain_every_bars and not self.retrain_kind:
            raise ValueError("`retrain_every_bars` needs `retrain_kind`")
        if self.retrain_kind and not self.retrain_every_bars:
            raise ValueError("`retrain_kind` needs `retrain_every_bars`")


class Range(Arguments, frozen=True):
    """Where a parameter is looked for, instead of the range that its kind declares."""

    kind: Literal["float", "int", "choice"]
    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: Annotated[tuple[Any, ...], Meta(max_length=100)] = ()

    def __post_init__(self) -> None:
        if self.kind == "choice":
            if not self.choices or self.low is not None or self.high is not None:
                raise ValueError("a choice has `choices`, and no `low` and `high`")
        elif self.choices or self.low is None or self.high is None or self.low >= self.high:
            raise ValueError("a range has `low` below `high`, and no `choices`")
        elif self.log and self.low <= 0:
            raise ValueError("with `log` a range begins above 0")


@command("optimize", "train")
class Optimize(JobData, frozen=True):
    """Look for the parameters of a kind that fit best."""

    kind: of.Name = orders.KIND
    name: Annotated[str, Meta(max_length=64)] = ""
    trials: orders.Trials = TUNE["trials"]
    metric: orders.Metric = TUNE["metric"]  # sought over the validation part
    sampler: orders.Sampler = TUNE["sampler"]
    pruner: orders.Pruner = TUNE["pruner"]
    seconds: of.Seconds = int(TUNE["seconds"])  # of the search; the last fit comes after it, within jobs.wall_s
    space: Annotated[dict[str, Range], Meta(max_length=64)] = {}


@command("auto", "train")
class Auto(JobData, frozen=True):
    """Look for a model worth having: a candidate, or the verdict that there is none."""

    kinds: Annotated[tuple[of.Name, ...], Meta(max_length=64, description="none = those worth trying")] = ()
    name: of.Name = "auto"
    budget_s: of.Seconds = 600


@command("cancel", "train")
class Cancel(Arguments, frozen=True):
    job: of.OneJob


@command("export", "train")
class Export(EventSpan, frozen=True, kw_only=True):
    """Rows of the store as a file below `control.data_folder`."""

    table: of.Table
    symbols: of.Symbols = ()
    format: Literal["parquet", "csv"] = "parquet"


@command("promote", "promote")
class Promote(Arguments, frozen=True):
    """Have a model answer for a route."""

    model: of.OneModel
    route: of.Route = ALL
    force: bool = False  # without evidence
    note: of.Note = ""


@command("shadow", "promote")
class Shadow(Arguments, frozen=True):
    """Have a model answer beside the one that serves a route, in a contest. Without a model: end that contest."""

    model: of.Model = ""
    route: of.WholeRoute = ALL
    note: of.Note = ""


@command("approve", "promote")
class Approve(Arguments, frozen=True):
    """Have done what the schedule proposes; `status section=decisions` lists it."""

    action: of.ActionName


@command("dismiss", "promote")
class Dismiss(Approve, frozen=True):
    """Take what the schedule proposes off the table, for a while."""


@command("history", "read")
class History(Arguments, frozen=True):
    """What was decided about models, by whom and on which evidence, newest first; and what served what, when."""

    kind: Literal["", "fit", "optimize", "shadow", "end_shadow", "promote", "rollback", "step_down"] = ""
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 100


@command("rollback", "promote")
class Rollback(Arguments, frozen=True):
    """Have the model answer that did before."""

    route: of.Route = ALL
    note: of.Note = ""


@command("pause", "admin")
class Pause(Arguments, frozen=True):
    """Fetch no more ticks until `resume`."""


@command("resume", "admin")
class Resume(Arguments, frozen=True):
    """Fetch ticks again."""


@command("drain", "admin")
class Drain(Arguments, frozen=True):
    """End as a first signal does."""


@command("symbols", "admin")
class Listing(Arguments, frozen=True):
    """The symbols that have been seen."""

    like: Annotated[of.Pattern, Meta(description="`*` stands for anything")] = "*"
    after: Annotated[str, Meta(max_length=NAME_BYTES)] = ""  # the last name of the page before
    limit: Annotated[int, Meta(ge=1, le=20_000)] = 1000


def role_of(command: str) -> Role:
    return _accepted(command).role


def parse(command: str, args: dict[str, Any]) -> Arguments:
    """The typed arguments; CommandRefused names the one that does not fit."""
    kind = _accepted(command).takes
    try:
        return msgspec.convert(args, kind)
    except (msgspec.ValidationError, OverflowError) as error:
        raise CommandRefused(
            CommandFault.BAD_ARGUMENT, f"{command}: {error}", remedy=f"see `tickcast schema command-{command}`"
        ) from None


def schema(command: str) -> dict[str, Any]:
    return msgspec.json.schema(_accepted(command).takes)


def _accepted(command: str) -> Accepted:
    if command not in ACCEPTED:
        raise CommandRefused(
            CommandFault.UNKNOWN_COMMAND, f"there is no command '{command}'", remedy=f"there are {', '.join(ACCEPTED)}"
        )
    return ACCEPTED[command]


def said(given: Arguments) -> list[str]:
    """The names of the arguments that are not what they are by themselves."""
    fields = msgspec.structs.fields(given)
    return [at.encode_name for at in fields if at.required or getattr(given, at.name) != field_default(at)]
