"""A program in JAX as a FitProblem: its groups of equations are the nodes, and what they write are the values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jax.extend.core import Literal

from memplan.compiler.errors import MemplanError
from memplan.compiler.frontends import jaxpr_versions as versions
from memplan.compiler.frontends.jaxpr_arrays import shape_of
from memplan.compiler.hardware.host import host_links
from memplan.compiler.hardware.target import Target
from memplan.compiler.ir.shape import print_shape
from memplan.passes.fit.costs import Costs
from memplan.passes.fit.groups import EquationGroup, groups_of
from memplan.passes.fit.inline_calls import in_one_piece
from memplan.passes.fit.kinds import Kind, bytes_of, can_repeat, kind_of
from memplan.passes.fit.reductions import reduction_workspace
from memplan.planners.fit.plan import FitPlan, Run
from memplan.planners.fit.problem import FitNode, FitProblem, FitValue, HostLink
from memplan.planners.fit.verifier import verify_fit

# Generators of random bits: the two words of a counter go through rounds of mixing.
_GENERATORS = frozenset({"random_bits", "threefry2x32"})


@dataclass(frozen=True)
class FitProgram:
    """A program and the problem that stands for it.

    Attributes:
      closed: the program in one piece, a `jax.extend.core.ClosedJaxpr`.
      problem: node i is group i, and value v is variable v.
      groups: of equations.
      variables: arguments, constants, and what groups write; None for a value that only keeps effects in order.
      donated: per argument of the program, whether results may reuse its memory.
    """

    closed: Any
    problem: FitProblem
    groups: tuple[EquationGroup, ...]
    variables: tuple[Any, ...]
    donated: tuple[bool, ...]

    @property
    def seconds(self) -> float:
        """How long one run of the program takes, as it stands."""
        return sum(node.seconds for node in self.problem.nodes)

    @property
    def as_written(self) -> FitPlan:
        """The plan that keeps everything and runs in the order of the program."""
        plan = FitPlan(tuple(Run(node) for node in range(len(self.groups))))
        return FitPlan(plan.steps, verify_fit(self.problem, plan).peak)


def program_of(
    closed: Any,
    target: Target,
    donated: Sequence[bool] = (),
    name: str = "program",
    offload: bool = False,
    platform: str = "cpu",
) -> FitProgram:
    """Returns the problem of fitting a program into a memory limit.

    Args:
      closed: the whole program, such as a training step with its backward pass and its optimizer.
      target: says how long everything takes.
      donated: per argument, whether results may reuse its memory; none by default.
      name: for messages.
      offload: whether values may be moved to the host, if the target has a link to it.
      platform: that it will be compiled for: "cpu", "tpu" or "gpu".

    Raises:
      MemplanError: the target has no link to a host, or the program holds what has no size.
    """
    closed = in_one_piece(closed)
    jaxpr, _ = versions.opened(closed)
    donated = tuple(donated) or (False,) * len(jaxpr.invars)
    if len(donated) != len(jaxpr.invars):
        raise MemplanError(f"{len(donated)} donations are stated for {len(jaxpr.invars)} arguments")
    maker = _Maker(jaxpr, Costs(target), platform)
    for number, (variable, label) in enumerate(zip(jaxpr.invars, versions.argument_names(jaxpr), strict=True)):
        maker.argument(variable, label, donated[number])
    for number, variable in enumerate(jaxpr.constvars):
        maker.argument(variable, f"constant {number}", False)
    groups = tuple(groups_of(jaxpr))
    for group in groups:
        maker.node(group)
    link = host_link(target) if offload else None
    problem = FitProblem(tuple(maker.values), tuple(maker.nodes), link, name)
    return FitProgram(closed, problem, groups, tuple(maker.variables), donated)


def has_host(target: Target) -> bool:
    """Whether values can be moved between a target's main memory and that of a host."""
    return host_links(target) is not None


def host_link(target: Target) -> HostLink:
    """Returns the link between a target's main memory and that of its host; MemplanError if it has none."""
    links = host_links(target)
    if links is None:
        raise MemplanError(f"{target.name} has no link to the memory of a host")
    there, back = links
    return HostLink(there.bandwidth, back.bandwidth, max(there.latency, back.latency))


