"""`tickcast query`: one SELECT, through the daemon where it runs, else straight from the file. It only shows rows."""

import json
import sys
from datetime import date, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from tickcast.io.query_socket import ask
from tickcast.io.store.query import query_direct
from tickcast.settings import Settings

SOCKET = "query.sock"  # in runtime.folder


def run_query(settings: Settings, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Column names and rows of one SELECT."""
    try:
        return ask(settings.runtime.folder / SOCKET, sql, timeout_s=settings.store.query_timeout_s)
    except ConnectionRefusedError:
        return query_direct(settings, sql)


def print_query(settings: Settings, sql: str) -> None:
    """A table on a terminal, JSON lines elsewhere."""
    columns, rows = run_query(settings, sql)
    if not sys.stdout.isatty():
        for row in rows:
            print(json.dumps(dict(zip(columns, row, strict=True)), default=_plain))
        return
    table = Table(*columns)
    for row in rows:
        table.add_row(*(str(value) for value in row))
    Console().print(table)


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, date | datetime) else str(value)
