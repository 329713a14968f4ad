"""Offsets as a C header, for programs that keep their buffers in one static arena.

    #define MODEL_SIZE 12UL
    #define MODEL_OFFSET_B1 8UL
    #define MODEL_SIZE_B1 4UL

The header is valid C89 and C++98 and whatever follows them. If it is compiled with a capacity, an assertion at compile
time demands that the arena is within it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import PurePath

import numpy as np

from memplan.planners.offsets.instance import LARGEST, Instance, InstanceError, Integers

# The longest part of an identifier that is made of a name.
_MOST_CHARACTERS = 48

# The prefix where the name of the file gives none.
_ARENA = "ARENA"

_ASSERTION = """\
#ifdef {prefix}_CAPACITY
#if defined(__cplusplus) && __cplusplus >= 201103L
static_assert({prefix}_SIZE <= {prefix}_CAPACITY, "{prefix}_SIZE is over {prefix}_CAPACITY");
#elif !defined(__cplusplus) && defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
_Static_assert({prefix}_SIZE <= {prefix}_CAPACITY, "{prefix}_SIZE is over {prefix}_CAPACITY");
#else
typedef char {prefix}_SIZE_is_within_{prefix}_CAPACITY[({prefix}_SIZE <= {prefix}_CAPACITY) ? 1 : -1];
#endif
#endif
"""


def c_header(instance: Instance, offsets: Integers, capacity: int | None = None, file: str = "") -> str:
    """Returns the text of a header with the offset and the size of each block, and with what the arena takes.

    The macros are `P_OFFSET_B` and `P_SIZE_B` for a block B, `P_SIZE` for the arena, `P_ALIGNMENT` for the number of
    bytes that the address of the arena must be a multiple of, and `P_CAPACITY` for the capacity, which the compiler's
    options may replace. P is made of the name of the header, and B of the block's id: letters are made capital, all but
    ASCII letters and digits become underscores, and a number follows where two names would be the same.

    Args:
      instance: what was packed.
      offsets: `[num_blocks]` bytes.
      capacity: bytes that the arena must be within, if it is known.
      file: name of the header; without one, P is ARENA.

    Raises:
      InstanceError: the alignments have no common multiple of at most 2**61 bytes.
    """
    alignment = math.lcm(*instance.alignment.tolist())
    if alignment > LARGEST:
        raise InstanceError(f"the alignments have no common multiple of at most {LARGEST:,} bytes")
    prefix = _prefix(file)
    height = int(np.max(offsets + instance.size, initial=0))
    lines = [
        f"/* Offsets of {len(instance)} buffers in one arena, in bytes, as memplan packed them. */",
        f"#ifndef {prefix}_H",
        f"#define {prefix}_H",
        "",
        "/* The bytes of the arena, and what its address must be a multiple of. */",
        f"#define {prefix}_SIZE {height}UL",
        f"#define {prefix}_ALIGNMENT {alignment}UL",
        "",
    ]
    if capacity is not None:
        lines += [f"#ifndef {prefix}_CAPACITY", f"#define {prefix}_CAPACITY {capacity}UL", "#endif"]
    lines += [_ASSERTION.format(prefix=prefix)]
    for name, own_id, offset, size in zip(
        identifiers(instance.ids), instance.ids, offsets.tolist(), instance.size.tolist(), strict=True
    ):
        lines += [
            f"#define {prefix}_OFFSET_{name} {offset}UL{_remark(own_id, name)}",
            f"#define {prefix}_SIZE_{name} {size}UL",
        ]
    return "\n".join([*lines, "", "#endif", ""])


def identifiers(ids: Iterable[str]) -> list[str]:
    """Returns parts of C identifiers, all different, for some texts."""
    taken: set[str] = set()
    numbers: dict[str, int] = {}
    made = []
    for text in ids:
        base = name = _sanitized(text) or "BUFFER"
        while name in taken:
            numbers[base] = numbers.get(base, 1) + 1
            name = f"{base}_{numbers[base]}"
        taken.add(name)
        made.append(name)
    return made


def _sanitized(text: str) -> str:
    # Identifiers with two underscores side by side are reserved in C++.
    return re.sub(r"[^0-9A-Za-z]+", "_", text)[:_MOST_CHARACTERS].strip("_").upper()


def _prefix(file: str) -> str:
    name = _sanitized(PurePath(file).name.partition(".")[0])
    # No identifier begins with a digit.
    return name if name and not name[0].isdigit() else f"{_ARENA}_{name}".rstrip("_")


def _remark(text: str, name: str) -> str:
    """Returns a comment with the id, where it differs from the name and no character of it could end the comment."""
    if text.upper() == name or not re.fullmatch(r"[\w .:,;%@#$=()\[\]-]{1,200}", text, re.ASCII):
        return ""
    return f" /* {text} */"
