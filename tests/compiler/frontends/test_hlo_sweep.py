import json
import sys
from pathlib import Path

import hlo_sweep
import pytest
from hlo_examination import OK, Verdict, difference, examine, verdict_of_xla

from memplan.compiler.frontends import hlo_text

GOOD = "HloModule m\nENTRY e {\n  x = f32[8] parameter(0)\n  ROOT y = f32[8] add(x, x)\n}\n"
HUGE = "HloModule m\nENTRY e {\n  x = f32[999999999999] parameter(0)\n  ROOT y = f32[999999999999] negate(x)\n}\n"
LOOP = """HloModule m
body { p = (s32[]) parameter(0) i = s32[] get-tuple-element(p), index=0 k = s32[] constant(2) j = s32[] add(i, k)
  ROOT t = (s32[]) tuple(j) }
condition { p = (s32[]) parameter(0) i = s32[] get-tuple-element(p), index=0 n = s32[] constant(20)
  ROOT c = pred[] compare(i, n), direction=LT }
ENTRY e { z = s32[] constant(0) t = (s32[]) tuple(z)
  ROOT w = (s32[]) while(t), condition=condition, body=body, backend_config={"known_trip_count":{"n":"9"}} }
"""
TEXTS = [GOOD, "HloModule m\n$0", HUGE, LOOP]


def test_a_text_that_all_is_well_with() -> None:
    found = examine(GOOD, verdict_of_xla(GOOD))
    assert (found.xla, found.read, found.again, found.shapes, found.proto, found.planned) == (OK,) * 6
    assert not found.traceback


def test_what_is_wrong_is_said_of_the_step() -> None:
    other = verdict_of_xla(GOOD.replace("f32[8]", "f32[9]"))
    found = examine(GOOD, other)
    assert found.shapes == "parameter: f32[8] | f32[9]"
    assert found.again == found.planned == found.proto == OK
    assert examine("HloModule m\n$0", verdict_of_xla("HloModule m\n$0")).read.startswith("<bytes>:2:1: expected")
    huge = examine(HUGE, Verdict(OK))
    assert huge.is_refused_for_a_good_reason
    assert huge.read == OK


def test_trip_counts_that_differ_from_what_the_text_states() -> None:
    found = examine(LOOP, verdict_of_xla(LOOP), with_plans=False)
    assert found.loops == 1
    assert found.wrong_loops == ("w: 10 instead of 9",)
    assert found.planned == ""


def test_an_exception_that_is_no_memplan_error_is_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hlo_text, "parse", lambda *_: 1 // 0)
    assert examine(GOOD, Verdict(OK)).traceback.startswith("ZeroDivisionError")


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ("ROOT y = f32[8] multiply(x, x)", "add: opcode: add | multiply"),
        ("ROOT y = f32[8] add(x, x), sharding={replicated}", "add: attribute sharding: missing | {replicated}"),
    ],
)
def test_the_first_difference_is_named(changed: str, expected: str) -> None:
    other = GOOD.replace("ROOT y = f32[8] add(x, x)", changed)
    assert difference(hlo_text.parse(GOOD), hlo_text.parse(other)) == expected
    assert difference(hlo_text.parse(GOOD), hlo_text.parse(GOOD)) == ""


@pytest.mark.slow
def test_a_sweep_is_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "texts.json", tmp_path / "records.jsonl"
    file.write_text(json.dumps([{"source": f"{i}.txt", "text": text} for i, text in enumerate(TEXTS)]))
    hlo_sweep.main([str(file), "--count", "2", "--out", str(out)])
    assert "2 strings" in capsys.readouterr().out
    # A damaged record shows that what was examined before is not examined once more.
    records = [json.loads(line) for line in out.read_text().splitlines()]
    records[0]["planned"] = "kept"
    out.write_text("".join(json.dumps(record) + "\n" for record in records))
    hlo_sweep.main([str(file), "--out", str(out), "--jobs", "2"])
    printed = capsys.readouterr().out
    counts = {name: int(count) for count, name in (line.split(maxsplit=1) for line in printed.splitlines()[:17])}
    assert counts["strings"] == 4
    assert counts["accepted by XLA"] == counts["identical again"] == 3
    assert counts["planned"] == 1
    assert counts["refused for a stated good reason"] == 1
    assert counts["trip counts inferred wrongly"] == 1
    assert "kept   (text 0, 0.txt)" in printed


@pytest.mark.parametrize(("signal", "death"), [("SIGPROF", "hang"), ("SIGABRT", "exit status -6")])
def test_a_child_that_dies_is_replaced(signal: str, death: str) -> None:
    """A stand-in for the child answers all texts but one, of which it dies."""
    program = (
        "import json, os, signal, sys\n"
        "for line in sys.stdin:\n"
        "    index, stage = json.loads(line)\n"
        "    if index == 1:\n"
        f"        os.kill(os.getpid(), signal.{signal})\n"
        "    print(json.dumps({'index': index, 'xla': 'ok', 'read': 'ok'}), flush=True)\n"
    )
    records = list(hlo_sweep.sweep([sys.executable, "-c", program], [0, 1, 2], jobs=1))
    assert [record["index"] for record in records] == [0, 1, 2]
    assert records[1] == {"index": 1, "xla": "", "died": death}
    counts = hlo_sweep.summary(records)
    assert (counts["strings"], counts["hangs"] + counts["crashes"]) == (3, 1)
