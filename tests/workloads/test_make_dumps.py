"""The script that makes the dumps: what it leaves out, what it keeps, and one real compile."""

import gzip
import importlib.util
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest
from jaxlib import _hlo

from memplan.workloads import dumped_names, dumps_folder, names

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_dumps"

RAW = r"""HloModule jit_f, is_scheduled=true, input_output_alias={ {}: (0, {}, may-alias) }, entry_computation_layout={(f32[8,128]{1,0:T(8,128)})->f32[8,128]{1,0:T(8,128)}}, allow_spmd_sharding_propagation_to_output={true}, frontend_attributes={arg="{odd}",xla.sdy.meshes={empty_mesh = #sdy.mesh<[]>}}

FileNames
1 "/opt/driver.py"
2 "/opt/lib/memplan/workloads/lstm.py"
3 "/opt/lib/memplan/workloads/unused.py"

FunctionNames
1 "<module>"
2 "cell"
3 "never"

FileLocations
1 {file_name_id=1 function_name_id=1 line=7 end_line=7 column=2 end_column=9}
2 {file_name_id=3 function_name_id=3 line=1 end_line=1 column=0 end_column=1}
3 {file_name_id=2 function_name_id=2 line=65 end_line=65 column=4 end_column=8}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}
3 {file_location_id=3 parent_frame_id=2}


ENTRY %main (x: f32[8,128]) -> f32[8,128] {
  %x = f32[8,128]{1,0:T(8,128)} parameter(0), sharding={replicated}, frontend_attributes={a="}, sharding={no}"}, metadata={op_name="x[\'}, sharding={kept}\']"}
  %y = f32[8,128]{1,0:T(8,128)S(1)} add(%x, %x), metadata={op_name="jit(f)/add" stack_frame_id=3}, backend_config={"flag_configs":[],"window_config":{"kernel_window_bounds":[],"estimated_cycles":"1820","is_mask":false},"used_scoped_memory_configs":[{"memory_space":"1","offset":"0","size":"4096"}],"aliasing_operands":{"lists":[]}}
  ROOT %z = f32[8,128]{1,0:T(8,128)} negate(%y), control-predecessors={%x}, metadata={stack_frame_id=1}, backend_config={"flag_configs":[],"aliasing_operands":{"lists":[{"indices":["0","1"]}]}}
}
"""

COMPACT = r"""HloModule jit_f, is_scheduled=true, input_output_alias={ {}: (0, {}, may-alias) }, entry_computation_layout={(f32[8,128]{1,0:T(8,128)})->f32[8,128]{1,0:T(8,128)}}, frontend_attributes={memplan.target="t"}

FileNames
1 "memplan/workloads/lstm.py"

FunctionNames
1 "cell"

FileLocations
1 {file_name_id=1 function_name_id=1 line=65 end_line=65 column=4 end_column=8}

StackFrames
1 {file_location_id=1 parent_frame_id=1}


ENTRY %main (x: f32[8,128]) -> f32[8,128] {
  %x = f32[8,128]{1,0:T(8,128)} parameter(0), metadata={op_name="x[\'}, sharding={kept}\']"}
  %y = f32[8,128]{1,0:T(8,128)S(1)} add(%x, %x), metadata={op_name="jit(f)/add" stack_frame_id=1}, backend_config={"window_config":{"estimated_cycles":"1820"},"used_scoped_memory_configs":[{"memory_space":"1","offset":"0","size":"4096"}]}
  ROOT %z = f32[8,128]{1,0:T(8,128)} negate(%y), control-predecessors={%x}, backend_config={"aliasing_operands":{"lists":[{"indices":["0","1"]}]}}
}
"""


@pytest.fixture(scope="module")
def script() -> ModuleType:
    loader = SourceFileLoader("make_dumps", str(SCRIPT))
    spec = importlib.util.spec_from_loader("make_dumps", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_compact(script: ModuleType) -> None:
    text = script.compact(RAW, {"/opt/lib/memplan/workloads": "memplan/workloads"}, {"target": "t"})
    assert text == COMPACT
    _hlo.hlo_module_from_text(RAW)
    _hlo.hlo_module_from_text(text)


def test_compact_refuses_to_leave_a_path(script: ModuleType) -> None:
    with pytest.raises(RuntimeError, match="/opt/kernel"):
        script.compact(RAW.replace('op_name="jit(f)/add"', 'op_name="/opt/kernel"'), {}, {})


def test_pack_is_reproducible(script: ModuleType) -> None:
    assert script.pack("text") == script.pack("text")
    assert gzip.decompress(script.pack("tëxt")).decode() == "tëxt"


def test_select(script: ModuleType) -> None:
    shipped = script.select(None, None, None)
    assert sorted(map(script.dump_name, shipped)) == sorted(path.name for path in dumps_folder().iterdir())
    assert set(script.select(None, ["tpu-v5e"], ["slow"])) == {(name, "tpu-v5e", "slow") for name in dumped_names()}
    assert script.select(["lstm"], ["tpu-7x"], ["slow"]) == [("lstm", "tpu-7x", "slow")]
    assert script.select(["lstn"], None, None) == f"no workload is called 'lstn'; known: {', '.join(names())}"


def test_libtpu_missing_is_said_in_one_line(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["make_dumps"])
    assert script.main() == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "pip install memplan[tpu]" in message


@pytest.mark.slow  # compiles for a TPU
@pytest.mark.tpu
def test_a_dump_is_made_and_checked(tmp_path: Path) -> None:
    job = ["--workload", "lstm", "--target", "tpu-v5e", "--variant", "default", "--out", str(tmp_path)]
    made = subprocess.run([sys.executable, str(SCRIPT), *job], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    name = "lstm.tpu-v5e.default.hlo.txt.gz"
    assert [path.name for path in tmp_path.iterdir()] == [name]
    data = (tmp_path / name).read_bytes()
    text = gzip.decompress(data).decode()
    assert _hlo.hlo_module_from_text(text).name == "jit_lstm"
    stored = (dumps_folder() / name).read_bytes()
    if f"jax {version('jax')}, libtpu {version('libtpu')}" in gzip.decompress(stored).decode():
        assert data == stored, "the workload changed: run scripts/make_dumps"

    (tmp_path / name).write_bytes(data[:-1])
    checked = subprocess.run([sys.executable, str(SCRIPT), *job, "--check"], capture_output=True, text=True)
    assert checked.returncode == 1
    assert f"{name}: different" in checked.stderr
    assert (tmp_path / name).read_bytes() == data[:-1], "a check writes nothing"
