"""What a search and its worker processes tell each other, as JSON lines over a worker's stdin and stdout."""

import msgspec

from tickcast.batch.train.order import FitOrder


class Task(msgspec.Struct, frozen=True):
    """To the worker: fit this."""

    number: int
    order: FitOrder


class Verdict(msgspec.Struct, frozen=True):
    """To the worker, after each `Epoch`."""

    go_on: bool


class EpochReport(msgspec.Struct, frozen=True, tag=True):
    """From the worker, which then waits for the verdict."""

    number: int
    epoch: int
    loss: float


class Ended(msgspec.Struct, frozen=True, tag=True):
    number: int
    value: float | None  # None: the verdict ended it
    epochs: int
    seconds: float


class Failed(msgspec.Struct, frozen=True, tag=True):
    """`hung` and `worker_died` are what the search itself says of a worker that it lost."""

    number: int
    error_code: str
    error: str
    seconds: float


Told = EpochReport | Ended | Failed
