"""`memplan offline-plan`: what it prints, what it writes, and how it ends."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memplan.backends.tflite.arena import arena_size, arena_tensors, greedy_offsets
from memplan.backends.tflite.offline_plan import read_offline_plan
from memplan.compiler.frontends.tflite_model import read_model

MODEL = Path(__file__).parents[2] / "workloads/tflite/mobilenet.tflite.gz"


def test_an_arena_is_smaller_than_that_of_tflm_by_itself(run: Callable[..., Any], tmp_path: Path) -> None:
    """A chain: the greedy planner puts 112 and 128 at the bottom, 64 above the 128, and 48 above the 64."""
    pytest.importorskip("flatbuffers")
    from tflite_writer import TfliteFile

    file = TfliteFile()
    a, b, c, d = (file.tensor("s8", size) for size in (112, 48, 64, 128))
    file.inputs, file.outputs = [a], [d]
    for before, after in ((a, b), (b, c), (c, d)):
        file.operator("RESHAPE", [before], after)
    path = tmp_path / "chain.tflite"
    path.write_bytes(file.content())
    done = run("offline-plan", path)
    assert done.status == 0
    lines = [" ".join(line.split()) for line in done.out.splitlines()]
    assert lines[1:] == [
        "arena 192",
        "lower bound 192",
        "result proven: no plan needs less",
        "TFLM by itself 240 (20.0% less with the plan)",
    ]


def test_a_plan_is_written_and_fits_what_it_prints(run: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "planned.tflite"
    done = run("offline-plan", MODEL, "--out", out)
    assert done.status == 0
    lines = dict(line.split("  ", 1) for line in done.out.splitlines())
    assert lines["tensors"].strip() == "32 in the arena, of 89"
    assert lines["arena"].strip() == "442,368"
    assert lines["result"].strip() == "proven: no plan needs less"
    model = read_model(out.read_bytes())
    plan = read_offline_plan(model)
    assert plan is not None
    assert (plan.version, plan.subgraph, len(plan.offsets)) == (1, 0, 89)
    tensors = arena_tensors(model)
    offsets = [plan.offsets[tensor.index] for tensor in tensors]
    assert arena_size(tensors, offsets) == 442_368
    assert greedy_offsets(tensors, dict(enumerate(plan.offsets))) == offsets
    planned = {tensor.index for tensor in tensors}
    assert all((offset >= 0) == (index in planned) for index, offset in enumerate(plan.offsets))
    assert out.read_bytes().endswith(gzip.decompress(MODEL.read_bytes()))
    again = run("offline-plan", out, "--out", out)
    assert again.status == 0
    assert read_model(out.read_bytes()).metadata == model.metadata


def test_a_memory_that_is_too_small(run: Callable[..., Any], tmp_path: Path) -> None:
    done = run("offline-plan", MODEL, "--target", "mcu-256kb", "--out", tmp_path / "planned.tflite")
    assert done.status == 1
    assert "442,368 of 262,144 in sram" in done.out
    assert "does not fit sram, which has 262,144: no plan needs less than 442,368" in done.err
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_tflite_file(run: Callable[..., Any], tmp_path: Path) -> None:
    other = tmp_path / "x.hlo"
    other.write_text("HloModule x")
    assert run("offline-plan", other).errors == [
        f"memplan: error: {other}: is no .tflite file: it lacks the identifier TFL3"
    ]
