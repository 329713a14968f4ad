"""`memplan targets`: the targets that are known."""

from __future__ import annotations


def command() -> None:
    """List the targets that are known."""
    from rich.table import Table

    from memplan.cli.console import show
    from memplan.compiler.hardware.target import load_target, target_names
    from memplan.compiler.report.units import print_bytes

    table = Table(box=None, pad_edge=False)
    for column in ("target", "memories", "description"):
        table.add_column(column, overflow="fold")
    for name in target_names():
        target = load_target(name)
        memories = ", ".join(f"{space.name} {print_bytes(space.capacity)}" for space in target.spaces)
        table.add_row(name, memories, target.description)
    show(lambda terminal: terminal.print(table))
