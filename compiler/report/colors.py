"""The colors of kinds of buffers and of copies, and the words for them in legends: one place for all pictures."""

from __future__ import annotations

from memplan.compiler.report.buffers import BufferKind

KIND_COLORS = {
    BufferKind.ARGUMENT: "#4878A6",
    BufferKind.CONSTANT: "#7B93A8",
    BufferKind.UPDATED: "#8B6BB1",
    BufferKind.RESULT: "#5BA35B",
    BufferKind.TEMPORARY: "#F0A33F",
}
KIND_LABELS = {
    BufferKind.ARGUMENT: "argument",
    BufferKind.CONSTANT: "constant",
    BufferKind.UPDATED: "argument, updated in place",
    BufferKind.RESULT: "result",
    BufferKind.TEMPORARY: "temporary",
}
# On these, text is dark.
LIGHT_KINDS = frozenset({BufferKind.TEMPORARY})

# By the number of the link.
COPY_COLORS = ("#23918A", "#B5651D", "#6D597A", "#577590")
