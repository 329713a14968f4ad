"""TFLM itself, where the package `tflite_micro` is installed: it takes our plans, and its arena is what we say."""

import re
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flatbuffers")
pytest.importorskip("tflite_micro")

from tflite_micro.python.tflite_micro import runtime
from tflite_writer import mobilenet, small_network

from memplan.backends.tflite.arena import arena_size, arena_tensors, greedy_offsets
from memplan.backends.tflite.offline_plan import read_offline_plan
from memplan.cli.main import main
from memplan.compiler.frontends.tflite_model import read_model

SHIPPED = files("tflite_micro.python.tflite_micro").joinpath("sine_float.tflite")


@pytest.mark.parametrize("name", ["small", "mobilenet", "sine"])
def test_it_takes_plans_and_computes_the_same(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    made = {"small": small_network, "mobilenet": mobilenet}
    content = SHIPPED.read_bytes() if name == "sine" else made[name]().content()
    before, after = tmp_path / "model.tflite", tmp_path / "planned.tflite"
    before.write_bytes(content)
    assert main(["offline-plan", str(before), "--out", str(after)]) == 0
    model = read_model(after.read_bytes())
    plan, tensors = read_offline_plan(model), arena_tensors(model)
    assert plan is not None
    arenas = (
        arena_size(tensors, greedy_offsets(tensors)),
        arena_size(tensors, [plan.offsets[tensor.index] for tensor in tensors]),
    )
    results = []
    for path, arena in zip((before, after), arenas, strict=True):
        interpreter = runtime.Interpreter.from_file(str(path), arena_size=1 << 20)
        capfd.readouterr()
        interpreter.print_allocations()
        heads = re.findall(r"Arena allocation head (\d+) bytes", "".join(capfd.readouterr()))
        assert heads == [str(arena)]
        described = interpreter.get_input_details(0)
        count = int(np.prod(described["shape"]))
        values = np.linspace(-3, 3, count).reshape(described["shape"]).astype(described["dtype"])
        interpreter.set_input(values, 0)
        interpreter.invoke()
        results.append(interpreter.get_output(0))
    assert (results[0] == results[1]).all()
