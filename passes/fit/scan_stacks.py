"""What scans stack for their backward scans: each residual is kept, or computed again inside the backward body.

At a *price* in bytes per second, the values to stack follow from a minimum cut: the sum of the stacked bytes and of the
price times the seconds computed again is the least possible (as in PyTorch's min-cut partitioner of forward and
backward graphs). Each price gives one point on the convex hull of bytes against seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import networkx as nx
from jax.extend.core import Literal

from memplan.compiler.frontends import jaxpr_versions as versions
from memplan.compiler.frontends.jaxpr_arrays import prepended, shape_of
from memplan.compiler.ir.shape import print_shape
from memplan.passes.fit.costs import Costs
from memplan.passes.fit.groups import EquationGroup, groups_of
from memplan.passes.fit.inline_calls import in_one_piece
from memplan.passes.fit.kinds import bytes_of, can_repeat
from memplan.passes.fit.scan_pairs import Residual, ScanPair, Stacked, restacked, scan_pairs
from memplan.passes.jaxprs import everywhere, producers

# A price at which everything is stacked.
KEEP_ALL = float("inf")
_NUM_PRICES = 8
_UNIT = 1 << 20  # of the capacities of cuts, which are integers, per second or byte at the price


@dataclass(frozen=True)
class ScanAlternative:
    """A program whose scans stack other values.

    Attributes:
      closed: the program.
      residuals: what is decided for each.
    """

    closed: Any
    residuals: tuple[Residual, ...] = ()


def prices(closed: Any, costs: Costs) -> list[float]:
    """Returns prices at which a program may stack different values, from the highest to 0; none without pairs."""
    ratios = []
    for pair in _all_pairs(closed):
        for group in groups_of(pair.forward.body):
            seconds = costs.seconds(pair.forward.body, group)
            written = sum(bytes_of(variable.aval) for variable in group.writes)
            if seconds > 0 and written > 0:
                ratios.append(written / seconds)
    if not ratios:
        return []
    low, high = min(ratios) / 8, max(ratios) * 2
    step = (high / low) ** (1 / (_NUM_PRICES - 1))
    return [high / step**k for k in range(_NUM_PRICES)] + [0.0]


def _all_pairs(closed: Any) -> Iterator[ScanPair]:
    found: list[ScanPair] = []

    def look(inner: Any) -> Any:
        found.extend(scan_pairs(versions.opened(inner)[0]))
        return inner

    everywhere(closed, look)
    yield from found


def alternatives(closed: Any, costs: Costs) -> list[ScanAlternative]:
    """Returns the program itself, and with what its scans stack at each price, from the highest price to the lowest.

    Args:
      closed: in one piece, see `inline_calls.py`.
      costs: of the target.
    """
    found, seen = [ScanAlternative(closed)], set()
    for price in prices(closed, costs):
        decided: list[Stacked] = []
        changed = at_price(closed, price, costs, decided)
        key = tuple((chosen.again, tuple(bytes_of(variable.aval) for variable in chosen.kept)) for chosen in decided)
        if changed is not closed and key not in seen:
            seen.add(key)
            residuals = tuple(residual for chosen in decided for residual in chosen.residuals)
            found.append(ScanAlternative(in_one_piece(changed), residuals))
    return found


def at_price(closed: Any, price: float, costs: Costs, decided: list[Stacked] | None = None) -> Any:
    """Returns a program whose scans stack what is best at a price, on all levels.

    Args:
      closed: in one piece, see `inline_calls.py`.
      price: bytes that a second is worth.
      costs: of the target.
      decided: to append each decision to.
    """
    decided = [] if decided is None else decided
    return everywhere(closed, lambda inner: _level_at_price(inner, price, costs, decided))


def _level_at_price(closed: Any, price: float, costs: Costs, decided: list[Stacked]) -> Any:
    done: set[int] = set()
    while True:
        jaxpr = closed.jaxpr
        pending = [pair for pair in scan_pairs(jaxpr) if id(pair.backward.equation) not in done]
        if not pending:
            return closed
        done.add(id(pending[0].backward.equation))
        chosen = choice(pending[0], price, costs, _free_stacks(jaxpr, pending[0]))
        decided.append(replace(chosen, residuals=tuple(_residuals(pending[0], chosen))))
        if chosen.again or set(chosen.kept) != {pending[0].atom(number) for number, _ in pending[0].residuals}:
            closed, backward = restacked(closed, pending[0], chosen)
            done.add(id(backward))


def _residuals(pair: ScanPair, chosen: Stacked) -> Iterator[Residual]:
    """Yields what is decided for each residual of a pair, and for what is stacked in place of residuals."""
    made = producers(pair.forward.body)
    length = pair.forward.equation.params["length"]
    atoms = [pair.atom(number) for number, _ in pair.residuals]
    for atom in dict.fromkeys([*(atom for atom in atoms if not isinstance(atom, Literal)), *chosen.kept]):
        equation = made.get(atom)
        shape = prepended(shape_of(atom.aval), length)
        yield Residual(
            "argument" if equation is None else equation.primitive.name,
            versions.origin(pair.forward.equation if equation is None else equation),
            print_shape(shape),
            shape.bytes,
            atom in chosen.kept,
        )


def _free_stacks(jaxpr: Any, pair: ScanPair) -> set[Any]:
    """Returns the variables of the forward body that stand for stacks which are there later on anyway."""
    arguments = {*jaxpr.invars, *jaxpr.constvars}
    last = jaxpr.eqns.index(pair.backward.equation)
    later = {atom for equation in jaxpr.eqns[last:] for atom in equation.invars if not isinstance(atom, Literal)}
    later.update(atom for atom in jaxpr.outvars if not isinstance(atom, Literal))
    names = zip(pair.forward.body.invars[pair.forward.first_stack :], pair.forward.parts[2], strict=True)
    return {name for name, stack in names if isinstance(stack, Literal) or stack in arguments or stack in later}


def choice(pair: ScanPair, price: float, costs: Costs, free_stacks: set[Any]) -> Stacked:
    """Returns what is best to stack for a pair at a price, by a minimum cut.

    Args:
      pair: to decide for.
      price: bytes that a second is worth.
      costs: of the target.
      free_stacks: variables of the forward body whose stacks stay in memory anyway.
    """
    body = pair.forward.body
    free = {*body.invars[: pair.forward.num_consts], *body.constvars, *free_stacks}
    groups = groups_of(body)
    needed = [atom for atom in (pair.atom(number) for number, _ in pair.residuals) if not isinstance(atom, Literal)]
    graph = nx.DiGraph()
    given = [variable for variable in body.invars if variable not in free]
    for variable in (*given, *(variable for group in groups for variable in group.writes)):
        # Below the cut a value is needed in the backward body; if its upper half is so too, it is computed there.
        graph.add_edge(("made", variable), ("read", variable), capacity=_UNIT * max(bytes_of(variable.aval), 1))
    for variable in given:
        graph.add_edge("stacked", ("made", variable))
    for number, group in enumerate(groups):
        repeatable = all(can_repeat(body.eqns[member]) for member in group.members)
        if not repeatable or price == KEEP_ALL:
            graph.add_edge("stacked", number)
        else:
            graph.add_edge("stacked", number, capacity=round(_UNIT * price * costs.seconds(body, group)) + 1)
        for variable in group.writes:
            graph.add_edge(number, ("made", variable))
        for variable in group.reads:
            if variable not in free:
                graph.add_edge(("read", variable), number)
    for atom in needed:
        if atom not in free:
            graph.add_edge(("read", atom), "needed")
    if "needed" not in graph:
        return Stacked((), ())
    _, (above, _) = nx.minimum_cut(graph, "stacked", "needed")
    kept = [
        variable
        for kind, variable in (node for node in graph if isinstance(node, tuple))
        if kind == "made" and ("made", variable) in above and ("read", variable) not in above
    ]
    again = [group for number, group in enumerate(groups) if number not in above]
    return Stacked(tuple(kept), _needed_equations(body, again, needed, {*kept, *free}))


def _needed_equations(
    body: Any, groups: list[EquationGroup], needed: Sequence[Any], there: set[Any]
) -> tuple[int, ...]:
    """Returns the places of the equations of groups that lead from values that are there to those that are needed."""
    members = {member for group in groups for member in group.members}
    wanted = {atom for atom in needed if atom not in there}
    found = []
    for place in reversed(range(len(body.eqns))):
        equation = body.eqns[place]
        if place in members and not wanted.isdisjoint(equation.outvars):
            found.append(place)
            wanted.update(atom for atom in equation.invars if not isinstance(atom, Literal) and atom not in there)
    return tuple(reversed(found))
