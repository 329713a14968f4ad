"""From a .tflite file to a Graph: one instruction for each operator, in TensorFlow Lite's order and with its names.

    constants ─────────────► constant                weights, in flash
    inputs, variables ─────► parameter               variables are results as well, in the same memory
    operator ──────────────► fusion ── calls ──► what it computes, its activation function included
    READ_VARIABLE … ───────► copy, and an update in place

The caller writes the inputs before each run, and their memory is free after their last use (`ir/runtime.py`). What runs
once before the first run, CALL_ONCE, is left out. So are handles of variables, which have memory of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

from memplan.compiler.errors import GraphError, ParseError
from memplan.compiler.frontends.tflite_body import ELIDED, Body, MisfitError, Regions, array, braces, shape_of
from memplan.compiler.frontends.tflite_model import Subgraph, Tensor, TfliteModel, TfliteOperator, read_model
from memplan.compiler.frontends.tflite_operators import RULES
from memplan.compiler.ir.graph import Alias, Computation, Graph, Instruction, Source
from memplan.compiler.ir.names import legal_name
from memplan.compiler.ir.runtime import TFLITE
from memplan.compiler.ir.shape import Shape
from memplan.compiler.ir.validate import check_graph

_ENTRY = "main"

_NOWHERE = Source()

# Operators on variables that are known by a handle.
_HANDLE, _READ, _ASSIGN, _ONCE = "VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CALL_ONCE"

# All operators that can be read.
KINDS = frozenset({*RULES, _HANDLE, _READ, _ASSIGN, _ONCE})

# Operators that write a variable which is among their inputs: which input, and which value of their rule it becomes.
_STATES = {"SVDF": (4, 1)}


def parse(content: bytes, file: str = "<bytes>") -> Graph:
    """Returns the program in a .tflite file.

    Raises:
      ParseError: the file is damaged, or an operator has no rule or tensors that do not fit it. The message names the
        operator.
    """
    model = read_model(content, file)
    try:
        graph = _EntryBuilder(model).graph()
        check_graph(graph)
    except GraphError as error:
        raise ParseError(str(error), file) from None
    return graph


class _EntryBuilder:
    """Builds the entry computation.

    Args:
      model: the file.
    """

    def __init__(self, model: TfliteModel):
        self.model, self.subgraph = model, model.subgraphs[0]
        self.regions = Regions()
        self.bodies: list[Computation] = []
        self.instructions: list[Instruction] = []
        self._taken: dict[str, int] = {}  # name to how often it was asked for
        self._num_parameters = 0
        self._value_of: dict[int, int] = {}  # tensor to instruction
        self._states: dict[str | int, int] = {}  # variable, by its name or its tensor, to instruction
        self._parameter_of: dict[str | int, int] = {}  # variable to the number of the parameter
        self._variable_of: dict[int, str] = {}  # handle's tensor to the name of the variable
        self.warnings: list[str] = []

    def fail(self, what: str) -> ParseError:
        return ParseError(what, self.model.file)

    def graph(self) -> Graph:
        """Returns the whole program."""
        subgraph = self.subgraph
        self._begin(subgraph)
        for operator in subgraph.operators:
            self._operator(operator)
        root = self._results(subgraph)
        entry = Computation(_ENTRY, tuple(self.instructions), root)
        computations = (*self.regions.computations.values(), *self.bodies, entry)
        count = len(subgraph.outputs)
        return Graph(
            name=legal_name(subgraph.name) if subgraph.name else _ENTRY,
            computations={computation.name: computation for computation in computations},
            entry=_ENTRY,
            is_scheduled=True,
            aliases=tuple(
                Alias((count + k,), self._parameter_of[variable], (), must=True)
                for k, variable in enumerate(self._states)
            ),
            attributes=(("frontend_attributes", f"{{{TFLITE}}}"),),
            file=self.model.file,
            warnings=tuple(self.warnings),
        )

    # -- What is there before the first operator ---------------------------------------------------------------------

    def _begin(self, subgraph: Subgraph) -> None:
        """Adds inputs, variables and constants."""
        parameters: list[tuple[str | int, Tensor]] = []
        for number in dict.fromkeys(subgraph.inputs):
            parameters.append((number, subgraph.tensors[number]))
        variables = [
            tensor for tensor in subgraph.tensors if tensor.is_variable and tensor.number not in subgraph.inputs
        ]
        parameters += [(tensor.number, tensor) for tensor in variables]
        by_handle = self._variables(subgraph)
        for key, tensor in parameters:
            index = self._parameter(tensor)
            self._value_of[tensor.number] = index
            if tensor.is_variable:
                self._states[key], self._parameter_of[key] = index, self._num_parameters - 1
        for name, tensor in by_handle.items():
            self._states[name] = self._parameter(tensor, name)
            self._parameter_of[name] = self._num_parameters - 1
        for tensor in subgraph.tensors:
            if tensor.is_constant and tensor.number not in self._value_of:
                self._value_of[tensor.number] = self._add(self._named(tensor), "constant", self._shape(tensor), ELIDED)

    def _parameter(self, tensor: Tensor, name: str = "") -> int:
        number = str(self._num_parameters)
        self._num_parameters += 1
        return self._add(self._unique(name) if name else self._named(tensor), "parameter", self._shape(tensor), number)

    def _variables(self, subgraph: Subgraph) -> dict[str, Tensor]:
        """Returns a tensor like each variable that handles name, from what is read of it or assigned to it."""
        found: dict[str, Tensor] = {}
        for operator in subgraph.operators:
            if operator.kind == _HANDLE and operator.outputs:
                options = operator.options
                name = "/".join(part for part in (options.text(0), options.text(1)) if part) if options else ""
                self._variable_of[operator.outputs[0]] = name or f"variable.{len(self._variable_of)}"
        for operator in subgraph.operators:
            if operator.kind == _READ:
                handle, value = self._ends(operator, operator.inputs, operator.outputs)
            elif operator.kind == _ASSIGN:
                handle, value = self._ends(operator, operator.inputs, operator.inputs[1:])
            else:
                continue
            tensor = subgraph.tensors[value]
            known = found.setdefault(self._variable(operator, handle), tensor)
            if (known.dtype, known.dims) != (tensor.dtype, tensor.dims):
                raise self.fail(f"{operator}: the variable has the shape {list(known.dims)} elsewhere")
        return found

    def _ends(self, operator: TfliteOperator, first: Sequence[int], second: Sequence[int]) -> tuple[int, int]:
        if not first or not second or min(first[0], second[0]) < 0:
            raise self.fail(f"{operator} lacks a tensor")
        return first[0], second[0]

    def _variable(self, operator: TfliteOperator, handle: int) -> str:
        if handle not in self._variable_of:
            raise self.fail(f"{operator}: {self.subgraph.tensors[handle]} is not the handle of a variable")
        return self._variable_of[handle]

    # -- Operators ---------------------------------------------------------------------------------------------------

    def _operator(self, operator: TfliteOperator) -> None:
        if operator.kind == _HANDLE:
            return
        if operator.kind == _ONCE:
            self.warnings.append(f"{operator} is left out: it runs once, before the first run")
        elif operator.kind == _READ:
            state = self._states[self._variable(operator, operator.inputs[0])]
            self._define(operator, operator.outputs[0], "copy", (state,))
        elif operator.kind == _ASSIGN:
            variable = self._variable(operator, operator.inputs[0])
            self._states[variable] = self._assign(operator, variable)
        elif operator.kind in RULES:
            self._compute(operator)
        else:
            raise self.fail(f"{operator} has no rule{self._made(operator)}: docs/tflite.md lists those that have one")

    def _made(self, operator: TfliteOperator) -> str:
        """Returns what an operator makes, for messages."""
        return f", which makes {self.subgraph.tensors[operator.outputs[0]]}" if operator.outputs else ""

    def _compute(self, operator: TfliteOperator) -> None:
        """Adds the instruction of an operator that has a rule."""
        tensors = self.subgraph.tensors
        inputs = [tensors[number] if number >= 0 else None for number in operator.inputs]
        outputs = [tensors[number] for number in operator.outputs]
        for tensor in (*inputs, *outputs):
            if tensor is not None:
                self._shape(tensor)
        body = Body(self.model, operator, inputs, outputs, self.regions)
        try:
            values = RULES[operator.kind](body)
            position, result = _STATES.get(operator.kind, (-1, -1))
            if len(values) != len(outputs) + (position >= 0):
                raise MisfitError(f"it has {len(outputs)} outputs")
            for value, output in zip(values, outputs, strict=False):
                if body.shape(value).dims != output.dims:
                    raise MisfitError(f"its result {list(body.shape(value).dims)} is not {list(output.dims)}")
        except (ValueError, LookupError, ArithmeticError) as error:
            reason = str(error) if isinstance(error, MisfitError) else f"its tensors do not fit it ({error})"
            raise self.fail(f"{operator}{self._made(operator)}: {reason}") from None
        computation = body.computation(f"{operator.kind.lower()}.{operator.number}", values)
        self.bodies.append(computation)
        operands = [self._value(operator, number) for number in operator.inputs if number >= 0]
        aliasing = ""
        if position >= 0:
            aliasing = f"{{{braces([result])}: ({position - operator.inputs[:position].count(-1)}, {{}})}}"
        results = self._fusion(operator, computation, operands, outputs, aliasing)
        if position >= 0:
            state = operator.inputs[position]
            if not tensors[state].is_variable:
                raise self.fail(f"{operator}: {tensors[state]} is no variable")
            self._states[state] = self._value_of[state] = results[result]

    def _fusion(
        self,
        operator: TfliteOperator,
        computation: Computation,
        operands: Sequence[int],
        outputs: Sequence[Tensor],
        aliasing: str = "",
    ) -> list[int]:
        """Adds a fusion, and the elements of its result if there are several; returns their instructions."""
        shape = computation.root_instruction.shape
        attributes = [("kind", "kLoop"), ("calls", f"%{computation.name}")]
        if aliasing:
            attributes.insert(0, ("output_to_operand_aliasing", aliasing))
        name = self._named(outputs[0]) if len(outputs) == 1 and not shape.is_tuple else self._unique(computation.name)
        source = Source(op_name=self._path(operator, outputs))
        fusion = self._add(name, "fusion", shape, "", operands, attributes, (computation.name,), source)
        if not shape.is_tuple:
            self._define_at(operator, outputs[0], fusion)
            return [fusion]
        results = []
        for number, element in enumerate(shape.elements):
            tensor = outputs[number] if number < len(outputs) else None
            name = self._named(tensor) if tensor is not None else self._unique(f"{computation.name}.state")
            index = self._add(name, "get-tuple-element", element, "", (fusion,), (("index", str(number)),), (), source)
            results.append(index)
            if tensor is not None:
                self._define_at(operator, tensor, index)
        return results

    def _assign(self, operator: TfliteOperator, variable: str) -> int:
        """Adds the copy of a value into a variable."""
        tensor = self.subgraph.tensors[operator.inputs[1]]
        value, state = self._value(operator, tensor.number), self._states[variable]
        shape = self._shape(tensor)
        parameters = [Instruction(f"p{n}", "parameter", shape, payload=str(n)) for n in range(2)]
        starts = [Instruction(f"start{d}", "constant", Shape("s32"), payload="0") for d in range(len(shape.dims))]
        operands = (0, 1, *range(2, 2 + len(starts)))
        update = Instruction("updated", "dynamic-update-slice", shape, operands)
        name = f"{operator.kind.lower()}.{operator.number}"
        self.bodies.append(Computation(name, (*parameters, *starts, update), len(starts) + 2))
        attributes = (("kind", "kLoop"), ("calls", f"%{name}"))
        source = Source(op_name=f"{variable}/{operator.kind}")
        return self._add(self._unique(name), "fusion", shape, "", (state, value), attributes, (name,), source)

    def _value(self, operator: TfliteOperator, number: int) -> int:
        """Returns the instruction of a tensor that an operator reads."""
        if number not in self._value_of:
            raise self.fail(f"{operator} reads {self.subgraph.tensors[number]}, which nothing has written")
        return self._value_of[number]

    def _define(self, operator: TfliteOperator, number: int, opcode: str, operands: Sequence[int]) -> None:
        tensor = self.subgraph.tensors[number]
        source = Source(op_name=self._path(operator, [tensor]))
        index = self._add(self._named(tensor), opcode, self._shape(tensor), "", operands, (), (), source)
        self._define_at(operator, tensor, index)

    def _define_at(self, operator: TfliteOperator, tensor: Tensor, index: int) -> None:
        if tensor.number in self._value_of:
            raise self.fail(f"{operator} writes {tensor}, which is written already")
        self._value_of[tensor.number] = index

    def _path(self, operator: TfliteOperator, outputs: Sequence[Tensor]) -> str:
        """Returns a path for reports: the name of the tensor, mostly a path of layers, and the operator's kind."""
        return f"{outputs[0].name}/{operator.kind}" if outputs and outputs[0].name else operator.kind

    # -- The end -------------------------------------------------------------------------------------------------------

    def _results(self, subgraph: Subgraph) -> int:
        """Adds the tuple of results, if there are several; returns the root."""
        results = []
        for number in subgraph.outputs:
            if number not in self._value_of:
                raise self.fail(f"the output {subgraph.tensors[number]} is written by no operator")
            results.append(self._value_of[number])
        if not results:
            raise self.fail("its first subgraph has no output")
        results += self._states.values()
        if len(results) == 1:
            return results[0]
        shape = Shape("tuple", elements=tuple(self.instructions[index].shape for index in results))
        return self._add(self._unique("results"), "tuple", shape, "", results)

    def _add(
        self,
        name: str,
        opcode: str,
        shape: Shape,
        payload: str = "",
        operands: Sequence[int] = (),
        attributes: Sequence[tuple[str, str]] = (),
        called: tuple[str, ...] = (),
        source: Source = _NOWHERE,
    ) -> int:
        self.instructions.append(
            Instruction(name, opcode, shape, tuple(operands), called, tuple(attributes), payload, source=source)
        )
        return len(self.instructions) - 1

    def _named(self, tensor: Tensor) -> str:
        return self._unique(tensor.name or f"tensor.{tensor.number}")

    def _unique(self, name: str) -> str:
        """Returns a name that HLO can hold and no other instruction has."""
        legal = found = legal_name(name)
        while found in self._taken:
            self._taken[legal] += 1
            found = f"{legal}.{self._taken[legal]}"
        self._taken[found] = 0
        return found

    def _shape(self, tensor: Tensor) -> Shape:
        if tensor.is_resource:
            return array("u32", ())
        if not tensor.dtype:
            raise self.fail(f"{tensor} is of a type that has no rule, such as strings")
        return shape_of(tensor)
