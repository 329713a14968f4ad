"""What plans and problems have in common as JSON: how a text is read, and how its values are checked.

A check is a function that accepts a value or raises `Mismatch`. Checks are combined as the document nests, and the
mismatch collects the path of the value on its way out:

    rows(row(name=text, size=integer(0)))     "buffers[3].size: expected an integer of at least 0, found 'x'"
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from memplan.compiler.errors import PlanError

Check = Callable[[Any], None]

_INT64 = 2**63

# Of what a document says beyond its fixed fields.
MAX_DEPTH = 32


def parse_json(text: str, file: str) -> Any:
    """Returns the value of a JSON text; raises PlanError, naming the place, if it is none.

    `NaN` and `Infinity` are refused: they are no JSON, although Python writes and reads them.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise PlanError(f"{file}:{error.lineno}:{error.colno}: not JSON: {error.msg}") from None
    except ValueError as error:  # a number of thousands of digits, or one that is not finite
        raise PlanError(f"{file}: not JSON that can be read: {error}") from None
    except RecursionError:
        raise PlanError(f"{file}: the JSON is nested too deeply") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def document_of(data: Any, kind: str, schema: str, file: str) -> dict[str, Any]:
    """Returns `data` if it is a document of this schema; raises PlanError, naming the kind expected, if it is not."""
    if not isinstance(data, dict) or data.get("schema") != schema:
        raise PlanError(f"{file}: not a {kind} of schema {schema}")
    return data


def check_fields(data: dict[str, Any], file: str, **checks: Check) -> None:
    """Checks the fields of a document; raises PlanError that names the file and the path of the first wrong value."""
    for name, check in checks.items():
        if name not in data:
            raise PlanError(f"{file}: the field {name!r} is missing")
        try:
            check(data[name])
        except Mismatch as mismatch:
            raise PlanError(f"{file}: {name}{mismatch.path}: {mismatch}") from None


class Mismatch(Exception):
    """A value that is not what its place in a document asks for.

    Attributes:
      path: from the value that was checked to the wrong one, such as `[3].size`.
    """

    def __init__(self, expected: str, found: Any):
        super().__init__(f"expected {expected}, found {_excerpt(found)}")
        self.path = ""

    def below(self, step: str) -> Mismatch:
        """Returns the mismatch as seen from the value around it."""
        self.path = step + self.path
        return self


def _excerpt(value: Any) -> str:
    if isinstance(value, list | dict):
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value):,} entries"
    if isinstance(value, int) and abs(value) >= _INT64:
        return "an integer beyond 64 bits"
    return f"{json.dumps(value):.60}"


def anything(value: Any) -> None:
    """Accepts any value."""


def text(value: Any) -> None:
    """Accepts a string that can be written as UTF-8."""
    if type(value) is not str:
        raise Mismatch("a string", value)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Mismatch("a string without lone surrogates", value) from None


def fields(value: Any) -> None:
    """Accepts an object of any content that nests at most `MAX_DEPTH` deep."""
    if type(value) is not dict:
        raise Mismatch("an object", value)
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        inner = [entry for one in level for entry in (one.values() if isinstance(one, dict) else one)]
        level = [entry for entry in inner if isinstance(entry, list | dict)]
        if not level:
            return
    raise Mismatch(f"values that nest at most {MAX_DEPTH} deep", value)


def mapping(check: Check) -> Check:
    """Returns a check for an object of any keys, whose values another check accepts."""

    def check_mapping(value: Any) -> None:
        if type(value) is not dict:
            raise Mismatch("an object", value)
        for key, entry in value.items():
            try:
                text(key)
                check(entry)
            except Mismatch as mismatch:
                raise mismatch.below(f"[{json.dumps(key)}]") from None

    return check_mapping


def record(**checks: Check) -> Check:
    """Returns a check for an object of exactly some keys, one check each."""
    expected = f"an object of the fields {', '.join(checks)}"

    def check_record(value: Any) -> None:
        if type(value) is not dict or value.keys() != checks.keys():
            raise Mismatch(expected, value)
        _check_named(checks, [value[name] for name in checks])

    return check_record


def boolean(value: Any) -> None:
    """Accepts true and false."""
    if type(value) is not bool:
        raise Mismatch("true or false", value)


def integer(at_least: int = -_INT64, below: int = _INT64) -> Check:
    """Returns a check for an integer in `[at_least, below)`, by default any of 64 bits."""
    if below < _INT64:
        expected = f"an integer from {at_least:,} to {below - 1:,}"
    else:
        expected = "an integer of 64 bits" if at_least == -_INT64 else f"an integer of at least {at_least:,}"

    def check(value: Any) -> None:
        if type(value) is not int or not at_least <= value < below:
            raise Mismatch(expected, value)

    return check


def number(at_least: float = -math.inf, above: float = -math.inf, at_most: float = math.inf) -> Check:
    """Returns a check for a finite number, or an integer that a float can hold, in `[at_least, at_most]`."""
    expected = "a finite number"
    expected += (
        f" above {above:g}" if above > -math.inf else f" of at least {at_least:g}" if at_least > -math.inf else ""
    )
    expected += f" and at most {at_most:g}" if at_most < math.inf else ""

    def check(value: Any) -> None:
        if type(value) is int and -_INT64 <= value < _INT64:
            value = float(value)
        if type(value) is not float or not math.isfinite(value) or not at_least <= value <= at_most or value <= above:
            raise Mismatch(expected, value)

    return check


def one_of(values: Collection[str]) -> Check:
    """Returns a check for one of some strings."""
    expected = f"one of {', '.join(sorted(values))}"

    def check(value: Any) -> None:
        if type(value) is not str or value not in values:
            raise Mismatch(expected, value)

    return check


def optional(check: Check) -> Check:
    """Returns a check for null, or what another check accepts."""

    def check_optional(value: Any) -> None:
        if value is not None:
            check(value)

    return check_optional


def rows(check: Check, length: int | None = None, at_least: int = 0, at_most: int = _INT64) -> Check:
    """Returns a check for a list, of a given length or a length in `[at_least, at_most]`, of what a check accepts."""
    if length is not None:
        at_least = at_most = length
    expected = "a list"
    if at_least == at_most:
        expected += f" of {at_least} entries"
    elif at_least or at_most < _INT64:
        expected += f" of {at_least} to {at_most} entries" if at_most < _INT64 else f" of at least {at_least} entries"

    def check_rows(value: Any) -> None:
        if type(value) is not list or not at_least <= len(value) <= at_most:
            raise Mismatch(expected, value)
        for i, entry in enumerate(value):
            try:
                check(entry)
            except Mismatch as mismatch:
                raise mismatch.below(f"[{i}]") from None

    return check_rows


def row(**checks: Check) -> Check:
    """Returns a check for a list with one entry per check, in their order; messages name an entry by its check."""
    expected = f"a list of {len(checks)} entries ({', '.join(checks)})"

    def check_row(value: Any) -> None:
        if type(value) is not list or len(value) != len(checks):
            raise Mismatch(expected, value)
        _check_named(checks, value)

    return check_row


def _check_named(checks: Mapping[str, Check], values: Sequence[Any]) -> None:
    """Checks one value by each check, in their order."""
    for (name, check), value in zip(checks.items(), values, strict=True):
        try:
            check(value)
        except Mismatch as mismatch:
            raise mismatch.below(f".{name}") from None
