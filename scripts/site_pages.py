"""Makes the pages of the repository those of the documentation site, without a second copy of any: a hook of mkdocs.

README.md, CONTRIBUTING.md and CHANGELOG.md become pages, and so do notebooks, with the outputs that are stored in them.
The API reference reads the docstrings of this checkout; a tree of links lays it out as the installed package is. Links
in the pages are paths in the repository. They become links between pages, and a link to a file that is no page, such as
a source file, becomes its text.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import shutil
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
PAGES |= {f"docs/{path.name}": f"{path.stem}_notebook.md" for path in (ROOT / "docs").glob("*.ipynb")}
_NAMED_BLOCK = re.compile(r"^```(\w+) +(\S+)$", re.MULTILINE)
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")


@event_priority(100)  # before mkdocstrings reads its own
def on_config(config: Any) -> Any:
    """Shows the API reference where the package is."""
    tree = Path(tempfile.mkdtemp(prefix="memplan-docs-"))
    atexit.register(shutil.rmtree, tree, ignore_errors=True)
    folders = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
    (tree / "memplan").mkdir()
    for file in (ROOT / folders.pop("memplan")).glob("*.py"):
        (tree / "memplan" / file.name).symlink_to(file)
    for package, folder in folders.items():
        (tree / package.replace(".", "/")).symlink_to(ROOT / folder)
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [str(tree)]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages that are files at the root of the repository, and notebooks."""
    for source, page in PAGES.items():
        if source.endswith(".ipynb"):
            files.append(File.generated(config, page, content=notebook_markdown((ROOT / source).read_text())))
        else:
            files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def notebook_markdown(text: str) -> str:
    """Returns the cells of a notebook, JSON of nbformat 4, as a page: what is shown as HTML stays HTML."""
    parts = []
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {"text/plain": output.get("text", ())})
            html = "".join(data.get("text/html", ()))
            parts.append(html or f"```text\n{''.join(data['text/plain']).rstrip()}\n```")
    return "\n\n".join(parts)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Makes paths in the repository links to pages of the site, and the files that code blocks name their titles."""
    uri = page.file.src_uri
    source = next((ROOT / name for name, made in PAGES.items() if made == uri), ROOT / "docs" / uri)

    def link(match: re.Match[str]) -> str:
        image, text, target, anchor = match.groups()
        path = (source.parent / target).resolve()
        if "://" in target or not path.exists():
            return match[0]
        place = path.relative_to(ROOT).as_posix()
        place = PAGES.get(place, place.removeprefix("docs/") if place.startswith("docs/") else "")
        if not place:
            return text
        return f"{image}[{text}]({os.path.relpath(place, os.path.dirname(uri) or '.')}{anchor or ''})"

    return _NAMED_BLOCK.sub(r'```\1 title="\2"', _LINK.sub(link, markdown))