class _Maker:
    """Values and nodes in the making."""

    def __init__(self, jaxpr: Any, costs: Costs, platform: str):
        self.jaxpr, self.costs, self.platform = jaxpr, costs, platform
        self.results = {atom for atom in jaxpr.outvars if not isinstance(atom, Literal)}
        self.values: list[FitValue] = []
        self.variables: list[Any] = []
        self.nodes: list[FitNode] = []
        self.number: dict[Any, int] = {}
        self.last_effect = -1  # the value that the latest node with an effect leaves to the next one

    def argument(self, variable: Any, name: str, is_donated: bool, size: int | None = None) -> None:
        self._value(variable, name, None, is_donated=is_donated, size=size)

    def _value(
        self, variable: Any, name: str, producer: int | None, origin: str = "", is_donated: bool = False,
        size: int | None = None,
    ) -> None:  # fmt: skip
        self.number[variable] = len(self.values)
        self.variables.append(variable)
        shape = shape_of(variable.aval)
        self.values.append(
            FitValue(
                name,
                bytes_of(variable.aval) if size is None else size,
                producer,
                is_result=variable in self.results and (producer is not None or is_donated),
                is_donated=is_donated,
                can_offload=hasattr(variable.aval, "dtype") and not versions.is_key_dtype(variable.aval.dtype),
                origin=origin,
                shape=print_shape(shape),
            )
        )

    def node(self, group: EquationGroup) -> None:
        """Appends a group and what it writes."""
        place = len(self.nodes)
        root = self.jaxpr.eqns[group.root]
        origin = versions.origin(root)
        for variable in group.writes:
            self._value(variable, f"{root.primitive.name}.{place}", place, origin)
        reads = [self.number[variable] for variable in group.reads]
        writes = [self.number[variable] for variable in group.writes]
        if root.effects:
            reads += [self.last_effect] if self.last_effect >= 0 else []
            self.last_effect = len(self.values)
            writes.append(self.last_effect)
            self.variables.append(None)
            self.values.append(FitValue(f"effect.{place}", 0, place, can_offload=False))
        self.nodes.append(
            FitNode(
                f"{root.primitive.name}.{place}",
                tuple(reads),
                tuple(writes),
                self.costs.seconds(self.jaxpr, group),
                all(can_repeat(self.jaxpr.eqns[member]) for member in group.members),
                workspace_of(self.jaxpr, group, self.costs, self.platform),
                tuple((self.number[written], self.number[read]) for written, read in group.in_place),
                origin,
            )
        )

    def slice(self, variable: Any) -> None:
        """Appends a node that reads an element of a stack into a buffer."""
        self._value(variable, f"slice.{len(self.nodes)}", len(self.nodes))
        self.nodes.append(FitNode(f"slice.{len(self.nodes)}", (), (self.number[variable],), 0.0))


def workspace_of(jaxpr: Any, group: EquationGroup, costs: Costs, platform: str) -> int:
    """Returns the bytes that a group needs while it runs, beside what it reads and writes."""
    equation = jaxpr.eqns[group.root]
    name, params = equation.primitive.name, equation.params
    if name == "scan":
        first = sum(versions.scan_counts(params))
        return body_peak(params["jaxpr"], costs, platform, first)
    if name == "while":
        return max(body_peak(params[part], costs, platform) for part in ("cond_jaxpr", "body_jaxpr"))
    if name == "cond":
        return max(body_peak(branch, costs, platform) for branch in params["branches"])
    if name in _GENERATORS:
        return 2 * sum(bytes_of(variable.aval) for variable in equation.outvars)
    return reduction_workspace(jaxpr, group) if platform == "cpu" else 0


def body_peak(closed: Any, costs: Costs, platform: str, first_slice: int | None = None) -> int:
    """Returns the most bytes that the values made within a body need at once, its arguments not counted.

    Args:
      closed: the body of a loop or a branch.
      costs: of the target.
      platform: see `program_of`.
      first_slice: the first of its arguments that are elements of stacks, if there are such; a library reads an
        element from a buffer of its own, other equations from its place in the stack.
    """
    jaxpr, _ = versions.opened(closed)
    maker = _Maker(jaxpr, costs, platform)
    slices = set(jaxpr.invars[first_slice:]) if first_slice is not None else set()
    groups = groups_of(jaxpr)
    copied = {
        variable
        for group in groups
        if kind_of(jaxpr.eqns[group.root]) is Kind.OPAQUE
        for variable in group.reads
        if variable in slices
    }
    for variable in (*jaxpr.invars, *jaxpr.constvars):
        if variable not in copied:
            maker.argument(variable, "argument", False, size=0)
    for group in groups:
        for variable in group.reads:
            if variable not in maker.number:
                maker.slice(variable)
        maker.node(group)
    problem = FitProblem(tuple(maker.values), tuple(maker.nodes))
    plan = FitPlan(tuple(Run(node) for node in range(len(maker.nodes))))
    return verify_fit(problem, plan).peak
