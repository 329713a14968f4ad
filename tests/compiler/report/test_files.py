import json
from pathlib import Path

import pytest

from memplan.compiler.errors import MemplanError
from memplan.compiler.report.files import FILES, write_report
from memplan.compiler.report.report import Report


def test_all_files_are_written(report: Report, tmp_path: Path) -> None:
    write_report(report, tmp_path / "deep" / "folder")
    assert sorted(path.name for path in (tmp_path / "deep" / "folder").iterdir()) == sorted(FILES)
    assert json.loads((tmp_path / "deep" / "folder" / "report.json").read_text())["schema"] == "memplan.report/1"
    assert json.loads((tmp_path / "deep" / "folder" / "trace.json").read_text())["traceEvents"]


def test_a_file_is_no_folder(report: Report, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(MemplanError, match=r"cannot write a report to .*file"):
        write_report(report, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_nothing_is_written_if_anything_fails(report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Report) -> bytes:
        raise MemplanError("no picture today")

    monkeypatch.setattr("memplan.compiler.report.files.trace_json", fail)
    with pytest.raises(MemplanError, match="no picture"):
        write_report(report, tmp_path / "out")
    assert not (tmp_path / "out").exists()
