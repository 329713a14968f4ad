"""Checksums: any change of any file is found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from memplan.compiler.errors import MemplanError
from memplan.rl_agent.learning.checksums import FILE, check_checksums, write_checksums


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "a").write_bytes(b"a" * 1000)
    (tmp_path / "b").write_bytes(b"")
    (tmp_path / "commit_success.txt").write_text("somewhere")
    write_checksums(tmp_path)
    return tmp_path


def test_an_unchanged_folder_agrees(folder: Path) -> None:
    check_checksums(folder)
    assert set(json.loads((folder / FILE).read_text())["files"]) == {"deep/er/a", "b"}
    write_checksums(folder)
    check_checksums(folder)
    (folder / "commit_success.txt").unlink()
    check_checksums(folder)


@pytest.mark.parametrize("name", ["deep/er/a", "b"])
@pytest.mark.parametrize("content", [None, b"", b"a" * 999 + b"b", b"a" * 1001])
def test_any_change_is_found(folder: Path, name: str, content: bytes | None) -> None:
    file = folder / name
    if content == file.read_bytes():
        content = b"?"
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    with pytest.raises(MemplanError, match=name):
        check_checksums(folder)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"schema": "memplan.checksums/1"}', '{"schema": "memplan.checksums/1", "files": {"b": 1}}',
     '{"schema": "memplan.checksums/1", "files": {"../b": ""}}', '{"schema": "memplan.checksums/1", "files": {"/b": ""}}',
     '{"schema": "memplan.checksums/1", "files": {"' + "a" * 5000 + '": ""}}',
     '{"schema": "memplan.checksums/1", "files": {"\\u0000": ""}}'],
)  # fmt: skip
def test_a_list_that_makes_no_sense_is_refused(folder: Path, text: str) -> None:
    (folder / FILE).write_text(text)
    with pytest.raises(MemplanError):
        check_checksums(folder)


def test_a_folder_without_checksums_is_refused(folder: Path) -> None:
    (folder / FILE).unlink()
    with pytest.raises(MemplanError, match=FILE):
        check_checksums(folder)
