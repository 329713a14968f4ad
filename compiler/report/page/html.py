"""The page of a report as one HTML file, which needs neither a server nor the network.

The file is `page.html` with style, scripts and data put into it. The data is JSON, gzipped, in base64: no name can end
the element that holds it. A Content-Security-Policy with the digests of our style and our script forbids everything
else: other scripts, handlers in attributes, and every request.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from importlib import resources

from memplan.compiler.report.page.data import page_data
from memplan.compiler.report.report import Report

# In the order in which they make up the one module of the page.
SCRIPTS = ("format.js", "model.js", "state.js", "view.js", "draw.js", "lanes.js", "details.js", "table.js",
           "controls.js", "pointer.js", "main.js")  # fmt: skip


def page_html(report: Report) -> str:
    """Returns the page; the same report gives the same text."""
    data = json.dumps(page_data(report), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    packed = base64.b64encode(gzip.compress(data.encode(errors="backslashreplace"), mtime=0)).decode()
    style, script = _file("page.css"), "\n".join(_file(name) for name in SCRIPTS)
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    page = _file("page.html")
    for place, content in (("POLICY", policy), ("STYLE", style), ("SCRIPT", script), ("DATA", packed)):
        before, after = page.split(f"{{{{{place}}}}}")
        page = f"{before}{content}{after}"
    return page


def _file(name: str) -> str:
    return (resources.files("memplan.compiler.report.page") / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
