"""Names and messages as a person may see them: what controls a terminal, or changes how a line reads, is escaped.

Names come from files, so they are data: `\\x1b[2J` would clear the screen, U+202E reverse the rest of the line, and a
line feed begin a line that seems to be ours. JSON, XML and CSV have escapes of their own.
"""

from __future__ import annotations

import contextlib
import os
import re

# Half of a message that is cut is its beginning, half its end.
_CUT = " … "

_PLAIN = re.compile(r"[ -~]*+")


def printable(text: str, keep: str = "", limit: int | None = None) -> str:
    """Returns a text without control characters, bidirectional controls, unpaired surrogates and the like.

    Each is replaced by its escape in Python. A text that was escaped before stays as it is.

    >>> print(printable("a\\x1b[2J\\u202eb\\n"))
    a\\x1b[2J\\u202eb\\n

    Args:
      text: the text.
      keep: characters that are not escaped, such as a line feed in a text of several lines.
      limit: the most characters that are returned, the rest is cut out in the middle; None for any number.
    """
    if limit is not None and len(text) > limit:
        half = (limit - len(_CUT)) // 2
        text = text[:half] + _CUT + text[-half:]
    if _PLAIN.fullmatch(text) or text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or character in keep
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def from_here(place: str) -> str:
    """Returns a file or a line of one as a person in the current folder names it: without that folder, if it is in it.

    >>> from_here(f"{os.getcwd()}/train.py:9"), from_here("/elsewhere/train.py:9"), from_here("f32[8]")
    ('train.py:9', '/elsewhere/train.py:9', 'f32[8]')
    """
    with contextlib.suppress(OSError):  # The folder may be gone.
        return place.removeprefix(os.getcwd() + os.sep)
    return place


def file_name(text: str, suffix: str = "") -> str:
    """Returns a name for a file in a folder of ours: any text becomes one that cannot leave the folder.

    >>> file_name("../a/b.tpu-v5e", ".plan.json"), file_name("jit_step.tpu-v5e")
    ('_._a_b.tpu-v5e.plan.json', 'jit_step.tpu-v5e')
    """
    name = re.sub(r"[^\w.\-+=@ ]", "_", text, flags=re.ASCII)[: 200 - len(suffix)]
    return ("_" + name[1:] if name[:1] in ("", ".") else name) + suffix
