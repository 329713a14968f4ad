"""Finds every regular expression of the project in its sources, and texts that look like what an expression matches."""

from __future__ import annotations

import ast
import importlib
import random
import re
import re._constants as sre  # type: ignore[import-untyped]
import re._parser as sre_parser  # type: ignore[import-untyped]
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backtracking import REPEATS, SINGLE, fits, subtrees

ROOT = Path(__file__).parent.parent
FUNCTIONS = {"compile", "match", "fullmatch", "search", "split", "findall", "finditer", "sub", "subn"}

# What stands where a value is put into an expression that is not known before the program runs.
PLACEHOLDER = "x"


@dataclass(frozen=True)
class Expression:
    """A call of `re` that takes an expression.

    Attributes:
      place: `file:line`.
    """

    place: str
    pattern: str | bytes
    flags: int = 0


def python_files() -> list[Path]:
    """Returns the Python sources of the project; scripts have no ending that tells."""
    folders = [folder for folder in ROOT.iterdir() if folder.is_dir() and not folder.name.startswith(".")]
    found = []
    for path in sorted(path for folder in folders for path in folder.rglob("*")):
        if path.name == "test_regular_expressions.py":  # compiles what this module finds
            continue
        is_script = path.is_file() and not path.suffix and b"python" in path.read_bytes()[:64].partition(b"\n")[0]
        if path.suffix == ".py" or is_script:
            found.append(path)
    return found


def expressions() -> list[Expression]:
    """Returns every expression; raises ValueError for one whose text cannot be told from the sources."""
    return [expression for path in python_files() for expression in _expressions_of(path)]


def _expressions_of(path: Path) -> Iterator[Expression]:
    source = path.read_text()
    if not re.search(r"\bre\b", source):
        return
    tree = ast.parse(source)
    names = _Names(tree)
    file = path.relative_to(ROOT)
    for node in ast.walk(tree):
        place = f"{file}:{getattr(node, 'lineno', 0)}"
        if (
            isinstance(node, ast.ImportFrom)
            and node.module == "re"
            and {alias.name for alias in node.names} & FUNCTIONS
        ):
            raise ValueError(f"{place}: call it re.{node.names[0].name}, so that the expression is found")
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in FUNCTIONS):
            continue
        if not (isinstance(node.func.value, ast.Name) and node.func.value.id == "re"):
            continue
        flags = [keyword.value for keyword in node.keywords if keyword.arg == "flags"]
        if node.func.attr == "compile":
            flags += node.args[1:]
        pattern = names.value(node.args[0])
        if not isinstance(pattern, str | bytes):
            raise ValueError(f"{place}: the expression cannot be told from the source")
        yield Expression(place, pattern, int(names.value(flags[0])) if flags else 0)


class _Names:
    """The names of one source at its top level; each is evaluated when an expression needs it."""

    def __init__(self, tree: ast.Module):
        self.known: dict[str, Any] = {"re": re}
        self.definitions: dict[str, ast.stmt] = {}
        for statement in tree.body:
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                self.definitions[statement.targets[0].id] = statement
            elif isinstance(statement, ast.FunctionDef):
                self.definitions[statement.name] = statement
            elif isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith("memplan"):
                self.definitions |= {alias.asname or alias.name: statement for alias in statement.names}

    def value(self, node: ast.expr) -> Any:
        """Returns what an expression of Python amounts to; what only the running program knows is the placeholder."""
        if isinstance(node, ast.JoinedStr):
            return "".join(str(self.value(part)) for part in node.values)
        if isinstance(node, ast.FormattedValue):
            try:
                return self.value(node.value)
            except NameError:
                return PLACEHOLDER
        for name in [part.id for part in ast.walk(node) if isinstance(part, ast.Name)]:
            self._define(name)
        return eval(compile(ast.Expression(node), "<expression>", "eval"), self.known)

    def _define(self, name: str) -> None:
        statement = self.definitions.get(name)
        if name in self.known or statement is None:
            return
        if isinstance(statement, ast.ImportFrom):
            assert statement.module
            self.known[name] = getattr(importlib.import_module(statement.module), name)
            return
        for part in ast.walk(statement):
            if isinstance(part, ast.Name) and part.id != name:
                self._define(part.id)
        exec(compile(ast.Module([statement], []), "<definition>", "exec"), self.known)


