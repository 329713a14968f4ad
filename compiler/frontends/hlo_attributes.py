"""What the attributes of HLO say that the Graph states in its own fields: called computations and aliases."""

from __future__ import annotations

import re
from collections.abc import Iterable

from memplan.compiler.frontends.hlo_lexical import SPACE, MalformedText, excerpt, skip_space
from memplan.compiler.ir.graph import Alias

# Attributes that name one computation, or several between braces.
CALLING = frozenset(
    {
        "calls", "to_apply", "condition", "body", "true_computation", "false_computation", "branch_computations",
        "called_computations", "select", "scatter", "comparator", "async_computation", "wrapped_computation",
    }
)  # fmt: skip

# Those of them that take a list, between braces of its own.
LISTS_OF_COMPUTATIONS = frozenset({"branch_computations", "called_computations"})

_INDEX = r"\{[\s,]*+(?:\d{1,9}\s*+(?:,[\s,]*+|(?=\})))*\}"
_ALIAS = re.compile(
    rf"{SPACE}({_INDEX})\s*+:\s*+\(\s*+(\d{{1,9}})\s*+,\s*+({_INDEX})\s*+(?:,\s*+(may|must)-alias\s*+)?\){SPACE}(,|$)"
)


def holds_computations(key: str, value: str) -> bool:
    """Tells whether an attribute's value is computations themselves, `{ x = f32[] parameter(0) … }`, and not names.

    >>> holds_computations("to_apply", "{x = f32[] parameter(0)}"), holds_computations("to_apply", "%add")
    (True, False)
    """
    return key in CALLING and value.startswith("{") and "=" in value


def called_computations(attributes: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Returns the names of the computations that the attributes name, in their order; but what a conditional does if
    its predicate is false comes last.
    Attributes that are not known count too where their value is marked as a name by `%`.

    >>> called_computations([("condition", "%cond"), ("body", "%body"), ("index", "0")])
    ('cond', 'body')
    """
    found: list[str] = []
    if_false: list[str] = []
    for key, value in attributes:
        if key in CALLING or value.startswith(("%", "{%")):
            parts = value[1:-1].split(",") if value.startswith("{") else [value]
            names = [name for part in parts if (name := part.strip().removeprefix("%"))]
            (if_false if key == "false_computation" else found).extend(names)
    return (*found, *if_false)


# What versions of XLA write in several ways, and the way that the Graph keeps. Strings are left as they are.
_STRING = r'"(?:[^"\\]|\\.)*"'
_SPELLINGS = {
    "sharding": (re.compile(rf"{_STRING}|(?<=\{{)single_device(?=\[)"), "maximal_mesh"),
    "sparsity_config": (re.compile(r"\s*+idx=0(?!\d)"), ""),  # where it is left out, it is 0
}


def in_one_spelling(key: str, value: str) -> str:
    """Returns the value of an attribute in the spelling that all versions of XLA have in common.

    >>> in_one_spelling("sharding", "{single_device[device_id=3]}")
    '{maximal_mesh[device_id=3]}'
    """
    if key not in _SPELLINGS:
        return value
    expression, common = _SPELLINGS[key]
    return expression.sub(lambda match: match[0] if match[0].startswith('"') else common, value)


def parse_aliases(value: str, offset: int) -> tuple[Alias, ...]:
    """Parses `{ {0}: (0, {}, may-alias), … }`, the header's `input_output_alias`; raises MalformedText."""
    inside = value[1:-1] if value.startswith("{") and value.endswith("}") else ""
    found: list[Alias] = []
    position = 0
    while skip_space(inside, position) < len(inside):
        match = _ALIAS.match(inside, position)
        if match is None:
            at = offset + 1 + position
            raise MalformedText(
                f"expected an alias such as {{0}}: (1, {{}}, may-alias), found {excerpt(inside, position)}", at
            )
        output, parameter, parameter_index, kind, _ = match.groups()
        found.append(Alias(_index(output), int(parameter), _index(parameter_index), kind == "must"))
        position = match.end()
    return tuple(found)


def _index(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text[1:-1].split(",") if part.strip())
