"""The functions of an exported program: steps whose loop nests differ in numbers alone share one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from memplan.backends.c.kernel_lines import KernelText
from memplan.backends.c.kernel_text import kernel_text
from memplan.backends.c.operators import constant_text
from memplan.compiler.embedded.plan import EmbeddedPlan

_MARK = re.compile("\0([0-9]+)\0")

# The words of C99 and of our header that a function's name must not be are avoided by this prefix.
_PREFIX = "run_"


@dataclass(frozen=True)
class KernelCall:
    """A step as the call of a function.

    Attributes:
      function: its name.
      buffers: what its pointers are; None for the step's workspace.
      types: of the pointers.
      numbers: its other arguments, as C has them.
    """

    function: str
    buffers: tuple[int | None, ...]
    types: tuple[str, ...]
    numbers: tuple[str, ...]


def kernels(plan: EmbeddedPlan) -> tuple[list[str], list[KernelCall], set[str]]:
    """Returns the texts of all functions, `[steps]` the call of each step in the order of the plan, and library names.

    The names are those of the functions for sums (`sum_functions.py`) that the steps call.
    """
    texts = [kernel_text(plan.program, plan.program.steps[k], plan.in_place[k]) for k in plan.order]
    groups: dict[tuple[tuple[str, ...], tuple[tuple[str, str], ...]], list[int]] = {}
    for number, text in enumerate(texts):
        groups.setdefault((tuple(text.lines), tuple(text.parameters)), []).append(number)
    functions: list[str] = []
    calls: list[KernelCall | None] = [None] * len(texts)
    taken: dict[str, int] = {}
    for members in groups.values():
        what = re.sub(r"[^a-z0-9_]", "_", plan.program.steps[plan.order[members[0]]].name.lower())
        taken[what] = taken.get(what, 0) + 1
        name = f"{_PREFIX}{what}_{taken[what]}"
        function, numbers = _function(name, [texts[number] for number in members], members)
        functions.append(function)
        for number, arguments in zip(members, numbers, strict=True):
            text = texts[number]
            types = tuple(kind for kind, _ in text.parameters)
            calls[number] = KernelCall(name, tuple(text.buffers), types, arguments)
    library = set().union(*(text.functions for text in texts))
    return functions, [call for call in calls if call is not None], library


def _function(name: str, texts: Sequence[KernelText], members: Sequence[int]) -> tuple[str, list[tuple[str, ...]]]:
    """Returns a function for steps of one text, and the numbers that each gives to it.

    A number that is the same for all of them is written out. Numbers that are equal in each step are one parameter.
    """
    columns = list(zip(*(text.numbers for text in texts), strict=True))
    parameters: dict[tuple[int | float, ...], str] = {}
    shown = []
    for column in columns:
        if len(set(map(repr, column))) == 1:
            shown.append(_text(column[0]))
        else:
            shown.append(parameters.setdefault(column, f"n{len(parameters)}"))
    kinds = ["float" if isinstance(column[0], float) else "int32_t" for column in parameters]
    arguments = [f"{kind}{name}" for kind, name in texts[0].parameters]
    arguments += [f"{kind} {parameter}" for kind, parameter in zip(kinds, parameters.values(), strict=True)]
    body = "\n".join(_MARK.sub(lambda match: shown[int(match[1])], line) for line in texts[0].lines)
    steps = ", ".join(map(str, members[:8])) + (", …" if len(members) > 8 else "")
    head = f"/* {'Steps' if len(members) > 1 else 'Step'} {steps.replace('…', '...')}. */"
    signature = _wrapped(f"static void {name}(", arguments)
    numbers = [tuple(_text(column[k]) for column in parameters) for k in range(len(texts))]
    return f"{head}\n{signature}\n{{\n{body}\n}}\n", numbers


def _text(number: int | float) -> str:
    return constant_text(number, "float32" if isinstance(number, float) else "int32")


def _wrapped(start: str, parts: Sequence[str], end: str = ")") -> str:
    """Returns a list in brackets over as many lines as it takes."""
    lines, line = [], start
    for number, part in enumerate(parts):
        part += end if number == len(parts) - 1 else ","
        if len(line) + len(part) > 110 and line.strip():
            lines.append(line.rstrip())
            line = "        "
        line += part + " "
    return "\n".join([*lines, line.rstrip()]) if parts else f"{start}void{end}"
