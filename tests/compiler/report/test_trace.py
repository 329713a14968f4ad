import itertools
import json
from typing import Any

import pytest

from memplan.compiler.report.report import Report
from memplan.compiler.report.trace import trace_json


def events_of(report: Report, process: int = 1) -> list[dict[str, Any]]:
    data = json.loads(json.dumps(trace_json(report), allow_nan=False))
    return [event for event in data["traceEvents"] if event["pid"] == process]


def track(events: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Returns the slices of the track of a name."""
    thread = next(e["tid"] for e in events if e["name"] == "thread_name" and e["args"]["name"] == name)
    return [event for event in events if event["ph"] == "X" and event["tid"] == thread]


def test_operations_of_the_first_iteration_and_one_slice_for_the_rest(report: Report) -> None:
    operations = track(events_of(report), "operations")
    assert [(e["name"], e["ts"], e["dur"]) for e in operations] == [
        ("mul", 0, pytest.approx(0.46e6)),
        ("add", pytest.approx(0.46e6), pytest.approx(0.86e6)),
        ("exp", pytest.approx(1.32e6), pytest.approx(0.26e6)),
        ("body", pytest.approx(2.38e6), pytest.approx(0.28e6)),
        ("out", pytest.approx(3.5e6), pytest.approx(2.2e6)),
        ("3 more iterations of w", pytest.approx(2.66e6), pytest.approx(0.84e6)),
    ]
    body = operations[3]
    assert body["args"]["runs"] == 4
    assert body["args"]["read w"] == "80 B, vmem"


def test_slices_of_a_track_do_not_overlap(report: Report) -> None:
    events = events_of(report)
    for name in ("operations", "waits", "copies hbm → vmem", "loops"):
        slices = sorted(track(events, name), key=lambda e: e["ts"])
        for before, after in itertools.pairwise(slices):
            assert before["ts"] + before["dur"] <= after["ts"] + 1e-3, name


def test_loop_copy_and_wait(report: Report) -> None:
    events = events_of(report)
    (loop,) = track(events, "loops")
    assert (loop["name"], loop["ts"]) == ("w × 4", pytest.approx(2.38e6))
    assert loop["dur"] == pytest.approx(4 * 0.28e6)
    (copy,) = track(events, "copies hbm → vmem")
    assert (copy["name"], copy["args"]["bytes"], copy["args"]["awaited_by"]) == ("w", 80, "w.enter")
    assert (copy["ts"], copy["dur"]) == (pytest.approx(1.58e6), pytest.approx(0.8e6))
    (wait,) = track(events, "waits")
    assert (wait["name"], wait["dur"]) == ("wait before w.enter", pytest.approx(0.8e6))


def test_counters_follow_the_use(report: Report) -> None:
    counters = [e for e in events_of(report) if e["ph"] == "C" and e["name"] == "vmem bytes"]
    assert [(e["args"]["buffers"], e["args"]["kept by operations"]) for e in counters] == [
        (60, 0), (60, 30), (60, 0), (80, 0), (80, 10), (80, 0), (0, 0),
    ]  # fmt: skip


def test_every_mapping_is_a_process(report: Report) -> None:
    names = [e["args"]["name"] for p in (1, 2) for e in events_of(report, p) if e["name"] == "process_name"]
    assert names == ["by-hand: tiny on test-chip", "all in hbm: tiny on test-chip"]
    assert not track(events_of(report, 2), "copies hbm → vmem")
