"""Files that could not be written are refused before the work."""

from pathlib import Path

import pytest

from memplan.cli.outputs import check_file
from memplan.compiler.errors import MemplanError


def message_for(path: Path) -> str:
    with pytest.raises(MemplanError) as caught:
        check_file(path)
    return str(caught.value)


def test_what_can_be_written_passes(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("x")
    for path in (None, tmp_path / "new", tmp_path / "old", Path("here")):
        check_file(path)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_a_folder_and_a_file_in_no_folder_are_refused(tmp_path: Path) -> None:
    assert message_for(tmp_path) == f"cannot write {tmp_path}: it is a folder"
    nowhere = tmp_path / "nowhere"
    assert message_for(nowhere / "x") == f"cannot write {nowhere / 'x'}: there is no folder {nowhere}"
    (tmp_path / "old").write_text("x")
    inside = tmp_path / "old" / "x"
    assert message_for(inside) == f"cannot write {inside}: there is no folder {inside.parent}"
