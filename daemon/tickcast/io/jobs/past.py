"""What past searches found, as a new one finds it in its folder. It compares nothing."""

from pathlib import Path
from typing import Any

import msgspec

from tickcast.errors import BadData
from tickcast.io.jobs.folder import write_whole
from tickcast.io.store.ledger_rows import TrajectoryRow
from tickcast.records import TrialRow

PAST = "past.json"


class EarlierSearch(msgspec.Struct, frozen=True, kw_only=True):
    """One for the same that ran out of time."""

    job: str
    signature: dict[str, Any]  # of the data that it saw
    trials: list[TrialRow]


class Past(msgspec.Struct, frozen=True, kw_only=True):
    """`past.json`."""

    trajectories: list[TrajectoryRow] = []  # of the kind that is searched
    earlier: list[EarlierSearch] = []  # that this one goes on from, if its data are still alike

    def write(self, folder: Path) -> None:
        write_whole(folder / PAST, msgspec.json.encode(self))

    @classmethod
    def read(cls, folder: Path) -> "Past":
        """There is none where nobody left any."""
        path = folder / PAST
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls) if path.exists() else cls()
        except msgspec.DecodeError as error:
            raise BadData(f"cannot read {path}: {error}") from None


NO_PAST = Past()
