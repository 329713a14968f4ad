"""How many bytes of its operands an instruction touches, and how many a whole program moves.

Most read each operand once and whole. Slices, gathers and in-place updates touch a part, and so does a fusion in whose
body a parameter is only sliced, gathered or updated (as HloCostAnalysis::FusionParameterReadBytes has it).
"""

from __future__ import annotations

from memplan.compiler.analysis.in_place import InPlace, InPlacePair
from memplan.compiler.ir import Computation, Graph, Instruction, Shape
from memplan.compiler.ir.trip_count import trip_count

_SLICING = frozenset({"slice", "dynamic-slice", "gather"})
_VIEWS = frozenset({"bitcast", "reshape", "get-tuple-element"})

_FUSIONS = frozenset({"fusion", "fusion-start", "async-start"})

# What moves no bytes: names of values, and other views of them.
_STILL = _VIEWS | {"parameter", "constant", "tuple", "opt-barrier", "after-all"}

WHOLE = -1  # a parameter that is read whole


class Traffic:
    """The bytes that the instructions of one Graph touch; the body of a fusion is examined once."""

    def __init__(self, graph: Graph, in_place: InPlace):
        self._graph, self._in_place = graph, in_place
        self._bodies: dict[str, tuple[int, ...]] = {}

    def read(self, instruction: Instruction, operand: int, shape: Shape) -> int:
        """Returns the bytes read of an array of `shape` that is, or stands in, an operand that is not updated."""
        opcode, result = instruction.opcode, instruction.shape
        if opcode in _FUSIONS and instruction.called:
            touched = self._parameters(instruction.called[0])[operand]
            return shape.bytes if touched == WHOLE else min(touched, shape.bytes)
        if opcode.endswith("-start") and result.is_tuple and len(result.elements) > 1 and result.elements[0].is_tuple:
            opcode, result = opcode.removesuffix("-start"), result.elements[1]
        if operand == 0 and opcode in _SLICING:
            return min(result.bytes, shape.bytes)
        if opcode == "get-dimension-size":
            return 0
        return shape.bytes

    def update(self, instruction: Instruction, pair: InPlacePair, shape: Shape) -> int:
        """Returns the bytes that an update in place, and what else the instruction reads of the operand, touch."""
        if pair.bytes < 0:
            return shape.bytes
        read = self._parameters(instruction.called[0])[pair.operand] if instruction.opcode in _FUSIONS else 0
        return shape.bytes if read == WHOLE else min(pair.bytes + read, shape.bytes)

    def moved(self, computation: Computation, instruction: Instruction) -> int:
        """Returns the bytes that an instruction of `computation` reads of its operands and writes of its result."""
        if instruction.opcode in _STILL:
            return 0
        pairs = {pair.operand: pair for pair in self._in_place.pairs(computation, instruction)}
        updated = {pair.output_index for pair in pairs.values()}
        total = sum(leaf.bytes for path, leaf in instruction.shape.leaves() if path not in updated)
        for number, operand in enumerate(instruction.operands):
            shape = computation.instructions[operand].shape
            if shape.is_tuple:
                total += shape.bytes
            elif number in pairs:
                total += self.update(instruction, pairs[number], shape)
            else:
                total += self.read(instruction, number, shape)
        return total

    def _parameters(self, name: str) -> tuple[int, ...]:
        """Returns per parameter of a fusion's body the bytes read of it, or WHOLE; 0 for one that is only updated."""
        known = self._bodies.get(name)
        if known is None:
            body = self._graph.computations[name]
            updated = {pair.operand for pair in self._in_place.body_pairs(name)}
            known = tuple(
                WHOLE
                if body.instructions[parameter].shape.is_tuple
                else self._reads(body, parameter, number in updated)
                for number, parameter in enumerate(body.parameters)
            )
            self._bodies[name] = known
        return known

    def _reads(self, body: Computation, parameter: int, updated: bool) -> int:
        """Adds up what the users of a parameter, and of its views, read of it."""
        total = 0
        seen = {parameter}
        pending = [parameter]
        while pending:
            at = pending.pop()
            if at == body.root and not updated:
                return WHOLE
            for user in body.users[at]:
                instruction = body.instructions[user]
                opcode = instruction.opcode
                follows = opcode in _VIEWS or (updated and opcode == "tuple")
                for number, operand in enumerate(instruction.operands):
                    if operand != at or follows:
                        continue
                    if number == 0 and opcode in _SLICING:
                        total += instruction.shape.bytes
                    elif pair := self._updates(body, instruction, number) if updated else None:
                        if pair.bytes < 0:
                            return WHOLE
                        follows = True
                        if opcode == "fusion":
                            total += max(self._parameters(instruction.called[0])[number], 0)
                    elif opcode == "fusion":
                        touched = self._parameters(instruction.called[0])[number]
                        if touched == WHOLE:
                            return WHOLE
                        total += touched
                    else:
                        return WHOLE
                if follows and user not in seen:
                    seen.add(user)
                    pending.append(user)
        return total

    def _updates(self, body: Computation, instruction: Instruction, operand: int) -> InPlacePair | None:
        """Returns how an instruction of a body updates an operand, if it does."""
        return next((pair for pair in self._in_place.pairs(body, instruction) if pair.operand == operand), None)


def moved_bytes(graph: Graph) -> float:
    """Returns the bytes that the instructions of a program read and write when it runs once, as they stand.

    Each reads its operands and writes its result. A slice, a gather or an update in place touches its part alone;
    tuples, bitcasts and reshapes touch nothing. A loop counts as often as it runs (`trip_count`), and a conditional as
    the branch that moves most.

    >>> from memplan.compiler.frontends import parse_hlo
    >>> moved_bytes(parse_hlo("ENTRY e { x = f32[8] parameter(0) y = f32[8] negate(x) ROOT z = f32[8] add(x, y) }"))
    160.0
    """
    traffic = Traffic(graph, InPlace(graph))
    known: dict[str, float] = {}

    def of(name: str) -> float:
        if name not in known:
            computation = graph.computations[name]
            known[name] = float(sum(within(computation, instruction) for instruction in computation.instructions))
        return known[name]

    def within(computation: Computation, instruction: Instruction) -> float:
        if instruction.opcode == "while":
            return sum(map(of, instruction.called)) * trip_count(graph, instruction, computation)[0]
        if instruction.opcode == "conditional":
            return max(map(of, instruction.called), default=0.0)
        if instruction.opcode == "call":
            return sum(map(of, instruction.called))
        return traffic.moved(computation, instruction)

    return of(graph.entry)
