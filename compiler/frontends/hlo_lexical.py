"""The lexical grammar of HLO text: what a name, a comment, a shape and an attribute's value look like.

Regular expressions read the common case at C speed. What they cannot match (deep nesting) is left to `end_of_value`,
a plain scanner. Both are linear in the length of the text, because of two rules that every expression here keeps:

- A run of single characters is possessive (`[^"]*+`), so no part of it is given back.
- A group that repeats (`(?:…)*`) is greedy, and what may follow the group never begins as a pass of the group does.
  When the rest of the expression fails, each pass is given back once, and what follows fails there at its first
  character. The result is that of a possessive group.

A possessive group would say the same in fewer words, but CPython before 3.11.5 matches it wrongly (gh-106052).
"""

from __future__ import annotations

import re

from memplan.compiler.ir.names import CONTROL, without_controls


class MalformedText(Exception):
    """Text that breaks the grammar, before the file and the line are known.

    Attributes:
      message: what is wrong.
      offset: where, in characters from the start of the text.
    """

    def __init__(self, message: str, offset: int):
        super().__init__(message)
        self.message, self.offset = message, offset


STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*"'
NAME = r"[\w.\-]++"
# What separates tokens: white space and comments.
COMMENT = r"/(?:\*[^*]*+\*++(?:[^/*][^*]*+\*++)*/|/[^\n]*+)"
SPACE = rf"\s*+(?:{COMMENT}\s*+)*"
# An array, a token, or a tuple whose elements are arrays or tuples of arrays; deeper ones are left to the scanner.
_INNER_TUPLE = r"\([^()]*+(?:\([^()]*+\)[^()]*+)*\)"
SHAPE = rf"(?:[a-z]\w*+\[[^\]]*+\](?:\{{[^{{}}]*+\}})?|\([^()]*+(?:{_INNER_TUPLE}[^()]*+)*\))"


def _nested(opening: str, closing: str, depth: int) -> str:
    """Returns a pattern of balanced brackets, nested at most `depth` deep; strings inside may hold brackets."""
    plain = rf'[^\{opening}\{closing}"]*+'
    inner = STRING
    for _ in range(depth):
        pattern = rf"\{opening}{plain}(?:{inner}{plain})*\{closing}"
        inner = f"(?:{STRING}|{pattern})"
    return pattern


# What continues a value may stand apart from what it belongs to: `mesh['a'=2] {'a'}`, `[2,4] <= [8] T(1,0)`. An
# instruction or an attribute begins with none of these.
BARE = r'[^\s,{}()\[\]"/]++|/(?![*/])|\s++(?=[{(\[<]|T\s*+\()'
VALUE = f"(?:{BARE}|{STRING}|{_nested('{', '}', 8)}|{_nested('(', ')', 3)}|{_nested('[', ']', 3)})+"

_OPENING = {"{": "}", "(": ")", "[": "]"}
_BRACKET_OR_STRING = re.compile(rf'[(){{}}\[\]]|{STRING}|"|/\*')

# XLA's own marks, which stand only between operands, between the elements of a tuple's shape, and in literals.
_UNUSUAL_COMMENT = re.compile(r"/(?:/|\*(?!(?:index|i\d{1,9})=\d{1,19}\*/))")
# What never ends is passed over as a whole, so that each character is looked at once.
_COMMENT_OR_STRING = re.compile(rf"{STRING}|'[^'\\\n]*+(?:\\.[^'\\\n]*+)*'|({COMMENT})|\"(?s:.*+)|'[^\n]*+|/\*(?s:.*+)")
_VISIBLE = re.compile(r"[^\n]")


def without_comments(text: str) -> str:
    """Returns a text with blanks in place of its comments, so that every offset means what it did.

    Comments may stand between any two tokens. The marks that XLA prints stay as they are.

    >>> without_comments('f32[/*rows*/8] "//" // end')
    'f32[        8] "//"       '
    """
    if _UNUSUAL_COMMENT.search(text) is None:
        return text

    def replacement(match: re.Match[str]) -> str:
        found = match.group()
        is_kept = match.group(1) is None or _UNUSUAL_COMMENT.match(found) is None
        return found if is_kept else _VISIBLE.sub(" ", found)

    return _COMMENT_OR_STRING.sub(replacement, text)


