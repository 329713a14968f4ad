"""The order of a plan in a compiled module, and what the model expects the compiler to state."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from jax.extend.core import jaxpr_as_fun
from training_programs import mlp, recomputing, scanned, traced

from memplan.backends.fit.plan_order import in_order_of_steps, plan_order
from memplan.backends.fit.prediction import predicted_temporaries
from memplan.backends.order_hook import ordering
from memplan.compiler.hardware.target import load_target
from memplan.compiler.ir.graph import Computation, Instruction, Source
from memplan.compiler.ir.shape import Shape
from memplan.passes.fit.program import program_of
from memplan.passes.rematerialize import rematerialized


def instruction(name: str, operands: tuple[int, ...] = (), step: int | None = None) -> Instruction:
    scope = "" if step is None else f"jit(f)/memplan_step_{step}/add"
    return Instruction(name, "custom-call", Shape("f32", (4,)), operands, source=Source(op_name=scope))


def test_instructions_run_at_their_steps_and_what_has_none_just_before_its_reader() -> None:
    rows = [
        instruction("a", (), 5),
        instruction("copy", ()),
        instruction("b", (1,), 3),
        instruction("c", (0, 2), 4),
        instruction("left", ()),
    ]
    order = in_order_of_steps(Computation("entry", tuple(rows), root=3))
    assert [rows[place].name for place in order] == ["copy", "b", "a", "c", "left"]


def test_the_step_is_the_outermost_scope_of_that_name() -> None:
    rows = [
        Instruction("x", "add", Shape("f32"), source=Source(op_name="jit(f)/memplan_step_9/memplan_step_1/add")),
        Instruction("y", "add", Shape("f32"), source=Source(op_name="jit(f)/my_memplan_step_0/add")),
        Instruction("z", "add", Shape("f32"), source=Source(op_name="jit(f)/memplan_step_2/add")),
    ]
    assert in_order_of_steps(Computation("entry", tuple(rows), root=2)) == [2, 0, 1]


@pytest.mark.parametrize("make", [mlp, scanned])
def test_the_compiled_program_runs_as_planned_and_needs_about_what_is_predicted(make: Any) -> None:
    step, args = make(layers=6, batch=256)
    program = program_of(traced(step, args), load_target("generic"))
    plan = recomputing(program.problem, lambda value: "add" in program.problem.values[value].name)
    for each in (plan, program.as_written):
        closed = rematerialized(program, each)
        with ordering(plan_order, platform="cpu") as outcome:
            compiled = jax.jit(jaxpr_as_fun(closed)).lower(*jax.tree.leaves(args)).compile()
        assert not outcome.refused
        stated = compiled.memory_analysis().temp_size_in_bytes
        assert stated == pytest.approx(predicted_temporaries(program.problem, each), rel=0.15)


def test_values_lie_in_the_buffers_of_results_that_are_not_there_yet() -> None:
    def fun(x: Any) -> Any:
        first = jax.numpy.exp(x) @ x
        return jax.numpy.sin(first) @ x

    program = program_of(jax.make_jaxpr(fun)(np.ones((16, 16), np.float32)), load_target("generic"))
    # Of exp(x), the product and its sine, one lies in the result's buffer, and two are there at once.
    assert predicted_temporaries(program.problem, program.as_written) in (1024, 2048)
