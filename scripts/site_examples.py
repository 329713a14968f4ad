"""Shows the examples in docstrings as code on the documentation site: an extension of griffe."""

from __future__ import annotations

import re
from typing import Any

import griffe

# From the first prompt to the next empty line.
_EXAMPLE = re.compile(r"(?m)^>>> (?:.+\n?)+")


class ExamplesAsCode(griffe.Extension):
    """Fences the examples, which docstrings hold bare so that doctest finds them."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Changes the docstring of a module, class or function."""
        if obj.docstring is not None:
            obj.docstring.value = _EXAMPLE.sub(_fenced, obj.docstring.value)


def _fenced(match: re.Match[str]) -> str:
    return f"```python\n{match[0].rstrip()}\n```\n"