def end_of_brackets(text: str, start: int) -> int:
    """Returns the offset after the bracket that closes the one at `start`; only brackets of its kind are counted.

    Strings and comments may hold any bracket. Raises MalformedText if it is never closed.
    """
    opening = text[start]
    closing = _OPENING[opening]
    depth, position = 0, start
    while True:
        match = _BRACKET_OR_STRING.search(text, position)
        if match is None:
            raise MalformedText(f"{opening!r} is never closed: is the file truncated?", start)
        token, position = match.group(), match.end()
        if token == opening:
            depth += 1
        elif token == closing:
            depth -= 1
            if depth == 0:
                return position
        elif token == '"':
            raise MalformedText("string without an end: is the file truncated?", match.start())
        elif token == "/*":
            position = end_of_comment(text, match.start())


def end_of_comment(text: str, start: int) -> int:
    """Returns the offset after the comment that begins at `start`."""
    if text.startswith("//", start):
        end = text.find("\n", start)
        return len(text) if end < 0 else end
    end = text.find("*/", start + 2)
    if end < 0:
        raise MalformedText("comment without an end: is the file truncated?", start)
    return end + 2


_BARE = re.compile(f"(?:{BARE})+")
_STRING = re.compile(STRING)


def end_of_value(text: str, start: int) -> int:
    """Returns the offset after the attribute's value that begins at `start`, however deep its brackets nest."""
    position = start
    while position < len(text):
        if text[position] in _OPENING:
            position = end_of_brackets(text, position)
            continue
        match = (_STRING if text[position] == '"' else _BARE).match(text, position)
        if match is None:
            if text[position] == '"':
                raise MalformedText("string without an end: is the file truncated?", position)
            break
        position = match.end()
    if position == start:
        raise MalformedText("a value is missing", start)
    return position


_ESCAPE = re.compile(rb"\\(?:([0-7]{1,3})|x([0-9a-fA-F]{1,2})|(.))", re.DOTALL)
_ESCAPED = {b"n": b"\n", b"t": b"\t", b"r": b"\r"}


def unescape(text: str) -> str:
    """Undoes the C escapes of a string's inside; octal ones are bytes of UTF-8.

    >>> unescape(r"params[\\'w\\']")
    "params['w']"
    """
    if "\\" not in text:
        return text

    def replacement(match: re.Match[bytes]) -> bytes:
        octal, hexadecimal, other = match.groups()
        if other is not None:
            return _ESCAPED.get(other, other)
        return bytes([int(octal or hexadecimal, 8 if octal else 16) & 255])

    return _ESCAPE.sub(replacement, text.encode()).decode(errors="replace")


_ODD = re.compile(rf"{STRING}|{COMMENT}|({CONTROL.pattern}|[^\x00-\x7f])")


def plain(text: str) -> str:
    """Returns a module's text with its control characters, which only strings may hold, as escapes.

    Raises MalformedText if one of them, or a character that is not ASCII, stands outside of strings and comments.
    """
    has_controls = CONTROL.search(text) is not None
    if text.isascii() and not has_controls:
        return text
    for match in _ODD.finditer(text):
        if match[1]:
            raise MalformedText(f"the character U+{ord(match[1]):04X} may stand in strings only", match.start())
    return without_controls(text) if has_controls else text


_SKIPPED = re.compile(SPACE)


def skip_space(text: str, start: int) -> int:
    """Returns the offset of the first token at or after `start`."""
    match = _SKIPPED.match(text, start)
    assert match is not None
    return match.end()


def line_and_column(text: str, offset: int) -> tuple[int, int]:
    """Returns the 1-based line and column of an offset.

    >>> line_and_column("ab\\ncd", 4)
    (2, 2)
    """
    line_start = text.rfind("\n", 0, offset) + 1
    return text.count("\n", 0, offset) + 1, offset - line_start + 1


def excerpt(text: str, offset: int, length: int = 40) -> str:
    """Returns what stands at `offset`, for messages: one line, cut."""
    end_of_line = text.find("\n", offset)
    end = len(text) if end_of_line < 0 else end_of_line
    found = text[offset : min(end, offset + length)]
    if not found:
        return "the end of the file" if offset >= len(text) else "the end of the line"
    return repr(found + ("…" if end > offset + length else ""))
