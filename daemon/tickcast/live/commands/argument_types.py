"""Of what types arguments of commands are: what is no such value is refused by its type alone."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from tickcast.symbols import NAME_BYTES

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Symbol = Annotated[str, Meta(min_length=1, max_length=NAME_BYTES)]
Symbols = Annotated[tuple[Symbol, ...], Meta(max_length=20_000, description="none = all")]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$(?!\n)")]
Model = Annotated[
    str,
    Meta(
        pattern=r"^([A-Za-z0-9][A-Za-z0-9_.-]{0,63}(@[A-Za-z0-9_.-]{1,64})?)?$(?!\n)",
        description="name, name@version or the first digits of a digest",
    ),
]
OneModel = Annotated[Model, Meta(min_length=1)]
Members = Annotated[tuple[OneModel, ...], Meta(max_length=16)]
WHOLE = r"default|(group|symbol):[^\n]{1,64}"
WholeRoute = Annotated[str, Meta(pattern=rf"^({WHOLE})$(?!\n)", description="default, group:NAME or symbol:NAME")]
Route = Annotated[
    str,
    Meta(
        pattern=rf"^({WHOLE}|[1-9][0-9]?%:(default|group:[^\n]{{1,64}}))$(?!\n)",
        description="default, group:NAME or symbol:NAME; 30%:default or 30%:group:NAME is that share of its symbols",
    ),
]
Job = Annotated[str, Meta(pattern=r"^([0-9a-f]{32})?$(?!\n)", description="id of a job")]
OneJob = Annotated[Job, Meta(min_length=1)]
DataName = Annotated[
    str,
    Meta(
        pattern=r"^(?!.*(^|/)\.\.?(/|$))([A-Za-z0-9_.=-]+(/[A-Za-z0-9_.=-]+)*)?$(?!\n)",
        max_length=200,
        description="a file or folder below control.data_folder",
    ),
]
Time = Annotated[datetime, Meta(tz=True, description="RFC 3339")]
Params = Annotated[dict[str, Any], Meta(max_length=64)]
Horizon = Annotated[int, Meta(ge=0, le=10_000, description="bars ahead; 0 = forecast.horizon")]
Bps = Annotated[float, Meta(ge=0, le=1000, description="hundredths of a percent")]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Tried = Annotated[Count, Meta(description="strategies that were tried: the Sharpe ratio is deflated by them")]
Seconds = Annotated[int, Meta(ge=1, le=7 * 86_400)]
Section = Literal[
    "summary", "health", "alerts", "models", "accuracy", "jobs", "routes", "decisions", "store", "settings"
]
Table = Literal[
    "bars", "forecasts", "scores", "postmortems", "accuracy", "alerts", "drift", "contest_blocks", "decisions",
    "commands", "promotions", "versions", "jobs", "trials",
]  # fmt: skip
Note = Annotated[str, Meta(max_length=500)]
TAG_LENGTH = 64
Tag = Annotated[str, Meta(min_length=1, max_length=TAG_LENGTH)]
Tags = Annotated[tuple[Tag, ...], Meta(max_length=16, description="words on its card, by which `status` finds it")]
ActionName = Annotated[str, Meta(min_length=1, max_length=200, description="id of what is proposed")]
Pattern = Annotated[str, Meta(min_length=1, max_length=100)]


def members_of(params: dict[str, Any]) -> tuple[str, ...]:
    """The models that a combination is to be made of."""
    try:
        return msgspec.convert(params.get("members", ()), Members)
    except msgspec.ValidationError as error:
        raise ValueError(f"params.members: {error}") from None


def nanoseconds(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1) * 1000
