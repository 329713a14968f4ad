"""How a group of commands finds them: one file a command, which declares its arguments and does the work.

A file is imported only if its command is among the arguments of this run. The help of the group needs none of them, so
it is printed at once.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence

import typer


def add_commands(app: typer.Typer, package: str, summaries: Mapping[str, str], arguments: Sequence[str]) -> None:
    """Adds commands to a group.

    Args:
      app: the group.
      package: the package of the commands' files, such as "memplan.cli"; each file has a function `command`.
      summaries: names of the commands, which are those of the files with hyphens for underscores, and the first line
        of their help texts.
      arguments: of this run. Commands that are not among them are known by name and summary only.
    """
    for name, summary in summaries.items():
        if name in arguments:
            app.command(name)(importlib.import_module(f"{package}.{name.replace('-', '_')}").command)
        else:
            app.command(name, help=summary)(_not_in_this_run)


def _not_in_this_run() -> None:
    raise AssertionError("a command that is not among the arguments was run")
