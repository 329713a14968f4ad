"""How long groups of equations take, by the roofline of the target: what they compute, and the buffers they touch."""

from __future__ import annotations

from typing import Any

import jax

from memplan.compiler.errors import MemplanError
from memplan.compiler.frontends import jaxpr_versions as versions
from memplan.compiler.frontends.jaxpr import graph_of_jaxpr
from memplan.compiler.hardware.cost_model import compute_seconds
from memplan.compiler.hardware.roofline import duration
from memplan.compiler.hardware.target import Target
from memplan.compiler.hardware.work import NOTHING, Work, add_work, total_work
from memplan.passes.fit.groups import EquationGroup, groups_of
from memplan.passes.fit.kinds import bytes_of
from memplan.passes.jaxprs import struct

# How often a loop is assumed to run whose program does not say it.
_UNKNOWN_TRIPS = 10


class Costs:
    """The times of equations on one target; equal equations are examined once.

    Args:
      target: its main memory is the one that XLA numbers 0.
    """

    def __init__(self, target: Target):
        self._target = target
        self._bandwidth = target.spaces[max(target.space_of_xla(0), 0)].bandwidth
        self._works: dict[Any, Work] = {}

    def seconds(self, jaxpr: Any, group: EquationGroup) -> float:
        """Returns how long one run of a group takes."""
        root = jaxpr.eqns[group.root]
        inner = self._inside(root)
        touched = sum(bytes_of(variable.aval) for variable in (*group.reads, *group.writes))
        if inner is not None:
            # What a loop or a branch reads and writes is part of what its body does.
            others = add_work(self._work(jaxpr.eqns[place]) for place in group.members[:-1])
            return inner + compute_seconds(others, self._target) + self._target.compute.launch_seconds
        work = add_work(self._work(jaxpr.eqns[place]) for place in group.members)
        demand = touched / self._bandwidth + self._target.compute.launch_seconds
        return float(duration(compute_seconds(work, self._target), demand))

    def total(self, jaxpr: Any) -> float:
        """Returns how long one run of a jaxpr takes, group by group."""
        return sum(self.seconds(jaxpr, group) for group in groups_of(jaxpr))

    def _inside(self, equation: Any) -> float | None:
        """Returns the seconds of a loop or a branch; None for another equation."""
        name, params = equation.primitive.name, equation.params
        if name == "scan":
            return float(params["length"]) * self.total(versions.opened(params["jaxpr"])[0])
        if name == "while":
            parts = (versions.opened(params[part])[0] for part in ("cond_jaxpr", "body_jaxpr"))
            return _UNKNOWN_TRIPS * sum(map(self.total, parts))
        if name == "cond":
            return max(self.total(versions.opened(branch)[0]) for branch in params["branches"])
        return None

    def _work(self, equation: Any) -> Work:
        key = (equation.primitive, tuple(str(v.aval) for v in equation.invars), str(equation.params))
        if key not in self._works:
            self._works[key] = _work_of(equation)
        return self._works[key]


def _work_of(equation: Any) -> Work:
    """Returns the arithmetic of one equation; none where it cannot be counted."""
    try:
        alone = jax.make_jaxpr(versions.binder(equation))(*(struct(atom.aval) for atom in equation.invars))
        return total_work(graph_of_jaxpr(alone))
    except MemplanError:
        return NOTHING
