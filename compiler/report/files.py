"""The report as a folder of files."""

from __future__ import annotations

import json
from pathlib import Path

from memplan.compiler.files import make_folder, write_files
from memplan.compiler.report.page.html import page_html
from memplan.compiler.report.picture import picture_png, picture_svg
from memplan.compiler.report.report import Report
from memplan.compiler.report.schema import report_json
from memplan.compiler.report.tables import report_text
from memplan.compiler.report.trace import trace_json

PAGE = "report.html"
FILES = (PAGE, "memory.png", "memory.svg", "trace.json", "report.txt", "report.json")


def write_report(report: Report, folder: Path) -> None:
    """Writes all files of a report into a folder, which is made if it is not there.

    Everything is computed before the first file is written. If one of them has no room, none of them changes.

    Raises:
      MemplanError: the folder cannot be made, or a file not be written.
    """
    contents: tuple[str | bytes, ...] = (
        page_html(report),
        picture_png(report),
        picture_svg(report),
        json.dumps(trace_json(report), separators=(",", ":")),
        report_text(report),
        json.dumps(report_json(report), indent=2) + "\n",
    )
    make_folder(folder, "a report")
    write_files({folder / name: content for name, content in zip(FILES, contents, strict=True)})
