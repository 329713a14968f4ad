"""Problems of fit that tests share: chains, random graphs, and what a schedule needs, executed step by step."""

from __future__ import annotations

import random

from memplan.planners.fit.plan import FitPlan, Load, Loaded, Run, Store, Stored
from memplan.planners.fit.problem import FitNode, FitProblem, FitValue, HostLink


def chain(layers: int, size: int = 10, seconds: float = 1.0, host: HostLink | None = None) -> FitProblem:
    """Returns a training step over a chain of equal layers: activations of the forward pass are read in reverse.

    Values: x (0), activations 1 … layers, then gradients. Backward node i reads activation i - 1 and a gradient.
    """
    values = [FitValue("x", size, is_donated=False)]
    nodes = []
    for i in range(layers):
        values.append(FitValue(f"a{i + 1}", size, producer=i))
        nodes.append(FitNode(f"f{i + 1}", (i,), (i + 1,), seconds))
    gradient = layers
    for i in reversed(range(layers)):
        k = len(nodes)
        values.append(FitValue(f"g{i}", size, producer=k, is_result=i == 0))
        nodes.append(FitNode(f"b{i}", tuple(dict.fromkeys((i, gradient))), (len(values) - 1,), seconds))
        gradient = len(values) - 1
    return FitProblem(tuple(values), tuple(nodes), host, "chain")


def random_problem(seed: int, num_nodes: int, host: bool = False, reach: int = 0) -> FitProblem:
    """Returns a random graph; `reach` limits how far back nodes read, 0 for any distance."""
    draw = random.Random(seed)
    values = [FitValue(f"x{i}", draw.randint(1, 9), is_donated=draw.random() < 0.5) for i in range(draw.randint(1, 2))]
    nodes: list[FitNode] = []
    for k in range(num_nodes):
        first = max(0, len(values) - reach) if reach else 0
        known = range(first, len(values))
        inputs = tuple(sorted(draw.sample(known, min(len(known), draw.randint(1, 3)))))
        outputs = []
        for _ in range(1 + (draw.random() < 0.2)):
            outputs.append(len(values))
            values.append(FitValue(f"v{len(values)}", draw.randint(1, 9), k, draw.random() < 0.1))
        pairs = ((outputs[0], inputs[-1]),) if draw.random() < 0.3 else ()
        nodes.append(
            FitNode(
                f"n{k}",
                inputs,
                tuple(outputs),
                float(draw.randint(1, 9)),
                draw.random() < 0.9,
                draw.randint(0, 4) * (draw.random() < 0.2),
                pairs,
            )
        )
    link = HostLink(draw.choice([1.0, 4.0]), draw.choice([1.0, 4.0]), draw.choice([0.0, 0.5])) if host else None
    return FitProblem(tuple(values), tuple(nodes), link, f"random {seed}")


def in_order(problem: FitProblem) -> FitPlan:
    """Returns the schedule of the program as it is."""
    return FitPlan(tuple(Run(node) for node in range(len(problem.nodes))))


def execute_slowly(problem: FitProblem, plan: FitPlan) -> tuple[list[int], float] | None:
    """Returns the bytes of each step and the added seconds, found without arrays; None if the schedule is not valid."""
    lives = _lives(problem, plan)
    if lives is None:
        return None
    needed = []
    for k, step in enumerate(plan.steps):
        here = [life for life in lives if life[1] <= k <= life[2]]
        total = sum(problem.values[value].size for value, *_ in here)
        if isinstance(step, Run):
            node = problem.nodes[step.node]
            dying = {v for v, start, end in lives if start <= k == end} & set(node.inputs)
            dying -= {v for v, value in enumerate(problem.values) if value.producer is None and not value.is_donated}
            filled: set[int] = set()
            for output, read in node.in_place:
                if read in dying and output not in filled:
                    total -= min(problem.values[output].size, problem.values[read].size)
                    dying.remove(read)
                    filled.add(output)
            total += node.workspace
        needed.append(total)
    return needed, _added(problem, plan)


def _lives(problem: FitProblem, plan: FitPlan) -> list[tuple[int, int, int]] | None:
    """Returns `(value, first step, last step)` of all instances; None if the schedule is not valid."""
    n, values = len(plan.steps), problem.values
    now: dict[int, list[int]] = {}  # value: [start, end, ready]
    done: list[tuple[int, int, int]] = []
    ran: set[int] = set()
    hosted: set[int] = set()
    storing: dict[int, list[int]] = {}
    loading: dict[int, list[int]] = {}

    def make(value: int, step: int, ready: int) -> list[int]:
        if value in now:
            done.append((value, *now[value][:2]))
        now[value] = [step, step, ready]
        return now[value]

    def read(value: int, step: int) -> bool:
        if value not in now or not now[value][2]:
            return False
        now[value][1] = step
        return True

    def moves(value: int) -> bool:
        stays = values[value].producer is None and not values[value].is_donated
        return problem.host is not None and values[value].can_offload and not stays

    for v, value in enumerate(values):
        if value.producer is None:
            make(v, 0, 1)
            if not value.is_donated:
                now[v][1] = n - 1
    for k, step in enumerate(plan.steps):
        if isinstance(step, Run):
            node = problem.nodes[step.node]
            if not all(read(v, k) for v in node.inputs) or (step.node in ran and not node.can_repeat):
                return None
            ran.add(step.node)
            for v in node.outputs:
                make(v, k, 1)
            continue
        v = step.value
        if not moves(v):
            return None
        if isinstance(step, Store):
            if v in storing or not read(v, k):
                return None
            storing[v] = now[v]
        elif isinstance(step, Stored):
            if storing.pop(v, None) is not now.get(v) or not read(v, k):
                return None
            hosted.add(v)
        elif isinstance(step, Load):
            if v not in hosted or v in loading:
                return None
            loading[v] = make(v, k, 0)
        elif isinstance(step, Loaded):
            if loading.pop(v, None) is not now.get(v):
                return None
            now[v][1], now[v][2] = k, 1
    if storing or loading or ran != set(range(len(problem.nodes))):
        return None
    for v, value in enumerate(values):
        if value.is_result and not read(v, n):
            return None
        if value.producer is None and not value.is_donated and v in now:
            now[v][1] = n
    return done + [(v, start, end) for v, (start, end, _) in now.items()]


def _added(problem: FitProblem, plan: FitPlan) -> float:
    clock, added, ran = 0.0, 0.0, set()
    free = {Store: 0.0, Load: 0.0}
    done: dict[tuple[type, int], float] = {}
    for step in plan.steps:
        if isinstance(step, Run):
            seconds = problem.nodes[step.node].seconds
            clock += seconds
            added += seconds if step.node in ran else 0.0
            ran.add(step.node)
        elif isinstance(step, Store | Load):
            rate = problem.host.to_host if isinstance(step, Store) else problem.host.from_host
            free[type(step)] = (
                max(clock, free[type(step)]) + problem.host.latency + problem.values[step.value].size / rate
            )
            done[type(step), step.value] = free[type(step)]
        else:
            end = done[Store if isinstance(step, Stored) else Load, step.value]
            added += max(0.0, end - clock)
            clock = max(clock, end)
    return added
