"""Tables as notebooks show them: HTML without scripts, styles of its own or links, in which every text is data."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence

from memplan.compiler.printable import printable

# What a text is cut to.
_LONGEST = 400


def html_table(
    caption: str, columns: Mapping[str, str], rows: Iterable[Sequence[str]], remarks: Sequence[str] = ()
) -> str:
    """Returns a table, and sentences below it.

    >>> print(html_table("<x>", {"bytes": "right"}, [["4 B"]]))
    <div><strong>&lt;x&gt;</strong><table>
    <thead><tr><th style="text-align: right">bytes</th></tr></thead>
    <tbody>
    <tr><td style="text-align: right">4 B</td></tr>
    </tbody></table></div>

    Args:
      caption: stands above it.
      columns: titles, and whether their cells are aligned "left" or "right".
      rows: a text for each column.
      remarks: a paragraph each.
    """
    lines = [f"<div><strong>{_escaped(caption)}</strong><table>", f"<thead>{_row('th', columns, columns)}</thead>"]
    lines += ["<tbody>", *(_row("td", columns, row) for row in rows), "</tbody></table>"]
    return "\n".join(lines) + "".join(f"\n<p>{_escaped(remark)}</p>" for remark in remarks) + "</div>"


def _row(element: str, columns: Mapping[str, str], texts: Iterable[str]) -> str:
    cells = (
        f'<{element} style="text-align: {side}">{_escaped(text)}</{element}>'
        for side, text in zip(columns.values(), texts, strict=True)
    )
    return f"<tr>{''.join(cells)}</tr>"


def _escaped(text: str) -> str:
    return html.escape(printable(text, limit=_LONGEST))
