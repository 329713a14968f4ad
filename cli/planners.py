"""`memplan planners`: the planners that are known."""

from __future__ import annotations


def command() -> None:
    """List the planners that are known."""
    from rich.table import Table

    from memplan.cli.console import show
    from memplan.planners import planner as registry

    table = Table(box=None, pad_edge=False)
    for column in ("planner", "description"):
        table.add_column(column, overflow="fold")
    for name in registry.names():
        table.add_row(name, registry.get(name).description)
    show(lambda terminal: terminal.print(table))
