"""The reply to a query as lines: `{"columns": [...]}`, lists of rows, `{"rows": n}`; or one line that refuses."""

from collections.abc import Iterator
from typing import Any

import msgspec

from tickcast.errors import TickcastError

CHUNK_ROWS = 256  # in a line


def reply(columns: list[str], rows: list[tuple[Any, ...]]) -> Iterator[bytes]:
    yield msgspec.json.encode({"columns": columns})
    for first in range(0, len(rows), CHUNK_ROWS):
        yield msgspec.json.encode(rows[first : first + CHUNK_ROWS])
    yield msgspec.json.encode({"rows": len(rows)})


def refusal(error: TickcastError) -> bytes:
    message = error.args[0] if error.args else ""
    return msgspec.json.encode({"error": error.code, "message": message, "remedy": error.remedy})
