"""The rules that every Graph keeps, so that what works on Graphs need not check them again.

operands and control predecessors exist; the order of instructions is legal
no computation calls itself, and computations nest to a limit
each opcode has as many operands as it takes; parameters are numbered 0 … n-1
a tuple has an element for each operand
what a caller hands over has the tuple structure that the callee expects, and likewise what comes back
aliases name existing outputs and parameters
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from memplan.compiler.errors import GraphError
from memplan.compiler.ir.graph import Computation, Graph, Instruction
from memplan.compiler.ir.opcodes import operand_limits
from memplan.compiler.ir.shape import Shape

# Computations that call each other, the entry included. What follows calls may then recurse; programs nest ten deep.
MAX_NESTING = 100


class InstructionError(GraphError):
    """A broken rule, at an instruction.

    Attributes:
      reason: what is wrong.
      computation, instruction: names of the place; the instruction's is "" where the computation as a whole is wrong.
    """

    def __init__(self, reason: str, computation: str, instruction: str = ""):
        place = f"{computation}/{instruction}" if instruction else computation
        super().__init__(f"{place}: {reason}" if place else reason)
        self.reason, self.computation, self.instruction = reason, computation, instruction


def check_graph(graph: Graph) -> None:
    """Raises GraphError, naming the instruction, if the Graph breaks a rule. Linear in the size of the Graph."""
    if graph.entry not in graph.computations:
        raise GraphError(f"the entry computation {graph.entry!r} does not exist")
    for computation in graph.computations.values():
        _check_computation(computation)
    for computation, instruction in graph.instructions():
        for name in instruction.called:
            if name not in graph.computations:
                raise InstructionError(f"calls {name!r}, which does not exist", computation.name, instruction.name)
    _check_nesting(graph)
    if graph.origin == "hlo":
        for computation in graph.computations.values():
            for instruction in computation.instructions:
                if instruction.called or instruction.opcode in _MUST_CALL:
                    _check_calls(graph, computation, instruction)
    _check_aliases(graph)


def _check_nesting(graph: Graph) -> None:
    depth: dict[str, int] = {}
    for name in callees_first(graph.computations):
        instructions = graph.computations[name].instructions
        depth[name] = 1 + max((depth[called] for i in instructions for called in i.called), default=0)
        if depth[name] > MAX_NESTING:
            caller = next(i.name for i in instructions if any(depth[called] == MAX_NESTING for called in i.called))
            raise InstructionError(f"computations call each other more than {MAX_NESTING} deep", name, caller)


def callees_first(computations: Mapping[str, Computation]) -> list[str]:
    """Returns the names so that callees stand before callers, otherwise in the given order; GraphError on recursion."""
    called = {
        name: list(dict.fromkeys(c for i in computation.instructions for c in i.called if c in computations))
        for name, computation in computations.items()
    }
    order: list[str] = []
    state: dict[str, int] = {}  # 1: on the path from the start, 2: done
    for start in computations:
        if start in state:
            continue
        state[start] = 1
        stack = [(start, iter(called[start]))]
        while stack:
            name, rest = stack[-1]
            for callee in rest:
                if state.get(callee) == 1:
                    cycle = [n for n, _ in stack]
                    path = " -> ".join([*cycle[cycle.index(callee) :], callee])
                    caller = next(i.name for i in computations[name].instructions if callee in i.called)
                    raise InstructionError(f"computations call each other in a circle: {path}", name, caller)
                if callee not in state:
                    state[callee] = 1
                    stack.append((callee, iter(called[callee])))
                    break
            else:
                state[name] = 2
                order.append(name)
                stack.pop()
    return order


def _check_computation(computation: Computation) -> None:
    count = len(computation.instructions)
    if count == 0:
        raise InstructionError("a computation has at least one instruction", computation.name)
    if not 0 <= computation.root < count:
        raise InstructionError(f"root {computation.root} is not an instruction", computation.name)
    numbers: dict[int, str] = {}
    names: set[str] = set()
    for i, instruction in enumerate(computation.instructions):
        if instruction.name in names:
            raise InstructionError("a second instruction of this name", computation.name, instruction.name)
        names.add(instruction.name)
        for kind, others in (("operand", instruction.operands), ("predecessor", instruction.control_predecessors)):
            for other in others:
                if not 0 <= other < i:
                    reason = f"its {kind} {other} is not an earlier instruction"
                    raise InstructionError(reason, computation.name, instruction.name)
        least, most = operand_limits(instruction.opcode)
        found = len(instruction.operands)
        if found < least or (most is not None and found > most):
            wanted = str(least) if least == most else f"at least {least}" if most is None else f"{least} to {most}"
            reason = f"{instruction.opcode} takes {wanted} operand{'' if wanted == '1' else 's'}, found {found}"
            raise InstructionError(reason, computation.name, instruction.name)
        if instruction.opcode == "parameter":
            number = instruction.payload
            if not (number.isascii() and number.isdigit() and len(number) < 10):
                reason = f"expected the number of a parameter, found {number!r:.40}"
                raise InstructionError(reason, computation.name, instruction.name)
            if int(number) in numbers:
                reason = f"{numbers[int(number)]!r} is already parameter {number}"
                raise InstructionError(reason, computation.name, instruction.name)
            numbers[int(number)] = instruction.name
        elif instruction.opcode == "get-tuple-element":
            _check_get_tuple_element(computation, instruction)
        elif instruction.opcode == "tuple":
            _check_tuple(computation, instruction)
    for expected in range(len(numbers)):
        if expected not in numbers:
            worst = max(numbers)
            reason = f"parameter {worst} stands here, but parameter {expected} is missing"
            raise InstructionError(reason, computation.name, numbers[worst])


def _check_get_tuple_element(computation: Computation, instruction: Instruction) -> None:
    shape = computation.instructions[instruction.operands[0]].shape
    index = instruction.attribute("index")
    if not shape.is_tuple:
        raise InstructionError(f"takes an element of {shape}, which is no tuple", computation.name, instruction.name)
    if not (index.isascii() and index.isdigit() and len(index) < 10 and int(index) < len(shape.elements)):
        reason = f"index {index!r:.40} is not one of the tuple's {len(shape.elements)} elements"
        raise InstructionError(reason, computation.name, instruction.name)
    if not same_structure(shape.elements[int(index)], instruction.shape):
        reason = (
            f"element {index} of its operand is {_brief(shape.elements[int(index)])}, not {_brief(instruction.shape)}"
        )
        raise InstructionError(reason, computation.name, instruction.name)


def _check_tuple(computation: Computation, instruction: Instruction) -> None:
    elements = instruction.shape.elements
    if not instruction.shape.is_tuple or len(elements) != len(instruction.operands):
        reason = f"a tuple of {len(instruction.operands)} operands cannot be {_brief(instruction.shape)}"
        raise InstructionError(reason, computation.name, instruction.name)
    for number, (operand, element) in enumerate(zip(instruction.operands, elements, strict=True)):
        shape = computation.instructions[operand].shape
        if not same_structure(shape, element):
            reason = f"element {number} is {_brief(element)}, but its operand is {_brief(shape)}"
            raise InstructionError(reason, computation.name, instruction.name)


def same_structure(a: Shape, b: Shape) -> bool:
    """Tells whether two shapes are tuples of the same nesting; arrays may differ in type, dimensions and layout."""
    pending = [(a, b)]
    while pending:
        x, y = pending.pop()
        if x is y:
            continue
        if x.is_tuple != y.is_tuple or len(x.elements) != len(y.elements):
            return False
        pending.extend(zip(x.elements, y.elements, strict=True))
    return True


_MUST_CALL = {"while", "conditional", "call", "fusion"}

# These begin what they call; another instruction waits for its result.
_STARTS = {"async-start", "call-start", "fusion-start"}


def _check_calls(graph: Graph, computation: Computation, instruction: Instruction) -> None:
    """Checks that the callees of structured control flow take what they are given and return what is expected."""
    opcode = instruction.opcode
    operands = [computation.instructions[i].shape for i in instruction.operands]

    def fail(reason: str) -> None:
        raise InstructionError(reason, computation.name, instruction.name)

    def callee(key: str) -> Computation:
        name = instruction.attribute(key).lstrip("%")
        if name not in graph.computations:
            fail(f"{opcode} needs the attribute {key}=COMPUTATION")
        return graph.computations[name]

    def check(target: Computation, arguments: list[Shape], result: Shape | None) -> None:
        parameters = [target.instructions[i].shape for i in target.parameters]
        if len(parameters) != len(arguments):
            fail(f"{target.name!r} takes {len(parameters)} parameters, but is given {len(arguments)}")
        for number, (parameter, argument) in enumerate(zip(parameters, arguments, strict=True)):
            if not same_structure(parameter, argument):
                fail(f"parameter {number} of {target.name!r} is {_brief(parameter)}, but is given {_brief(argument)}")
        if result is not None and not same_structure(target.root_instruction.shape, result):
            fail(f"{target.name!r} returns {_brief(target.root_instruction.shape)}, not {_brief(result)}")

    if opcode == "while":
        if not same_structure(operands[0], instruction.shape):
            fail(f"the loop carries {_brief(operands[0])}, but its result is {_brief(instruction.shape)}")
        condition = callee("condition")
        check(condition, operands, None)
        if condition.root_instruction.shape.dtype != "pred":
            fail(f"condition {condition.name!r} returns {_brief(condition.root_instruction.shape)}, not pred[]")
        check(callee("body"), operands, instruction.shape)
    elif opcode == "conditional":
        if len(instruction.called) != len(operands) - 1:
            fail(f"{len(instruction.called)} branches, but operands for {len(operands) - 1}")
        for name, argument in zip(instruction.called, operands[1:], strict=True):
            check(graph.computations[name], [argument], instruction.shape)
    elif opcode in ("call", "fusion"):
        if len(instruction.called) != 1:
            fail(f"{opcode} calls one computation, found {len(instruction.called)}")
        check(graph.computations[instruction.called[0]], operands, instruction.shape)
    elif opcode in _STARTS and instruction.called:
        if len(instruction.called) != 1:
            fail(f"{opcode} calls one computation, found {len(instruction.called)}")
        check(graph.computations[instruction.called[0]], operands, None)


def _brief(shape: Shape) -> str:
    text = str(shape)
    return text if len(text) <= 60 else text[:59] + "…"


def _check_aliases(graph: Graph) -> None:
    entry = graph.entry_computation
    outputs: set[tuple[int, ...]] = set()
    for alias in graph.aliases:
        text = f"the alias of output {_braces(alias.output_index)}"
        if not _has(entry.root_instruction.shape, alias.output_index):
            raise GraphError(f"{text} names an output that does not exist")
        if alias.output_index in outputs:
            raise GraphError(f"{text} is stated twice")
        outputs.add(alias.output_index)
        if not 0 <= alias.parameter < len(entry.parameters):
            raise GraphError(f"{text} names parameter {alias.parameter}; there are {len(entry.parameters)}")
        if not _has(entry.instructions[entry.parameters[alias.parameter]].shape, alias.parameter_index):
            index = _braces(alias.parameter_index)
            raise GraphError(f"{text} names {index} of parameter {alias.parameter}, which does not exist")


def _has(shape: Shape, path: Iterable[int]) -> bool:
    for i in path:
        if not 0 <= i < len(shape.elements):
            return False
        shape = shape.elements[i]
    return True


def _braces(index: tuple[int, ...]) -> str:
    return "{" + ",".join(map(str, index)) + "}"
