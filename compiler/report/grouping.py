"""Names as groups: which buffers belong to one line, operation, shape or layer, with layers that repeat as one.

    params['blocks'][0]['mlp']['up']['w']  ┐
    params['blocks'][1]['mlp']['up']['w']  ├─►  params['blocks'][*]['mlp']['up']
    params['blocks'][2]['mlp']['up']['w']  ┘

    jit(step)/jvp(Model)/layer_0/mlp/up/dot_general             ┐
    jit(step)/transpose(jvp(Model))/layer_7/mlp/up/dot_general  ┴─►  Model/layer_*/mlp/up

A number is one of several layers if it stands by itself (`[3]`, `layer_3`, `Dense_3`, `h.3`) or after a word that
counts layers (`block3`), and the names differ in it: `norm1` and `norm2`, or `w1` and `w2`, are different things.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# A number by itself, or after a word for things of which a model has many.
_NUMBER = re.compile(
    r"(?i:(?<=layer)|(?<=layers)|(?<=block)|(?<=blocks)|(?<=stage)|(?<=stages)|(?<![A-Za-z0-9]))\d{1,9}(?![A-Za-z0-9])"
)
_STAR = "*"

# Transformations of JAX around the scopes of the program, and what they make of control flow.
_TRANSFORMATION = re.compile(r"(?:jvp|transpose|vmap|pmap|remat|checkpoint|shard_map|custom_jvp|custom_vjp)\((.*)\)")
_OWN_FUNCTION = re.compile(r"p?jit\(.*\)")
_CONTROL = re.compile(
    r"while|body|cond|scan|branch_\d{1,9}_fun|closed_call|core_call|checkpoint|remat2?|rematted_computation|pjit|jit"
    r"|custom_jvp_call|custom_vjp_call|shard_map"
)
_SCOPE = re.compile(r"[\w.\-\[\]~<> ]{1,200}")


def fold(labels: Sequence[str]) -> list[str]:
    """Returns the labels with `*` for the numbers in which they differ and nothing else does.

    >>> fold(["layer_0/up", "layer_1/up", "layer_0/norm1", "layer_0/norm2", "head[0]"])
    ['layer_*/up', 'layer_*/up', 'layer_0/norm1', 'layer_0/norm2', 'head[0]']
    """
    numbers: dict[str, list[tuple[str, list[str]]]] = {}
    for label in dict.fromkeys(labels):
        found = _NUMBER.findall(label)
        if found:
            numbers.setdefault(_NUMBER.sub(_STAR, label), []).append((label, found))
    folded: dict[str, str] = {}
    for alike in numbers.values():
        differs = [len(set(column)) > 1 for column in zip(*(found for _, found in alike), strict=True)]
        for label, found in alike:
            parts = iter(_STAR if many else number for many, number in zip(differs, found, strict=True))
            folded[label] = _NUMBER.sub(lambda _, parts=parts: next(parts), label)  # type: ignore[misc]
    return [folded.get(label, label) for label in labels]


def scope_of(op_name: str) -> str:
    """Returns the named scopes in JAX's path of an operation: without its primitive and without transformations.

    >>> scope_of("jit(step)/transpose(jvp(Model))/layer_7/mlp/up/dot_general")
    'Model/layer_7/mlp/up'
    >>> scope_of("jit(step)/jvp()/while/body/mul"), scope_of("jit(step)/jvp(bhts,bshd->bthd)/dot_general")
    ('', '')
    """
    scopes = []
    for part in _parts(op_name)[:-1]:
        while (inner := _TRANSFORMATION.fullmatch(part)) is not None:
            part = inner[1]
        for scope in _parts(part):
            if _SCOPE.fullmatch(scope) and not _CONTROL.fullmatch(scope) and not _OWN_FUNCTION.fullmatch(scope):
                scopes.append(scope)
    return "/".join(scopes)


def _parts(path: str) -> list[str]:
    """Returns the parts of a path between the slashes that stand in no parentheses."""
    parts, depth, start = [], 0, 0
    for place, character in enumerate(path):
        if character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
        elif character == "/" and depth <= 0:
            parts.append(path[start:place])
            start = place + 1
    return [*parts, path[start:]]


def holder_of(argument: str) -> str:
    """Returns the part of an argument that holds an array: its name without the last key or attribute.

    >>> holder_of("params['blocks'][0]['mlp']['up']['w']"), holder_of("state.mu"), holder_of("tokens")
    ("params['blocks'][0]['mlp']['up']", 'state', 'tokens')
    """
    return _LAST_KEY.sub("", argument) or argument


def argument_of(name: str) -> str:
    """Returns the argument of the function that an array belongs to.

    >>> argument_of("opt_state[0].mu['layer_0']['w']"), argument_of("tokens")
    ('opt_state', 'tokens')
    """
    return re.split(r"[\[.]", name, maxsplit=1)[0] or name


_LAST_KEY = re.compile(r"(?:\[[^\[\]]*\]|\.\w+)$")
