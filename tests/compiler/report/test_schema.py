import json

import pytest

from memplan.compiler.report.report import Report
from memplan.compiler.report.schema import report_json


def test_fields(report: Report) -> None:
    data = json.loads(json.dumps(report_json(report), allow_nan=False))
    assert set(data) == {
        "schema",
        "program",
        "target",
        "bound",
        "bound_by",
        "bound_checked",
        "assumptions",
        "notes",
        "mappings",
        "plan",
        "buffers",
        "groups",
    }
    assert data["schema"] == "memplan.report/1"
    assert data["program"] == {"name": "tiny", "operations": 8, "buffers": 5}
    assert data["target"]["spaces"][1] == {"name": "vmem", "capacity": 100}
    mapping = data["mappings"][data["plan"]]
    assert mapping["planner"] == "by-hand"
    assert mapping["latency"] == pytest.approx(5.7)
    assert mapping["latency_cycles"] == 5700
    assert mapping["stalled"] == pytest.approx(0.8)
    assert mapping["spaces"] == [
        {"name": "hbm", "peak": 340, "height": 340},
        {"name": "vmem", "peak": 90, "height": 100},
    ]
    assert mapping["info"] == {"seconds": 0.5}
    assert data["buffers"][0]["name"] == "r"
    assert data["buffers"][0]["reasons"] == ["its 200 B do not fit vmem, which has 100 B"]
