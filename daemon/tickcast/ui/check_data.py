"""`tickcast check --data`: what is wrong with a history, as a table."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from tickcast.batch.judge.data_check import check_data
from tickcast.settings import Settings
from tickcast.ui.command_line import terminal


def print_data_check(settings: Settings, data: Path, console: Console | None = None) -> bool:
    """Print the table; returns whether no line of it is bad."""
    findings = check_data(settings, data)
    table = Table("check", "subject", "measured", "verdict", "advice", box=None, pad_edge=False)
    for finding in findings:
        table.add_row(*finding, style="" if finding.verdict == "ok" else "bold")
    (console or terminal()).print(table)
    return all(finding.verdict != "bad" for finding in findings)
