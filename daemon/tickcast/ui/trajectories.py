"""What the store of a deployment knows of past fits and searches, through the daemon where it runs. It judges none."""

import msgspec

from tickcast.io.store.ledger_rows import TrajectoryRow
from tickcast.settings import Settings
from tickcast.ui.query import run_query

MOST = 1000
OBJECTS = ("fit", "params", "signature")


def read_trajectories(settings: Settings) -> list[TrajectoryRow]:
    """Newest first; none where there is no store."""
    if not settings.store.path.exists():
        return []
    fields = [field.name for field in msgspec.structs.fields(TrajectoryRow)]
    most = min(MOST, settings.store.query_rows)
    sql = f"SELECT {', '.join(fields)} FROM trajectories ORDER BY at_ns DESC, job LIMIT {most}"
    columns, rows = run_query(settings, sql)
    return [_row(dict(zip(columns, row, strict=True))) for row in rows]


def _row(row: dict[str, object]) -> TrajectoryRow:
    decoded = {name: msgspec.json.decode(str(row[name])) for name in OBJECTS}
    return msgspec.convert(row | decoded, TrajectoryRow)
