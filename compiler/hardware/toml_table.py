"""Reading a TOML file key by key, with errors that name the file and the key."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from typing import Any

from memplan.compiler.errors import TargetError

_REQUIRED: Any = object()
# Rates, times and factors of hardware are far within these, and no arithmetic with such numbers overflows.
_SMALLEST, _LARGEST = 1e-30, 1e30
_MAX_INTEGER = 2**31
_MAX_TABLES = 64

_UNITS = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


class TomlTable:
    """A table of a TOML file that knows its place, and which of its keys were read."""

    def __init__(self, data: Mapping[str, Any], file: str, path: str):
        self.data, self.file, self.path = data, file, path
        self._known: set[str] = set()

    def error(self, key: str, message: str) -> TargetError:
        return TargetError(f"{self.file}: {self.path}{key}: {message}")

    def done(self) -> None:
        """Raises TargetError if there is a key that was not read."""
        for key in self.data:
            if key not in self._known:
                close = difflib.get_close_matches(key, self._known, 1)
                hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(self._known))}"
                raise self.error(key, f"unknown key; {hint}")

    def _get(self, key: str, default: Any) -> Any:
        self._known.add(key)
        if key in self.data:
            return self.data[key]
        if default is _REQUIRED:
            raise self.error(key, "is missing")
        return default

    def text(self, key: str, default: Any = _REQUIRED) -> str:
        value = self._get(key, default)
        if not isinstance(value, str) or (not value.strip() and key in self.data):
            raise self.error(key, f"must be a text that is not empty, not {_shown(value)}")
        return value

    def boolean(self, key: str, default: bool) -> bool:
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self.error(key, f"must be true or false, not {_shown(value)}")
        return value

    def number(self, key: str, default: Any = _REQUIRED, positive: bool = True) -> float:
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(key, f"must be a number, not {_shown(value)}")
        value = math.inf if isinstance(value, int) and abs(value) >= 2**1000 else float(value)
        if not math.isfinite(value) or value < 0.0 or (positive and value == 0.0):
            raise self.error(key, f"must be {'positive' if positive else 'zero or more'} and finite, not {value:g}")
        if value != 0.0 and not _SMALLEST <= value <= _LARGEST:
            raise self.error(key, f"must be from {_SMALLEST:g} to {_LARGEST:g}, not {value:g}")
        return value

    def integer(self, key: str, default: Any = _REQUIRED, minimum: int = 0, below: int = 2**62) -> Any:
        value = self._get(key, default)
        if value is default and key not in self.data:
            return value
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise self.error(key, f"must be an integer of at least {minimum}, not {_shown(value)}")
        if value >= below:
            raise self.error(key, f"must be an integer below {below:,}, not {_shown(value)}")
        return value

    def integers(self, key: str, default: list[int]) -> list[int]:
        value = self._get(key, default)
        if not isinstance(value, list) or any(isinstance(item, bool) or not isinstance(item, int) for item in value):
            raise self.error(key, f"must be a list of integers, not {_shown(value)}")
        if any(abs(item) >= _MAX_INTEGER for item in value):
            raise self.error(key, "must be integers below 2^31")
        return value

    def size(self, key: str, default: Any = _REQUIRED) -> int:
        """Reads bytes: an integer, or a text such as `"16 GiB"`."""
        value = self._get(key, default)
        if isinstance(value, str):
            match = re.fullmatch(r"(\d{1,18}(?:\.\d{1,6})?) *(KiB|MiB|GiB|TiB|)", value)
            if match is None:
                raise self.error(key, f'must be bytes, as an integer or like "16 GiB", not {value!r}')
            value = round(float(match[1]) * _UNITS[match[2]]) if "." in match[1] else int(match[1]) * _UNITS[match[2]]
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error(key, f'must be bytes, as an integer or like "16 GiB", not {value!r}')
        if not 0 <= value < 2**62 or (default is _REQUIRED and value == 0):
            raise self.error(key, f"must be a positive number of bytes below 2^62, not {_shown(value)}")
        return value

    def table(self, key: str) -> TomlTable:
        value = self._get(key, {})
        if not isinstance(value, dict):
            raise self.error(key, "must be a table")
        return TomlTable(value, self.file, f"{self.path}{key}.")

    def tables(self, key: str, at_least: int = 0) -> list[TomlTable]:
        value = self._get(key, [])
        if not isinstance(value, list) or any(not isinstance(item, dict) for item in value):
            raise self.error(key, f"must be tables, written as [[{key}]]")
        if len(value) < at_least:
            raise self.error(key, f"is missing: a target has at least {at_least} of them")
        if len(value) > _MAX_TABLES:
            raise self.error(key, f"there are {len(value)} of them, more than {_MAX_TABLES}")
        return [TomlTable(item, self.file, f"{self.path}{key}[{number}].") for number, item in enumerate(value)]


def _shown(value: Any) -> str:
    """Returns a value for a message, cut."""
    try:
        return f"{value!r:.60}"
    except ValueError:  # a number of thousands of digits
        return "a number of thousands of digits"
