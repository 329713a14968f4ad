"""Memory limits as people write them, and the bound of batches."""

from __future__ import annotations

import re
from typing import Any

from memplan.compiler.errors import MemplanError

_UNITS = {"": 1, "B": 1}
_UNITS |= {f"{letter}iB": 1024**power for power, letter in enumerate("KMGT", 1)}
_UNITS |= {f"{letter}B": 1000**power for power, letter in enumerate("kMGT", 1)}
_LIMIT = re.compile(r"(\d{1,18}(?:\.\d{1,6})?) ?([kKMGT]?i?B?)")
_LARGEST = 2**60

# No larger batch is tried if no bound is given.
LARGEST_BATCH = 2**20


def limit_of(given: Any) -> int:
    """Returns a limit in bytes: an integer, or a text such as `"12GiB"`, `"500 MB"` or `"1.5GiB"`.

    >>> limit_of("12GiB"), limit_of("1.5 kB"), limit_of(4096)
    (12884901888, 1500, 4096)

    Raises:
      MemplanError: it is no positive number of bytes.
    """
    size = given
    if isinstance(given, str) and (match := _LIMIT.fullmatch(given.strip())) and match[2] in _UNITS:
        size = round(float(match[1]) * _UNITS[match[2]]) if "." in match[1] else int(match[1]) * _UNITS[match[2]]
    if isinstance(size, bool) or not isinstance(size, int):
        raise MemplanError(f'a memory limit must be bytes, as an integer or like "12GiB", not {given!r:.60}')
    if not 0 < size < _LARGEST:
        raise MemplanError(f"a memory limit must be more than 0 and less than 2^60 bytes, not {given!r:.60}")
    return size
