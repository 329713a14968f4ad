"""The mapping as a linear or integer program that allows everything that a valid plan can do: a relaxation.

No plan beats its optimum, nor any lower bound of it. Copies are a fluid. Two rules of the timing emulator are kept: in
every part of the program, the copies of a channel take no more time than operations and waits leave of it, and each
copy takes at least its link's latency and the time of its bytes. Queues are left out, and memory is accounted for by
sums of sizes.

**Values.** Each buffer is followed from point to point, in the order of execution. The points are its accesses, and the
borders of loops and branches that contain accesses. A number between 0 and 1 says, for each point and space, whether
the value is current there (see `mapping/value_flow.py`). In the gap between two points the value is *kept* in a space
or *copied* to another:

    point        gap                     point
    state s ──── kept in s ≤ state s ──┬── state s ≤ kept in s + copied to s        reads served by s ≤ state s
    state q ──── copied q → s ≤ state q┘   state q ≤ state q + copied to q           a write: state s = written to s

At the start of a loop the value is in a space only if it is there both on entry and after an iteration, and after a
conditional only if it is there after every branch.

**Copies.** The time in which a copy may move is covered by nodes of a dyadic tree (`tree.py`), which are finer where
the copy is more likely to be made. A number says how much of the copy has moved before each node. What moves within a
node uses time in which the channel is idle there; the nodes form a laminar family, so by Hall's theorem it is enough to
check each node. The destination of a copy is occupied from its start, hence at least for the part that has moved, and
its source is occupied until its end, for the part that has not.

**Totals.** All seconds are those of the whole program: sums over all runs of what runs repeatedly, and expectations
over branches. A copy starts and is done in the same region, so it is made as often as its region runs.

Sources: the memory of tensors as an integer program over their uses is that of Steiner et al., "MODeL: memory
optimizations for deep learning", 2023; work as a fluid in windows of time is preemptive scheduling (Horn, "Some simple
scheduling algorithms", 1974).
"""

from __future__ import annotations

from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners.ilp.clock import write_clock
from memplan.planners.ilp.memory import write_memory
from memplan.planners.ilp.model import Precision, Relaxation, Span
from memplan.planners.ilp.values import write_values


def relax(problem: MappingProblem, span: Span | None = None, precision: Precision | None = None) -> Relaxation:
    """Returns the relaxation of a problem.

    Args:
      problem: the mapping.
      span: the part of the program that the model is about; all of it by default.
      precision: how fine the model is.
    """
    model = Relaxation(problem, span, precision)
    write_values(model)
    write_clock(model)
    write_memory(model)
    return model
