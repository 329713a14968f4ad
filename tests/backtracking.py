"""A plain matcher for the trees of `re`, to say what an expression means whatever the interpreter's own matcher does.

It follows the definition word by word: alternatives from left to right, greedy repeats longest first, what is
possessive or atomic never entered again. It counts its steps, so a test can compare the work on short and long texts.
"""

from __future__ import annotations

import re._constants as sre  # type: ignore[import-untyped]
import re._parser as sre_parser  # type: ignore[import-untyped]
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from re import RegexFlag
from typing import Any

Text = str | bytes
Spans = tuple[tuple[int, int], ...]
# What is left to match, from a position and the groups' spans on; returns where it ends and the groups, or None.
Rest = Callable[[int, dict[int, tuple[int, int]]], tuple[int, dict[int, tuple[int, int]]] | None]

SINGLE = {sre.LITERAL, sre.NOT_LITERAL, sre.ANY, sre.IN}
REPEATS = {sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT}


def is_single(tree: Any) -> bool:
    """Tells whether a tree matches exactly one character, without a choice and without a group."""
    return len(tree) == 1 and tree[0][0] in SINGLE


def subtrees(tree: Any) -> list[Any]:
    """Returns the nodes `(operator, arguments)` of a tree, with those inside of them."""
    found = []
    for operator, arguments in tree:
        found.append((operator, arguments))
        parts = arguments[1] if operator is sre.BRANCH else arguments if isinstance(arguments, tuple) else [arguments]
        for part in parts:
            if isinstance(part, sre_parser.SubPattern):
                found += subtrees(part)
    return found


@dataclass
class Matcher:
    """One expression.

    Attributes:
      gives_back: whether a group that repeats, or may be missing, can give up a pass; if not, it is taken for possessive.
      steps: nodes and characters looked at so far.
      limit: raises OverflowError after so many.
    """

    pattern: Text
    flags: int = 0
    gives_back: bool = True
    limit: int = sys.maxsize
    steps: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.tree = sre_parser.parse(self.pattern, self.flags)

    def match(self, text: Text) -> Spans | None:
        """Returns the spans of the match at the start of `text` and of its groups, (-1, -1) for one that is missing."""
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(100_000)
        try:
            found = self._sequence(self.tree, 0, text, 0, {}, self.tree.state.flags, lambda at, groups: (at, groups))
        finally:
            sys.setrecursionlimit(limit)
        if found is None:
            return None
        end, groups = found
        return ((0, end), *(groups.get(i, (-1, -1)) for i in range(1, self.tree.state.groups)))

    def _sequence(self, tree: Any, index: int, text: Text, at: int, groups: Any, flags: int, rest: Rest) -> Any:
        if index == len(tree):
            return rest(at, groups)
        self._step()
        operator, arguments = tree[index]

        def after(end: int, found: Any) -> Any:
            return self._sequence(tree, index + 1, text, end, found, flags, rest)

        if operator in SINGLE:
            return after(at + 1, groups) if at < len(text) and fits(operator, arguments, text, at, flags) else None
        if operator is sre.AT:
            return after(at, groups) if _stands(arguments, text, at, flags) else None
        if operator is sre.BRANCH:
            for alternative in arguments[1]:
                if (found := self._sequence(alternative, 0, text, at, groups, flags, after)) is not None:
                    return found
            return None
        if operator is sre.SUBPATTERN:
            group, added, removed, inner = arguments
            close = after if group is None else lambda end, found: after(end, {**found, group: (at, end)})
            return self._sequence(inner, 0, text, at, groups, flags & ~removed | added, close)
        if operator in (sre.ASSERT, sre.ASSERT_NOT):
            direction, inner = arguments
            start = at if direction > 0 else at - inner.getwidth()[0]
            found = self._alone(inner, text, start, groups, flags) if start >= 0 else None
            if operator is sre.ASSERT_NOT:
                return after(at, groups) if found is None else None
            return None if found is None else after(at, found[1])
        if operator is sre.ATOMIC_GROUP:
            found = self._alone(arguments, text, at, groups, flags)
            return None if found is None else after(*found)
        if operator in REPEATS:
            return self._repeat(operator, arguments, text, at, groups, flags, after)
        raise NotImplementedError(operator)

    def _step(self) -> None:
        self.steps += 1
        if self.steps > self.limit:
            raise OverflowError(f"more than {self.limit} steps")

    def _alone(self, tree: Any, text: Text, at: int, groups: Any, flags: int) -> Any:
        return self._sequence(tree, 0, text, at, groups, flags, lambda end, found: (end, found))

    def _repeat(self, operator: Any, arguments: Any, text: Text, at: int, groups: Any, flags: int, after: Rest) -> Any:
        low, high, inner = arguments
        high = sys.maxsize if high is sre.MAXREPEAT else high
        single = is_single(inner)
        if operator is sre.POSSESSIVE_REPEAT or (operator is sre.MAX_REPEAT and not (self.gives_back or single)):
            return self._possessive(low, high, inner, text, at, groups, flags, after)
        if single:
            return self._run(operator, low, high, inner, text, at, groups, flags, after)
        lazy = operator is sre.MIN_REPEAT

        def passes(count: int, start: int, found: Any) -> Any:
            def again(end: int, inside: Any) -> Any:
                return None if end == start and count >= low else passes(count + 1, end, inside)

            if lazy and count >= low and (done := after(start, found)) is not None:
                return done
            if count < high and (done := self._sequence(inner, 0, text, start, found, flags, again)) is not None:
                return done
            return after(start, found) if count >= low and not lazy else None

        return passes(0, at, groups)

    def _possessive(
        self, low: int, high: int, inner: Any, text: Text, at: int, groups: Any, flags: int, after: Rest
    ) -> Any:
        count = 0
        while count < high:
            found = self._alone(inner, text, at, groups, flags)
            if found is None or (found[0] == at and count >= low):
                break
            (at, groups), count = found, count + 1
        return after(at, groups) if count >= low else None

    def _run(
        self, operator: Any, low: int, high: int, inner: Any, text: Text, at: int, groups: Any, flags: int, after: Rest
    ) -> Any:
        count = 0
        while count < high and at + count < len(text) and fits(*inner[0], text, at + count, flags):
            self._step()
            count += 1
        if count < low:
            return None
        lengths = range(low, count + 1) if operator is sre.MIN_REPEAT else range(count, low - 1, -1)
        for length in lengths:
            if (found := after(at + length, groups)) is not None:
                return found
        return None


