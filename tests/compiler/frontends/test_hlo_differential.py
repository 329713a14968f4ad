"""Every HLO text that the tests contain: what XLA's parser takes, ours takes, and understands as XLA does."""

from __future__ import annotations

import ast
import gzip
import json
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from hlo_examination import OK
from hlo_sweep import Record, child_command, sweep

TESTS = Path(__file__).parents[2]


def texts() -> Iterator[tuple[str, str]]:
    """Yields `(place, text)` of the modules in test files, those of data folders included."""
    for path in sorted(TESTS.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and is_meant_as_hlo(node.value):
                yield f"{path.relative_to(TESTS)}:{node.lineno}", textwrap.dedent(node.value)
    for path in sorted(TESTS.rglob("*")):
        if path.name.endswith((".txt", ".hlo", ".txt.gz")) and "jax012" not in path.name:
            content = path.read_bytes()
            text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
            if is_meant_as_hlo(text):
                yield str(path.relative_to(TESTS)), text


def is_meant_as_hlo(text: str) -> bool:
    return ("ENTRY" in text or "HloModule" in text) and "parameter(" in text and len(text) < 500_000


@pytest.mark.slow
def test_what_xla_takes_is_read_printed_and_read_again(tmp_path: Path) -> None:
    found = list(texts())
    file = tmp_path / "texts.json"
    file.write_text(json.dumps([{"source": place, "text": text} for place, text in found]))
    records: list[Record] = list(sweep(child_command(file, with_plans=False), range(len(found)), jobs=1))
    accepted = [record for record in records if record.get("xla") == OK]
    assert len(accepted) > 100
    problems = []
    for record in records:
        if record.get("traceback") or record.get("died"):
            problems.append((record, "traceback" if "traceback" in record else "died"))
    for record in accepted:
        problems += [(record, step) for step in ("read", "again", "shapes") if record[step] not in ("", OK)]
    assert not problems, "\n".join(f"{found[r['index']][0]}: {step}: {r[step]}" for r, step in problems)
