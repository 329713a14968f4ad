"""Finds the values of a flattened program: see `values.py` for what they are.

The steps are visited once, in order of time. The body of a `while` comes before the `while` itself, so it is known by
then which elements the loop carries unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence

from memplan.compiler.analysis.elementwise import Elementwise, same_form
from memplan.compiler.analysis.in_place import InPlace, InPlacePair
from memplan.compiler.analysis.positions import Nodes, Positions
from memplan.compiler.analysis.schedule import Schedule
from memplan.compiler.analysis.values import NONE, PHASES, Handover, Read, Values
from memplan.compiler.errors import GraphError
from memplan.compiler.ir import Instruction, Shape
from memplan.compiler.ir.runtime import is_for_tflite


def find_values(schedule: Schedule, in_place: InPlace, elementwise: Elementwise, pointer_bytes: int = 0) -> Values:
    """Returns the values of a schedule.

    Args:
      schedule: the flattened schedule.
      in_place, elementwise: of its Graph.
      pointer_bytes: bytes of a pointer, if tuples shall own a table of pointers to their elements; 0 if they own none.

    Raises:
      GraphError: an instruction states an alias of what does not exist.
    """
    return _Builder(schedule, in_place, elementwise, pointer_bytes).build()


# What gives its operand's value, node by node.
_FORWARDING = frozenset({"bitcast", "optimization-barrier", "opt-barrier", "domain", "add-dependency", "async-update"})
# Their start gives (operand, result, …).
_PAIRED = frozenset({"all-gather", "collective-permute", "collective-broadcast"})


class _Builder:
    def __init__(self, schedule: Schedule, in_place: InPlace, elementwise: Elementwise, pointer_bytes: int):
        self.schedule, self.in_place, self.elementwise = schedule, in_place, elementwise
        self.with_tables = pointer_bytes > 0
        self.positions = Positions(schedule)
        self.values = Values(self.positions, [NONE] * len(self.positions))
        # A compiler that scheduled the module made sure, with copies, that each result may be where it put it.
        self.is_trusted = schedule.graph.is_scheduled
        # Per frame: time of the step that calls it, and which of the step's callees it is.
        self.caller: dict[int, tuple[int, int]] = {}
        for frame in schedule.frames:
            for time, callees in frame.callees.items():
                for number, callee in enumerate(callees):
                    self.caller[callee] = (time, number)
        self.is_for_tflite = is_for_tflite(schedule.graph)
        self.carried: dict[int, list[int]] = {}  # time of a `while` to the phi of each node, or NONE
        self.donated = {
            (alias.parameter, node)
            for alias in schedule.graph.aliases
            for node in self.parameter_nodes(alias.parameter).below(alias.parameter_index)
        }

    def parameter_nodes(self, number: int) -> Nodes:
        entry = self.schedule.frames[0]
        return self.positions.nodes[entry.times[entry.computation.parameters[number]]]

    def build(self) -> Values:
        for t, step in enumerate(self.schedule.steps):
            self.step(t, step.instruction)
        self.results()
        return self.values

    def step(self, t: int, instruction: Instruction) -> None:
        opcode = instruction.opcode
        if opcode == "get-tuple-element":
            source = self.schedule.operand_times(t)[0]
            element = self.positions.nodes[source].element(int(instruction.attribute("index")))
            self.forward(t, 0, self.positions.first[source] + element.start, len(element))
            self.read_tables(t, (source,))
        elif opcode == "tuple":
            self.gather(t)
        elif opcode == "parameter":
            self.parameter(t, instruction)
        elif opcode == "constant":
            self.define(t, 0, len(self.positions.nodes[t]), fixed=True)
        elif opcode.endswith("-update") and len(instruction.operands) > 1:
            self.start(t, instruction)
        elif opcode in _FORWARDING or (opcode == "reshape" and self.is_view(t, instruction)):
            source = self.schedule.operand_times(t)[0]
            self.forward(t, 0, self.positions.first[source], len(self.positions.nodes[t]))
        elif t in self.schedule.frames[self.schedule.frame_of[t]].callees:
            if opcode == "while":
                self.loop(t)
            elif opcode == "conditional":
                self.conditional(t)
            else:
                callee = self.schedule.frames[self.schedule.frames[self.schedule.frame_of[t]].callees[t][0]]
                root = callee.times[callee.computation.root]
                self.forward(t, 0, self.positions.first[root], len(self.positions.nodes[t]))
        elif opcode.endswith("-done") and instruction.operands and self.done(t, instruction):
            pass
        elif opcode.endswith("-start") or opcode == "send":
            self.start(t, instruction)
        elif opcode == "custom-call" and "ConcatBitcast" in instruction.attribute("custom_call_target"):
            self.concatenation(t, instruction)
        else:
            self.operation(t, instruction, range(len(self.positions.nodes[t])))

    # -- Positions that hold the value of others -----------------------------------------------------------------------

    def forward(self, t: int, node: int, source: int, count: int) -> None:
        """Gives `count` nodes of a step, from `node` on, the values of the positions from `source` on."""
        of, first = self.values.of, self.positions.first[t]
        for k in range(count):
            of[first + node + k] = of[source + k]

    def is_view(self, t: int, instruction: Instruction) -> bool:
        """Whether a reshape leaves all bytes where they are. A reshape that a compiler left in a module moves them."""
        if self.is_trusted:
            return False
        operand = self.positions.nodes[self.schedule.operand_times(t)[0]].shapes[0]
        return all(_is_row_major(shape) for shape in (operand, instruction.shape))

    def gather(self, t: int) -> None:
        """A tuple owns at most a table; its elements are its operands."""
        nodes = self.positions.nodes[t]
        self.define(t, 0, 1)
        for number, source in enumerate(self.schedule.operand_times(t)):
            element = nodes.element(number)
            self.forward(t, element.start, self.positions.first[source], len(element))

    def parameter(self, t: int, instruction: Instruction) -> None:
        frame = self.schedule.frame_of[t]
        count = len(self.positions.nodes[t])
        number = instruction.parameter_number
        if frame == 0:
            first = self.positions.first[t]
            for node in range(count):
                fixed = not self.is_for_tflite and (number, node) not in self.donated
                self.define(t, node, 1, fixed=fixed, phase=0)
                if self.values.of[first + node] >= 0 and self.positions.nodes[t].shapes[node].is_array:
                    self.values.arguments.append((first + node, number, node))
            return
        owner, part = self.caller[frame]
        opcode = self.schedule.steps[owner].instruction.opcode
        if opcode == "while":
            phis = self.carried.get(owner)
            if phis is None:
                phis = self.carried[owner] = self.enter_loop(t, owner)
            first = self.positions.first[t]
            self.values.of[first : first + count] = phis
            return
        operand = part + 1 if opcode == "conditional" else number
        source = self.operand_time_of(owner, operand)
        self.forward(t, 0, self.positions.first[source], count)

    def operand_time_of(self, owner: int, operand: int) -> int:
        """Returns the time of an operand of a step whose own time may be yet to come."""
        caller = self.schedule.frames[self.schedule.frame_of[owner]]
        return caller.times[self.schedule.steps[owner].instruction.operands[operand]]

    # -- Control flow --------------------------------------------------------------------------------------------------

    def enter_loop(self, t: int, owner: int) -> list[int]:
        """Makes a phi for every element that a loop carries; `loop` drops those that turn out to be unchanged."""
        region = self.schedule.steps[t].region
        phase = PHASES * self.schedule.regions[region].start - 1
        first, shapes = self.positions.first[t], self.positions.nodes[t].shapes
        return [
            self.values.new(phase, region, first + node) if self.owns_memory(shape) else NONE
            for node, shape in enumerate(shapes)
        ]

    def loop(self, t: int) -> None:
        values = self.values
        step = self.schedule.steps[t]
        condition, body = (self.schedule.frames[f] for f in self.schedule.frames[self.schedule.frame_of[t]].callees[t])
        region = self.schedule.regions[condition.region]
        init = self.positions.first[self.operand_time_of(t, 0)]
        root = self.positions.first[body.times[body.computation.root]]
        first = self.positions.first[t]
        unchanged = values.equate_unchanged(self.carried[t], init, root)
        for node, phi in enumerate(self.carried[t]):
            if phi < 0:
                continue
            if node in unchanged:
                values.of[first + node] = phi
                continue
            result = values.new(PHASES * t, step.region, first + node, place=phi)
            following = values.new(PHASES * region.end - 1, condition.region, root + node, place=phi)
            values.of[first + node] = result
            values.spans.append((following, PHASES * region.end - 1, PHASES * region.end))
            values.uses.append((phi, PHASES * (condition.times[-1] + 1), condition.region))
            values.same_place += [(phi, following), (phi, result)]
            values.uses.append((values.of[root + node], PHASES * region.end - 1, condition.region))
            values.back_edges.append(Handover(values.of[root + node], following, region.end - 1, first + node))
            values.uses.append((values.of[init + node], PHASES * region.start - 1, step.region))
            values.entries.append(Handover(values.of[init + node], phi, region.start - 1, first + node))

    def conditional(self, t: int) -> None:
        values = self.values
        step = self.schedule.steps[t]
        self.read(t, 0, self.operand_time_of(t, 0))
        branches = [self.schedule.frames[f] for f in self.schedule.frames[self.schedule.frame_of[t]].callees[t]]
        roots = [self.positions.first[branch.times[branch.computation.root]] for branch in branches]
        first = self.positions.first[t]
        start = PHASES * self.schedule.regions[branches[0].region].start
        for node, shape in enumerate(self.positions.nodes[t].shapes):
            if not self.owns_memory(shape):
                continue
            given = [values.of[root + node] for root in roots]
            distinct = {values.find(value) for value in given}
            if len(distinct) == 1 and values.defined[min(distinct)] < start:  # all branches return what they were given
                self.forward(t, node, roots[0] + node, 1)
                continue
            result = values.of[first + node] = self.values.new(PHASES * t, step.region, first + node)
            for branch, root, value in zip(branches, roots, given, strict=True):
                end = self.schedule.regions[branch.region].end
                left = values.new(PHASES * end - 1, branch.region, root + node, place=result)
                values.spans.append((left, PHASES * end - 1, PHASES * end))
                values.same_place.append((result, left))
                values.uses.append((value, PHASES * end - 1, branch.region))
                values.exits.append(Handover(value, left, end - 1, first + node))

    def results(self) -> None:
        """Hands every result over to a place of its own, and pairs donated arguments with them."""
        values, schedule = self.values, self.schedule
        end = len(schedule.steps)
        entry = schedule.frames[0]
        root_time = entry.times[entry.computation.root]
        root, nodes = self.positions.first[root_time], self.positions.nodes[root_time]
        places: dict[int, int] = {}
        for node, shape in enumerate(nodes.shapes):
            if self.owns_memory(shape):
                value = values.of[root + node]
                places[node] = place = self.values.new(PHASES * end - 1, 0, root + node)
                values.spans.append((place, PHASES * end - 1, PHASES * (end + 1)))
                values.uses.append((value, PHASES * end - 1, 0))
                values.results.append(Handover(value, place, end - 1, root + node))
        for alias in schedule.graph.aliases:
            parameter = entry.times[entry.computation.parameters[alias.parameter]]
            arguments = self.positions.nodes[parameter].below(alias.parameter_index)
            for node, result in zip(arguments, nodes.below(alias.output_index), strict=False):
                argument = values.of[self.positions.first[parameter] + node]
                if argument >= 0 and result in places:
                    values.donated.append((argument, values.of[root + result], places[result], alias.must))

    # -- Asynchronous operations ---------------------------------------------------------------------------------------

    def start(self, t: int, instruction: Instruction) -> None:
        """The start's tuple holds its operands, its results, which are written until the done, and semaphores.

        A start may have no operands, and an update after it have them all: the update is the start then.
        """
        nodes, sources = self.positions.nodes[t], self.schedule.operand_times(t)
        if instruction.opcode.endswith("-update"):
            sources = sources[1:]
        elements = instruction.shape.elements
        base = instruction.opcode.removesuffix("-start")
        forwarded: list[range] = []
        if base == "copy" and len(elements) > 1:
            forwarded = [nodes.element(1)]
        elif (base in _PAIRED or base == "send") and len(elements) > 1:
            forwarded = [nodes.element(0)]
        elif _is_asynchronous(instruction, len(sources)):
            forwarded = [nodes.below((0, i)) for i in range(len(sources))]
        self.operation(t, instruction, [n for n in range(len(nodes)) if not any(n in part for part in forwarded)])
        for part, source in zip(forwarded, sources, strict=False):
            if len(part) == len(self.positions.nodes[source]):
                self.forward(t, part.start, self.positions.first[source], len(part))

    def done(self, t: int, instruction: Instruction) -> bool:
        """The done gives the start's results and waits for all that the start holds; False if it is none of that."""
        source = self.schedule.operand_times(t)[0]
        nodes = self.positions.nodes[source]
        elements = nodes.shapes[0].elements
        count = len(self.positions.nodes[t])
        base = instruction.opcode.removesuffix("-done")
        if base in ("copy", "recv", "send") and elements:
            part = nodes.element(0)
            count = min(count, len(part)) if base == "copy" else len(part)
        elif (base in _PAIRED and len(elements) > 1) or (len(elements) > 1 and elements[0].is_tuple):
            part = nodes.element(1)
        else:
            part = range(len(nodes))
        first = self.positions.first[source] + part.start
        if base in ("recv", "send") and elements and instruction.shape.elements:
            if len(self.positions.nodes[t].element(0)) != count:
                return False
            self.define(t, 0, 1)
            self.forward(t, self.positions.nodes[t].elements[0], first, count)
        elif base != "send":
            if len(part) != count:
                return False
            self.forward(t, 0, first, count)
        updated = {pair.operand for pair in self.pairs(source)}
        for node in nodes.arrays:
            path = nodes.paths[node]
            is_updated = len(path) > 1 and path[0] == 0 and path[1] in updated
            value = self.values.of[self.positions.first[source] + node]
            if value >= 0 and not is_updated:
                self.values.reads.append(Read(t, 0, source, node, value, True))
                self.use(value, PHASES * t + 2, t)
        return True

    def concatenation(self, t: int, instruction: Instruction) -> None:
        """Slices that arrive side by side are one array: each is written where the whole will be."""
        values = self.values
        sources = [self.positions.first[source] for source in self.schedule.operand_times(t)]
        if not sources or not instruction.shape.is_array:
            self.operation(t, instruction, range(len(self.positions.nodes[t])))
            return
        for source in sources[1:]:
            values.equate(values.of[source], values.of[sources[0]])
        self.forward(t, 0, sources[0], 1)

    # -- Operations ----------------------------------------------------------------------------------------------------

    def operation(self, t: int, instruction: Instruction, results: Sequence[int]) -> None:
        """An instruction that reads its operands and writes the nodes `results`."""
        values, positions = self.values, self.positions
        opcode = instruction.opcode
        silent = opcode == "custom-call" and "AllocateBuffer" in instruction.attribute("custom_call_target")
        nodes, first = positions.nodes[t], positions.first[t]
        sources = self.schedule.operand_times(t)
        for node in results:
            self.define(t, node, 1)
            if values.of[first + node] >= 0 and nodes.shapes[node].is_array:
                (values.allocations if silent else values.writes).append((t, node, values.of[first + node]))
        pairs = self.pairs(t) if sources else ()
        for number, source in enumerate(sources):
            if not silent:
                self.read(t, number, source, pairs)
        for pair in pairs:
            given = positions.nodes[sources[pair.operand]].number if pair.operand < len(sources) else {}
            if pair.operand_index not in given or pair.output_index not in nodes.number:
                raise GraphError(
                    f"{self.schedule.graph.file or self.schedule.graph.name}: {instruction.name!r} has no operand "
                    f"{pair.operand}{_braces(pair.operand_index)}, or no result {_braces(pair.output_index)}, that "
                    "could share memory as it states"
                )
            operand = values.of[positions.first[sources[pair.operand]] + given[pair.operand_index]]
            result = values.of[first + nodes.number[pair.output_index]]
            if operand >= 0 and result >= 0:
                values.in_place.append((t, pair, operand, result))

    def pairs(self, t: int) -> tuple[InPlacePair, ...]:
        step = self.schedule.steps[t]
        return self.in_place.pairs(self.schedule.graph.computations[step.computation], step.instruction)

    def read(self, t: int, operand: int, source: int, pairs: tuple[InPlacePair, ...] = ()) -> None:
        """A step reads all arrays in an operand, defined by the step at time `source`."""
        values, nodes, first = self.values, self.positions.nodes[source], self.positions.first[source]
        step = self.schedule.steps[t]
        for node in nodes.arrays:
            value = values.of[first + node]
            if value < 0:
                continue
            values.reads.append(Read(t, operand, source, node, value, False))
            shared = self.is_trusted or self.may_overwrite(step.instruction, operand, nodes, node, pairs)
            values.uses.append((value, PHASES * t + (1 if shared else 2), step.region))
        self.read_tables(t, (source,))

    def may_overwrite(
        self, instruction: Instruction, operand: int, nodes: Nodes, node: int, pairs: tuple[InPlacePair, ...]
    ) -> bool:
        """Whether the results of an instruction may be written where an array in an operand is read."""
        for pair in pairs:
            if pair.operand == operand and pair.operand_index == nodes.paths[node]:
                return pair.exclusive
        shape = nodes.shapes[node]
        leaves = [leaf for _, leaf in instruction.shape.leaves()]
        return all(same_form(shape, leaf) for leaf in leaves) and self.elementwise.reads(instruction, operand)

    def read_tables(self, t: int, sources: tuple[int, ...]) -> None:
        """A step that takes a tuple looks up its table of pointers."""
        if self.with_tables:
            for source in sources:
                value = self.values.of[self.positions.first[source]]
                if value >= 0 and self.positions.nodes[source].elements:
                    self.use(value, PHASES * t + 1, t)

    def define(self, t: int, node: int, count: int, fixed: bool = False, phase: int = -1) -> None:
        """Gives new values to `count` nodes of a step, where they own memory."""
        first, shapes = self.positions.first[t], self.positions.nodes[t].shapes
        for k in range(node, node + count):
            if self.owns_memory(shapes[k]) and self.values.of[first + k] < 0:
                start = PHASES * t + 1 if phase < 0 else phase
                self.values.of[first + k] = self.values.new(start, self.schedule.steps[t].region, first + k, fixed)

    def owns_memory(self, shape: Shape) -> bool:
        return shape.is_array or (self.with_tables and shape.is_tuple)

    def use(self, value: int, phase: int, t: int) -> None:
        self.values.uses.append((value, phase, self.schedule.steps[t].region))


def _is_asynchronous(instruction: Instruction, num_operands: int) -> bool:
    """Whether a start gives ((operands), results, …)."""
    elements = instruction.shape.elements
    return len(elements) > 1 and elements[0].is_tuple and len(elements[0].elements) == num_operands


def _is_row_major(shape: Shape) -> bool:
    layout = shape.layout
    if layout is None:
        return True
    return not layout.tiles and layout.minor_to_major == tuple(reversed(range(len(shape.dims))))


def _braces(index: tuple[int, ...]) -> str:
    return "{" + ",".join(map(str, index)) + "}"
