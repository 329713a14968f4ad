"""What is not costed is listed, and nothing else."""

from __future__ import annotations

import io
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console
from sample_modules import ALL_TEXTS, EVERY_OPCODE, name_of, text_of

import memplan
from memplan.compiler.frontends import parse_hlo
from memplan.compiler.hardware.target import load_target
from memplan.compiler.hardware.uncosted import MOVING, uncosted
from memplan.compiler.hardware.work import COUNTED, FLATTENED, WorkCounter
from memplan.compiler.ir.opcodes import OPERANDS
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.report.report import make_report
from memplan.compiler.report.schema import report_json
from memplan.compiler.report.tables import print_report
from memplan.planners import planner as planners
from memplan.planners.planner import Budget

MODULE = """
HloModule m, is_scheduled=true

ENTRY e {{
  a = f32[64,64]{{1,0}} parameter(0)
  b = f32[64,64]{{1,0}} {first}
  ROOT c = f32[64,64]{{1,0}} {second}
}}
"""


def listed(first: str, second: str = "tanh(b)", target: str = "tpu-v5e") -> tuple[str, ...]:
    return uncosted(parse_hlo(MODULE.format(first=first, second=second)), load_target(target))


def test_all_that_is_costed() -> None:
    assert listed("dot(a, a), lhs_contracting_dims={1}, rhs_contracting_dims={0}") == ()
    assert listed("transpose(a), dimensions={1,0}") == ()


def test_a_custom_call_is_listed_once() -> None:
    call = 'custom-call({}), custom_call_target="mine"'
    (said,) = listed(call.format("a"), call.format("b"))
    assert said == (
        "what the custom call 'mine' computes is not known: its arithmetic counts as nothing, its data as read and "
        "written once (2 times: b, c)"
    )


@pytest.mark.parametrize(
    "call",
    [
        'custom_call_target="Sharding"',
        'custom_call_target="__onednn$matmul"',
        'custom_call_target="tpu_custom_call", backend_config={"cost_estimate":{"flops":"7"}}',
        'custom_call_target="mine", backend_config={"window_config":{"estimated_cycles":"44851"}}',
    ],
)
def test_a_custom_call_that_is_known(call: str) -> None:
    assert listed(f"custom-call(a), {call}") == ()


def test_estimates_mean_nothing_for_a_target_without_a_clock() -> None:
    call = 'custom-call(a), custom_call_target="mine", backend_config={"window_config":{"estimated_cycles":"44851"}}'
    assert len(listed(call, target="h200")) == 1


def test_collectives_and_transfers() -> None:
    (said,) = listed("collective-permute(a), source_target_pairs={{0,1}}")
    assert (
        said
        == "collective-permute takes the time of the links between devices in the target's file, on a line or ring (once: b)"
    )
    (said,) = listed("collective-permute(a), source_target_pairs={{0,1}}", target="h200")
    assert said == "collective-permute takes no time between devices, only in memory (once: b)"


def test_an_opcode_that_is_not_known() -> None:
    (said,) = listed("frobnicate(a)")
    assert said.startswith("frobnicate is not known: its arithmetic counts as nothing")


def test_every_opcode_of_xla_is_counted_or_moves_or_is_listed() -> None:
    between = {"all-gather", "all-to-all", "collective-broadcast", "collective-permute", "ragged-all-to-all"}
    host = {"infeed", "outfeed", "recv", "send"}
    plain = {op for op in OPERANDS if not op.endswith(("-start", "-done", "-update"))}
    known = COUNTED | MOVING | FLATTENED | between | host
    assert plain - known <= {"shuffle"}
    assert not COUNTED & MOVING


@pytest.mark.parametrize("file", ALL_TEXTS, ids=name_of)
def test_what_counts_as_nothing_moves_or_is_listed(file: Path) -> None:
    graph = parse_hlo(text_of(file))
    said = " ".join(uncosted(graph, load_target("generic")))
    counter = WorkCounter(graph)
    for computation, instruction in graph.instructions():
        opcode = instruction.opcode
        is_begun = opcode.endswith(("-start", "-done", "-update"))
        if is_begun or opcode in MOVING or opcode in FLATTENED or instruction.shape.bytes == 0:
            continue
        work = counter.of(computation, instruction)
        if not work.total_flops and not work.transcendentals and opcode not in COUNTED:
            assert opcode in said, instruction


def test_a_problem_its_file_and_its_report_say_it() -> None:
    problem = memplan.problem(memplan.read(EVERY_OPCODE), "tpu-v5e")
    assert any("all-reduce takes the time of the links between devices" in said for said in problem.notes)
    read = MappingProblem.from_json(problem.to_json())
    assert read.notes == problem.notes
    assert read.fingerprint == problem.fingerprint
    older = json.loads(problem.to_json())
    del older["notes"]
    assert MappingProblem.from_json(json.dumps(older)).notes == ()
    report = make_report(problem, planners.get("slow").plan(problem, Budget()))
    assert report_json(report)["notes"] == list(problem.notes)
    shown = io.StringIO()
    print_report(report, Console(file=shown, width=200))
    assert all(f"Note: {said}" in shown.getvalue() for said in problem.notes)


def test_a_callback_of_a_traced_program() -> None:
    struct = jax.ShapeDtypeStruct((8, 8), jnp.float32)
    graph = memplan.trace(lambda x: jax.pure_callback(np.sin, struct, x), struct)
    (said,) = uncosted(graph, load_target("generic"))
    assert said.startswith("pure_callback is not known")
