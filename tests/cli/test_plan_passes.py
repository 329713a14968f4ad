"""`memplan plan` with passes: what runs, what is printed, and what a user can get wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import memplan
from memplan.cli import plan as planning
from memplan.cli.passes import PassOptions
from memplan.compiler.errors import MemplanError
from memplan.passes.base import GraphContext, GraphPass, RewrittenGraph, register_graph_pass

UNFUSED = """\
HloModule layer

%twice (p: f32[1024,1024]) -> f32[1024,1024] {
  %p = f32[1024,1024]{1,0} parameter(0)
  ROOT %sum = f32[1024,1024]{1,0} add(%p, %p)
}

ENTRY %main (x: f32[1024,1024], w: f32[1024,1024], b: f32[1024]) -> f32[1024,1024] {
  %x = f32[1024,1024]{1,0} parameter(0)
  %w = f32[1024,1024]{1,0} parameter(1)
  %b = f32[1024]{0} parameter(2)
  %dot = f32[1024,1024]{1,0} dot(%x, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0}, metadata={op_name="jit(f)/dot" source_file="layer.py" source_line=4}
  %bias = f32[1024,1024]{1,0} broadcast(%b), dimensions={1}
  %add = f32[1024,1024]{1,0} add(%dot, %bias)
  %dead = f32[1024,1024]{1,0} exponential(%x)
  %tanh = f32[1024,1024]{1,0} tanh(%add), metadata={op_name="jit(f)/tanh" source_file="layer.py" source_line=5}
  ROOT %result = f32[1024,1024]{1,0} call(%tanh), to_apply=%twice
}
"""


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    path = tmp_path / "layer.hlo.txt"
    path.write_text(UNFUSED)
    return path


def plan(dump: Path, options: PassOptions, target: str | None = "tpu-v5e", out: Path | None = None) -> None:
    planning.command(
        dump, target, "greedy", out=out,
        passes=options.passes, print_after=options.print_after, print_to=options.print_to,
    )  # fmt: skip


def test_without_passes_the_program_is_planned_as_it_is(layer: Path, tmp_path: Path) -> None:
    plan(layer, PassOptions(), out=tmp_path / "plan.json")
    assert memplan.verify(memplan.read(layer), memplan.Plan.load(tmp_path / "plan.json")) == []


def test_auto_fuses_and_tells_where(layer: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plan(layer, PassOptions("auto"))
    out = capfd.readouterr().out
    assert "fusion: 4 instructions (2 add, dot, tanh), 4 tiles of 1024, 12.6 MB not written at layer.py:4" in out
    assert "inline: call of twice" in out
    assert "dead_code: exponential at dead" in out
    assert "1 operations" in out


@pytest.mark.parametrize("name", ["fusion", "dead_code"])
def test_the_last_program_is_printed_and_the_plan_is_one_for_it(name: str, layer: Path, tmp_path: Path) -> None:
    printed, saved = tmp_path / "fused.hlo.txt", tmp_path / "plan.json"
    plan(layer, PassOptions("auto", name, printed), out=saved)
    graph = memplan.read(printed)
    assert [i.opcode for i in graph.entry_computation.instructions].count("fusion") == 1
    assert memplan.verify(graph, memplan.Plan.load(saved)) == []


def test_every_pass_is_printed_to_standard_error(layer: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plan(layer, PassOptions("inline,dead_code", "all"))
    captured = capfd.readouterr()
    assert captured.err.count("HloModule layer") == 2
    assert "// after inline\nHloModule" in captured.err
    assert captured.err.index("%dead") < captured.err.index("// after dead_code")
    assert "HloModule" not in captured.out


def test_a_scheduled_module_keeps_its_schedule(module: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plan(module, PassOptions("auto"), target=None)
    captured = capfd.readouterr()
    assert "--passes auto runs none" in captured.err
    assert "XLA's own plan" in captured.out

    plan(module, PassOptions("fusion"), target=None)
    assert "left, since a compiler scheduled the program, and fused it" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (PassOptions("frobnicate"), r"no pass over Graphs is called 'frobnicate'; known: .*constant_folding.*fusion"),
        (PassOptions("inline", "fusion"), r"--print-after fusion: no such pass is run; of --passes inline: inline"),
        (PassOptions("none", "fusion"), r"--print-after fusion: no such pass is run; --passes none runs none"),
        (PassOptions("none", "all"), r"--print-after all: --passes none runs none"),
        (PassOptions("auto", None, Path("x")), r"--print-to x: --print-after says what to print"),
        (PassOptions("auto", "all", Path("no/such/folder/x")), r"no/such/folder"),
    ],
)
def test_mistakes(layer: Path, options: PassOptions, message: str, tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    with pytest.raises(MemplanError, match=message):
        plan(layer, options, out=out)
    assert not out.exists()


def test_passes_over_a_graph_need_no_jax(layer: Path) -> None:
    program = (
        "import sys, memplan; from memplan.passes.base import GraphContext; "
        "from memplan.compiler.hardware.target import load_target; "
        "from memplan.passes.graph_manager import chosen_graph_passes, run_graph_passes; "
        f"graph = memplan.read({str(layer)!r}); "
        "run_graph_passes(graph, chosen_graph_passes('auto'), GraphContext(load_target('tpu-v5e'))); "
        "print('jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_pass_that_breaks_the_program_is_named(layer: Path, tmp_path: Path) -> None:
    def rewrite(graph: memplan.Graph, context: GraphContext) -> RewrittenGraph:
        raise RuntimeError("gone")

    register_graph_pass(GraphPass("explosive", "raises", rewrite))
    out = tmp_path / "plan.json"
    with pytest.raises(MemplanError, match="pass explosive broke the program: RuntimeError: gone"):
        plan(layer, PassOptions("inline,explosive"), out=out)
    assert not out.exists()