# What matters to a reader of HLO, JSON, comments and numbers; not all white space and digits are ASCII.
CHARACTERS = "{}()[]<>\"'\\/*,:;=%#@?|.+-_ \t\n0123456789abzAZROOTENTRYé\u3000\u0663"
PIECES = ["/*", "*/", "/*i=5*/", "//", '\\"', "{}", "()", "[]", "{{", "((", "ROOT ", "f32[8]{0}", "**", ", ", "\n"]


def texts(expression: Expression, number: int, seed: int) -> list[Any]:
    """Returns texts that match the expression, damaged ones, ones with a part repeated, and noise."""
    chance = random.Random(f"{seed} {expression.pattern!r}")
    tree = sre_parser.parse(expression.pattern, expression.flags)
    found = []
    for _ in range(number):
        text = _Sampler(chance, chance.choice((0.0, 0.0, 0.1))).text(tree) if chance.random() < 0.9 else ""
        for _ in range(chance.choice((0, 0, 1, 1, 2, 4))):
            at = chance.randint(0, len(text))
            if chance.random() < 0.4:
                part = text[at : at + chance.randint(1, 8)]
                text = text[:at] + part * chance.randint(1, 3) + text[at:]
            else:
                added = chance.choice(PIECES) if chance.random() < 0.4 else chance.choice(CHARACTERS)
                text = text[:at] + added + text[at + chance.randint(0, 2) :]
        found.append(text.encode("latin-1", "replace") if isinstance(expression.pattern, bytes) else text)
    return found


def pumped(expression: Expression, number: int, times: tuple[int, ...], seed: int) -> Iterator[list[Any]]:
    """Yields texts that differ only in how often one repeat of the expression passes, and that fail at their end."""
    chance = random.Random(f"{seed} {expression.pattern!r}")
    tree = sre_parser.parse(expression.pattern, expression.flags)
    repeats = [arguments for operator, arguments in subtrees(tree) if operator in REPEATS]
    for _ in range(number if repeats else 0):
        repeat, draw, ending = chance.choice(repeats), chance.random(), chance.choice(("", "\0"))
        found = [_Sampler(random.Random(draw), 0.0, repeat, count).text(tree)[:-1] + ending for count in times]
        yield [text.encode("latin-1", "replace") if isinstance(expression.pattern, bytes) else text for text in found]


def _holds(tree: Any, repeat: Any) -> bool:
    return any(arguments is repeat for _, arguments in subtrees(tree))


@dataclass
class _Sampler:
    """Draws texts that a tree is likely to match; lookarounds are left out.

    Attributes:
      missing: how likely a part of an expression is left out.
      repeat: arguments of the repeat that passes `times` times; the others then pass seldom.
    """

    chance: random.Random
    missing: float = 0.0
    repeat: Any = None
    times: int = 0

    def text(self, tree: Any) -> str:
        return "".join(self._node(operator, arguments) for operator, arguments in tree)

    def _node(self, operator: Any, arguments: Any) -> str:
        if self.missing and self.chance.random() < self.missing:
            return ""
        if operator is sre.BRANCH:
            holding = [alternative for alternative in arguments[1] if _holds(alternative, self.repeat)]
            return self.text(self.chance.choice(holding or arguments[1]))
        if operator is sre.SUBPATTERN:
            return self.text(arguments[3])
        if operator in REPEATS:
            low, high, inner = arguments
            if arguments is self.repeat:
                return self.text(inner) * min(high, self.times)
            if _holds(inner, self.repeat):
                return self.text(inner)
            few = (0, 0, 1, 2) if self.repeat else (0, 1, 1, 2, 4)
            return "".join(self.text(inner) for _ in range(min(high, low + self.chance.choice(few))))
        if operator is sre.LITERAL:
            return chr(arguments)
        return _one(operator, arguments, self.chance) if operator in SINGLE else ""


def _one(operator: Any, arguments: Any, chance: random.Random) -> str:
    """Returns a character that a set allows, drawn from those that matter where some do."""
    every = [chr(code) for code in range(32, 256)]
    for characters in (CHARACTERS, every):
        if allowed := [character for character in characters if fits(operator, arguments, character, 0, 0)]:
            return chance.choice(allowed)
    raise NotImplementedError(arguments)
