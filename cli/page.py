"""Opens the page of a report in the user's browser."""

from __future__ import annotations

import tempfile
import webbrowser
from pathlib import Path

from memplan.cli.console import note
from memplan.compiler.files import write_atomically
from memplan.compiler.report.files import PAGE
from memplan.compiler.report.page.html import page_html
from memplan.compiler.report.report import Report


def open_page(report: Report, folder: Path | None) -> None:
    """Opens the page that was written to `folder`; without a folder, writes it to a temporary one, which stays."""
    if folder is None:
        folder = Path(tempfile.mkdtemp(prefix="memplan-"))
        write_atomically(folder / PAGE, page_html(report))
    page = (folder / PAGE).absolute()
    if webbrowser.open(page.as_uri()):
        note(f"opened {page}")
    else:
        note(f"no browser could be opened here; the page is {page}")
