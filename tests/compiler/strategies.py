"""Random Graphs that make sense as programs, for property tests.

`graphs()` draws programs of elementwise and other operations, slices, in-place updates, fusions, tuples, loops,
conditionals and calls, nested, with donated arguments, with results that are arguments, constants or the same value
twice. They are not scheduled by a compiler: no copy stands where one is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from memplan.compiler.ir import Alias, Computation, Graph, Instruction, Shape

ARRAY = Shape("f32", (8,))
OTHER = Shape("f32", (16,))
PART = Shape("f32", (4,))
INDEX = Shape("s32")
TRUTH = Shape("pred")

Draw = Callable[[st.SearchStrategy[Any]], Any]


@st.composite
def graphs(draw: Draw, max_operations: int = 8, max_depth: int = 2) -> Graph:
    """Draws a Graph.

    Args:
      draw: given by hypothesis.
      max_operations: operations per computation at most; what they need is added.
      max_depth: how deep loops, conditionals and calls nest.
    """
    maker = _Maker(draw, max_operations)
    shapes = draw(st.lists(st.sampled_from([ARRAY, ARRAY, OTHER, _tuple(ARRAY, OTHER)]), min_size=1, max_size=3))
    body = maker.computation("main", shapes, max_depth)
    results = [body.pick(draw(st.sampled_from([ARRAY, OTHER]))) for _ in range(draw(st.integers(1, 3)))]
    shape = _tuple(*(body.instructions[i].shape for i in results))
    root = body.add("tuple", shape, results)
    maker.finish(body, root)

    pairs = [
        (number, path, output)
        for number, argument in enumerate(shapes)
        for path, leaf in argument.leaves()
        for output, (_, result) in enumerate(shape.leaves())
        if leaf == result
    ]
    aliases: list[Alias] = []
    for number, path, output in draw(st.lists(st.sampled_from(pairs), max_size=2)) if pairs else []:
        taken = any(a.output_index == (output,) or (a.parameter, a.parameter_index) == (number, path) for a in aliases)
        if not taken:
            aliases.append(Alias((output,), number, path, draw(st.booleans())))
    return Graph("random", maker.computations, "main", aliases=tuple(aliases))


def _tuple(*shapes: Shape) -> Shape:
    return Shape("tuple", elements=shapes)


@dataclass
class _Body:
    """A computation that is being made.

    Attributes:
      names: counts instructions through the whole Graph, so that names are unique.
    """

    name: str
    names: list[int]
    draw: Draw
    instructions: list[Instruction] = field(default_factory=list)

    def add(self, opcode: str, shape: Shape, operands: Sequence[int] = (), **attributes: str) -> int:
        self.names[0] += 1
        called = tuple(attributes[key] for key in ("condition", "body", "calls", "to_apply") if key in attributes)
        if "branch_computations" in attributes:
            called = tuple(attributes["branch_computations"].strip("{}").split(", "))
        payload = attributes.pop("payload", "")
        name = f"{opcode.replace('-', '_')}.{self.names[0]}"
        instruction = Instruction(name, opcode, shape, tuple(operands), called, tuple(attributes.items()), payload)
        self.instructions.append(instruction)
        return len(self.instructions) - 1

    def pick(self, shape: Shape) -> int:
        """Returns an instruction of this shape, making one if there is none."""
        found = [i for i, instruction in enumerate(self.instructions) if instruction.shape == shape]
        if found and self.draw(st.integers(0, 9)):
            return int(self.draw(st.sampled_from(found)))
        if shape == PART:
            return self.add("slice", PART, [self.pick(ARRAY)], slice="{[0:4]}")
        if shape in (INDEX, TRUTH):
            return self.add("custom-call", shape, [self.pick(ARRAY)], custom_call_target='"test"')
        return self.add("constant", shape, payload="{...}")

    def spread(self, index: int) -> None:
        """Takes a tuple apart."""
        for i, element in enumerate(self.instructions[index].shape.elements):
            self.add("get-tuple-element", element, [index], index=str(i))


class _Maker:
    def __init__(self, draw: Draw, max_operations: int):
        self.draw, self.max_operations = draw, max_operations
        self.computations: dict[str, Computation] = {}
        self.names = [0]

    def computation(self, name: str, parameters: Sequence[Shape], depth: int) -> _Body:
        """Returns a body with random operations, its root yet to be chosen."""
        body = _Body(name, self.names, self.draw)
        for number, shape in enumerate(parameters):
            index = body.add("parameter", shape, payload=str(number))
            if shape.is_tuple:
                body.spread(index)
        simple = [
            self.elementwise, self.elementwise, self.reverse, self.update, self.update, self.part, self.fusion,
            self.view, self.barrier, self.copy,
        ]  # fmt: skip
        nested = [self.loop, self.loop, self.conditional, self.call] if depth > 0 else []
        for _ in range(self.draw(st.integers(1, self.max_operations))):
            self.draw(st.sampled_from(simple + nested))(body, depth)
        return body

    def finish(self, body: _Body, root: int) -> str:
        self.computations[body.name] = Computation(body.name, tuple(body.instructions), root)
        return body.name

    def fresh(self, kind: str) -> str:
        self.names[0] += 1
        return f"{kind}.{self.names[0]}"

    def shapes(self, least: int = 1) -> list[Shape]:
        return list(self.draw(st.lists(st.sampled_from([ARRAY, ARRAY, OTHER]), min_size=least, max_size=3)))

    # -- Operations ----------------------------------------------------------------------------------------------------

    def elementwise(self, body: _Body, depth: int) -> None:
        shape = self.draw(st.sampled_from([ARRAY, OTHER]))
        body.add("add", shape, [body.pick(shape), body.pick(shape)])

    def reverse(self, body: _Body, depth: int) -> None:
        shape = self.draw(st.sampled_from([ARRAY, OTHER]))
        body.add("reverse", shape, [body.pick(shape)], dimensions="{0}")

    def update(self, body: _Body, depth: int) -> None:
        body.add("dynamic-update-slice", ARRAY, [body.pick(ARRAY), body.pick(PART), body.pick(INDEX)])

    def part(self, body: _Body, depth: int) -> None:
        body.add("slice", PART, [body.pick(ARRAY)], slice="{[0:4]}")

    def view(self, body: _Body, depth: int) -> None:
        shape = self.draw(st.sampled_from([ARRAY, OTHER]))
        body.add("bitcast", shape, [body.pick(shape)])

    def copy(self, body: _Body, depth: int) -> None:
        shape = self.draw(st.sampled_from([ARRAY, OTHER]))
        body.add("copy", shape, [body.pick(shape)])

    def barrier(self, body: _Body, depth: int) -> None:
        shapes = self.shapes()
        packed = body.add("tuple", _tuple(*shapes), [body.pick(shape) for shape in shapes])
        body.spread(body.add("opt-barrier", _tuple(*shapes), [packed]))

    def fusion(self, body: _Body, depth: int) -> None:
        """A fusion that updates its first parameter, and may read it besides."""
        fused = _Body(self.fresh("fused"), self.names, self.draw)
        old = fused.add("parameter", ARRAY, payload="0")
        part = fused.add("parameter", PART, payload="1")
        index = fused.add("parameter", INDEX, payload="2")
        if self.draw(st.booleans()):
            sliced = fused.add("dynamic-slice", PART, [old, index], dynamic_slice_sizes="{4}")
            part = fused.add("add", PART, [part, sliced])
        root = fused.add("dynamic-update-slice", ARRAY, [fused.add("bitcast", ARRAY, [old]), part, index])
        shape = ARRAY
        if self.draw(st.booleans()):
            shape = _tuple(ARRAY, ARRAY)
            root = fused.add("tuple", shape, [root, fused.add("negate", ARRAY, [old])])
        operands = [body.pick(ARRAY), body.pick(PART), body.pick(INDEX)]
        result = body.add("fusion", shape, operands, kind="kLoop", calls=self.finish(fused, root))
        if shape.is_tuple:
            body.spread(result)

    # -- Control flow --------------------------------------------------------------------------------------------------

    def loop(self, body: _Body, depth: int) -> None:
        carried = _tuple(*self.shapes())
        condition = self.computation(self.fresh("condition"), [carried], 0)
        truth = condition.pick(TRUTH)
        inner = self.computation(self.fresh("body"), [carried], depth - 1)
        root = inner.add("tuple", carried, [inner.pick(shape) for shape in carried.elements])
        if self.draw(st.booleans()):
            init = body.add("tuple", carried, [body.pick(shape) for shape in carried.elements])
        else:  # nothing but the loop reads what comes from nowhere
            init = body.add("custom-call", carried, [body.pick(ARRAY)], custom_call_target='"test"')
        body.spread(
            body.add(
                "while",
                carried,
                [init],
                condition=self.finish(condition, truth),
                body=self.finish(inner, root),
            )
        )

    def conditional(self, body: _Body, depth: int) -> None:
        result = _tuple(*self.shapes())
        names, operands = [], [body.pick(INDEX)]
        for _ in range(self.draw(st.integers(1, 3))):
            given = _tuple(*self.shapes())
            branch = self.computation(self.fresh("branch"), [given], depth - 1)
            root = branch.add("tuple", result, [branch.pick(shape) for shape in result.elements])
            names.append(self.finish(branch, root))
            operands.append(body.add("tuple", given, [body.pick(shape) for shape in given.elements]))
        branches = "{" + ", ".join(names) + "}"
        body.spread(body.add("conditional", result, operands, branch_computations=branches))

    def call(self, body: _Body, depth: int) -> None:
        shapes = self.shapes()
        callee = self.computation(self.fresh("callee"), shapes, depth - 1)
        shape = self.draw(st.sampled_from([ARRAY, OTHER]))
        name = self.finish(callee, callee.pick(shape))
        for _ in range(self.draw(st.integers(1, 2))):  # one computation may be called from several places
            body.add("call", shape, [body.pick(shape) for shape in shapes], to_apply=name)
