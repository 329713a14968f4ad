"""What a user does with a program: state its problem, plan it, verify, emulate and execute the plan.

Each function ties stages of the compiler together; `memplan` exports them, and the command calls them as users do.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memplan.compiler.effort import Effort, check_time_limit, effort_of
from memplan.compiler.emulator.timing import Timeline
from memplan.compiler.emulator.timing import emulate as emulate_problem
from memplan.compiler.errors import GraphError, MemplanError, PlanError
from memplan.compiler.frontends import parse_hlo
from memplan.compiler.hardware.guess import guess_target, guessed_target, in_any_memory
from memplan.compiler.hardware.target import Target, known_target, load_target
from memplan.compiler.ir import Graph
from memplan.compiler.ir.trip_count import with_trip_counts
from memplan.compiler.mapping.build import build, build_problem
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import MappingProblem
from memplan.compiler.mapping.verify import Violation, check_belongs
from memplan.compiler.mapping.verify import verify as verify_problem
from memplan.planners import planner as planners
from memplan.planners.planner import DEFAULT_PLANNER as DEFAULT_PLANNER
from memplan.planners.planner import Budget

if TYPE_CHECKING:
    from memplan.compiler.report.peak import Peak

# More violations than these are counted rather than listed.
_MAX_LISTED = 20


def problem(
    graph: Graph, target: str | Path | Target, *, trip_counts: Mapping[str, int] | None = None
) -> MappingProblem:
    """Returns the problem of mapping a program's buffers to a target's memories.

    Args:
      graph: the program.
      target: a target, its name, or a TOML file that describes it.
      trip_counts: name of a loop to how often it runs. The problem's `assumptions` are the loops whose counts the
        program does not say.

    Raises:
      TargetError: the target is not known or makes no sense.
      GraphError: the Graph breaks a rule of the IR, or has no loop of such a name.
    """
    graph = with_trip_counts(graph, trip_counts or {})
    return build_problem(graph, target if isinstance(target, Target) else load_target(target))


def plan(
    program: Graph | MappingProblem,
    target: str | Path | Target | None = None,
    planner: str | planners.Planner = DEFAULT_PLANNER,
    effort: str | Effort = Effort.NORMAL,
    time_limit: float | None = None,
) -> Plan:
    """Returns a plan for a program.

    Args:
      program: a Graph, or a problem that was made of one.
      target: what to plan for: a target, its name, or a TOML file. By default, a Graph is planned for what it was
        compiled for. A problem states its own target.
      planner: what makes the plan, or its name.
      effort: how much work the planner does: `fast`, `normal` or `high`. The work is counted, so the same program and
        effort give the same plan on every machine.
      time_limit: seconds after which the best plan so far is returned; None for no limit. If it cuts the work short,
        the plan's `info` says so (`stopped`), and another machine may give another plan.

    Raises:
      MemplanError: the planner, target or effort is not known, or the planner cannot solve this problem.
    """
    check_time_limit(time_limit)
    chosen = planners.get(planner) if isinstance(planner, str) else planner
    return chosen.plan(_as_problem(program, target), Budget(effort_of(effort), time_limit=time_limit))


def verify(program: Graph | MappingProblem, plan: Plan, target: str | Path | Target | None = None) -> list[Violation]:
    """Returns every rule that a plan breaks; none means that it is valid.

    Args:
      program: a Graph, or the problem that was made of it.
      plan: for it.
      target: what the plan was made for, by default the target that the plan names. A problem states its own.

    Raises:
      PlanError: the plan was made for another program or target.
    """
    return verify_problem(_problem_of(plan, program, target), plan)


def emulate(program: Graph | MappingProblem, plan: Plan, target: str | Path | Target | None = None) -> Timeline:
    """Returns when everything happens under a plan, and its latency.

    Args:
      program: a Graph, or the problem that was made of it.
      plan: a valid plan for it.
      target: what the plan was made for, by default the target that the plan names. A problem states its own.

    Raises:
      PlanError: the plan was made for another program or target.
    """
    return emulate_problem(_problem_of(plan, program, target), plan)


def execute(graph: Graph, plan: Plan, *args: Any, target: str | Path | Target | None = None) -> Any:
    """Returns the results of a traced function, computed in the memories that a plan gives its tensors.

    Each memory space is an array of bytes. Every tensor is written to and read from the offset of its residency, and
    every copy of the plan is really made. Bytes that no residency holds are poisoned, so the results show whether the
    plan is right. The instructions are computed one by one by JAX, so they equal the function's results under
    `jax.disable_jit` bit for bit; the compiled function rounds differently where XLA fuses.

    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> import memplan
    >>> def layer(x, w):
    ...     return {"y": jnp.tanh(x @ w)}
    >>> x, w = jnp.ones((2, 3)), jnp.ones((3, 4))
    >>> graph = memplan.trace(layer, x, w)
    >>> results = memplan.execute(graph, memplan.plan(graph, "generic", effort="fast"), x, w)
    >>> np.testing.assert_allclose(results["y"], layer(x, w)["y"], rtol=1e-6)

    Args:
      graph: made by `memplan.trace`, perhaps rewritten by passes.
      plan: for it.
      *args: the arguments of the traced function without its static ones: pytrees of jax or numpy arrays of the shapes
        and types that it was traced with.
      target: what the plan was made for, by default the target that the plan names.

    Returns:
      The pytree that the function returns, with numpy arrays as its leaves (random keys as the integers under them).

    Raises:
      GraphError: the Graph was read from a file; an instruction cannot be executed here (the message names it and its
        line in the user's program); the arguments are not those of the program.
      PlanError: the plan was made for another program or target, or is not valid; the message lists its violations.
    """
    if graph.origin != "jaxpr":
        raise GraphError(
            f"{graph.name} was read from {graph.file or 'a text'}, which does not hold what its instructions compute: "
            f"only programs that memplan.trace made can be executed"
        )
    from memplan.compiler.emulator import values

    built = build(graph, _target_of(plan, target))
    check_belongs(built.problem, plan)
    if violations := verify_problem(built.problem, plan):
        listed = [f"{violation.rule}: {violation.message}" for violation in violations[:_MAX_LISTED]]
        if len(violations) > _MAX_LISTED:
            listed.append(f"and {len(violations) - _MAX_LISTED} more; memplan.verify returns them all")
        raise PlanError("\n  ".join([f"the plan of {plan.name!r} is not valid, so it is not executed:", *listed]))
    results = values.execute(built, plan, *args)
    return results if graph.result_tree is None else graph.result_tree.unflatten(results)


def peak(
    program: Any,
    target: str | Path | Target | None = None,
    *,
    limit: int | str | None = None,
    by: str = "layer",
) -> Peak:
    """Returns when the peak of each memory is, what stands there, and what being rid of it would be worth.

    >>> import jax, jax.numpy as jnp
    >>> import memplan
    >>> x = jax.ShapeDtypeStruct((256, 256), jnp.float32)
    >>> found = memplan.peak(jax.jit(lambda x: jnp.tanh(x @ x) @ x).lower(x).compile(), limit="16MiB")
    >>> found.fits, found.main.bytes == sum(group.bytes for group in found.main.groups)
    (True, True)

    Args:
      program: a Graph in order of execution, or a `jax.stages.Compiled`, whose `memory_analysis()` then stands beside.
      target: says which memories there are and what operations and copies take; by default what the program was
        compiled for, as far as it says so.
      limit: bytes of the main memory, such as `"16GiB"`; None for any number.
      by: what the buffers of a group have in common: "line", "op", "shape" or "layer".

    Raises:
      MemplanError: the limit or `by` makes no sense, or the target is not known.
      GraphError: the Graph breaks a rule of the IR.
    """
    from memplan.backends.fit.limit import limit_of
    from memplan.compiler.report.buffers import GroupBy
    from memplan.compiler.report.peak import find_peak
    from memplan.compiler.report.stated import stated_by_jax

    if by not in list(GroupBy):
        raise MemplanError(f"by must be one of {', '.join(GroupBy)}, not {by!r:.60}")
    statement, pointer_bytes = None, 0
    if not isinstance(program, Graph):
        statement = stated_by_jax(program.memory_analysis())
        program = parse_hlo(program.as_text())
        # XLA has tables of tuples, except on TPUs.
        pointer_bytes = 0 if guess_target(program).name.startswith("tpu") else 8
    described = in_any_memory(guessed_target(program)) if target is None else target
    return find_peak(
        program,
        described if isinstance(described, Target) else load_target(described),
        by=GroupBy(by),
        limit=None if limit is None else limit_of(limit),
        statement=statement,
        pointer_bytes=pointer_bytes,
    )


def _problem_of(plan: Plan, program: Graph | MappingProblem, target: str | Path | Target | None) -> MappingProblem:
    """Returns the problem that a plan is for, by default for the target that it names; PlanError if it is another."""
    answered = program if isinstance(program, MappingProblem) else problem(program, _target_of(plan, target))
    check_belongs(answered, plan)
    return answered


def _target_of(plan: Plan, target: str | Path | Target | None) -> Target:
    """Returns what the user says, else the target that a plan names, which may be no file."""
    if target is None:
        return known_target(plan.target)
    return target if isinstance(target, Target) else load_target(target)


def _as_problem(program: Graph | MappingProblem, target: str | Path | Target | None) -> MappingProblem:
    if isinstance(program, MappingProblem):
        return program
    return problem(program, target if target is not None else guessed_target(program))