def fits(operator: Any, argument: Any, text: Text, at: int, flags: int) -> bool:
    """Tells whether one character is what the operator asks for."""
    code = text[at] if isinstance(text, bytes) else ord(text[at])
    if operator is sre.ANY:
        return code != 10 or bool(flags & RegexFlag.DOTALL)
    if operator is sre.LITERAL:
        return bool(code == argument)
    if operator is sre.NOT_LITERAL:
        return bool(code != argument)
    if operator is sre.RANGE:
        return bool(argument[0] <= code <= argument[1])
    if operator is sre.CATEGORY:
        return _is_in(argument, chr(code), isinstance(text, bytes))
    negated = argument[0][0] is sre.NEGATE
    return negated != any(fits(*item, text, at, flags) for item in argument[negated:])


def _is_in(category: Any, character: str, is_ascii: bool) -> bool:
    name = str(category).removeprefix("CATEGORY_")
    kind = name.removeprefix("NOT_")
    if is_ascii and ord(character) > 127:
        found = False
    elif kind == "DIGIT":
        found = character.isdecimal()
    elif kind == "SPACE":
        found = character.isspace() and not (is_ascii and "\x1c" <= character <= "\x1f")
    elif kind == "WORD":
        found = character.isalnum() or character == "_"
    else:
        raise NotImplementedError(category)
    return found != (kind != name)


def _stands(place: Any, text: Text, at: int, flags: int) -> bool:
    newline = b"\n" if isinstance(text, bytes) else "\n"
    many = bool(flags & RegexFlag.MULTILINE)
    if place in (sre.AT_BEGINNING, sre.AT_BEGINNING_STRING):
        after_line = place is sre.AT_BEGINNING and many and at > 0 and text[at - 1 : at] == newline
        return at == 0 or after_line
    if place is sre.AT_END:
        return at == len(text) or (text[at : at + 1] == newline and (many or at + 1 == len(text)))
    if place is sre.AT_END_STRING:
        return at == len(text)
    if place in (sre.AT_BOUNDARY, sre.AT_NON_BOUNDARY):
        sides = [0 <= i < len(text) and fits(sre.CATEGORY, sre.CATEGORY_WORD, text, i, flags) for i in (at - 1, at)]
        return (sides[0] != sides[1]) == (place is sre.AT_BOUNDARY)
    raise NotImplementedError(place)
