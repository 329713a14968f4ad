"""How much arithmetic an instruction does, whatever the hardware.

Counts follow XLA's `HloCostAnalysis` (xla/service/hlo_cost_analysis.cc), so that they can be compared with it: an
elementwise operation counts one for each element of its result, a multiply-add two, and a fusion or another call the
sum over its body. They differ where its figure is a bound rather than a count:

    fft      5 n log2 n (Frigo and Johnson, benchFFT), half of it where one side is real, instead of 8 n log2 n
    sort     log2 n applications of the comparator for each element, n along the sorted dimension, instead of log2 N
             operations, N the number of elements
    complex  a multiply-add of complex numbers is four real ones, instead of one
    top-k    log2 n operations for each element, instead of none
    ragged   a ragged dot multiplies each row by the matrix of its group alone, instead of another number of them
    scan     once for each step, instead of once
    loops    in the body of a fusion or of an asynchronous operation run as often as they do there, instead of once
    solves   triangular ones and batch norms are counted, each element of a triangle once
    reduce   across devices: one application for each element that is sent, in a reduce-scatter as well
    views    a bitcast-convert is nothing, instead of an operation for each element
    random   bits are the operations of a generator, instead of one transcendental operation each
    calls    of libraries that are known by name, instead of nothing
    windows  that all see a whole dimension (as in a softmax, whose maximum is one such) are one reduction of it,
             instead of one for each window

What a `while`, a `conditional` or a `call` calls is executed as instructions of its own: they have no work themselves.
`uncosted.py` lists what cannot be counted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from memplan.compiler.errors import GraphError
from memplan.compiler.hardware.library_calls import library_arithmetic
from memplan.compiler.hardware.linear_algebra import factorization, factorization_flops
from memplan.compiler.hardware.matrix_work import MatrixWork, convolution_work, dot_work, ragged_dot_work
from memplan.compiler.ir import Computation, Graph, Instruction, Shape
from memplan.compiler.ir.trip_count import trip_count
from memplan.compiler.ir.window import Window

# HloCostAnalysis::HandleElementwiseOp counts these as transcendental.
TRANSCENDENTAL = frozenset(
    {
        "acos", "acosh", "asin", "asinh", "atan2", "atanh", "cbrt", "cosh", "cosine", "erf", "exp2", "exponential",
        "exponential-minus-one", "log", "log2", "log-plus-one", "logistic", "power", "rsqrt", "sine", "sinh", "sqrt",
        "tan", "tanh",
        # Primitives of JAX that HLO has no opcode for.
        "bessel_i0e", "bessel_i1e", "digamma", "erf_inv", "erfc", "igamma", "igamma_grad_a", "igammac", "lgamma",
        "polygamma", "random_gamma", "random_gamma_grad", "regularized_incomplete_beta", "zeta",
    }
)  # fmt: skip
# One operation for each element of the result.
ELEMENTWISE = frozenset(
    {
        "abs", "add", "and", "ceil", "clamp", "compare", "complex", "convert", "count-leading-zeros", "divide",
        "floor", "imag", "is-finite", "maximum", "minimum", "mulhi", "multiply", "multiply-high", "negate", "not",
        "or", "popcnt", "real", "reduce-precision", "remainder", "round-nearest-afz", "round-nearest-even", "select",
        "shift-left", "shift-right-arithmetic", "shift-right-logical", "sign", "stochastic-convert", "subtract",
        "xor",
        # Primitives of JAX that HLO has no opcode for.
        "conj", "nextafter",
    }
)  # fmt: skip
# Calls whose callee's instructions are executed, and counted, one by one.
FLATTENED = frozenset({"while", "conditional", "call"})


@dataclass(frozen=True, slots=True)
class Work:
    """Arithmetic.

    Attributes:
      flops: elementwise operations, and those of reductions; without those of `matrix` and `transcendentals`.
      transcendentals: exponentials, logarithms, square roots, sines and the like.
      matrix: matrix products and convolutions.
    """

    flops: float = 0.0
    transcendentals: float = 0.0
    matrix: tuple[MatrixWork, ...] = ()

    @property
    def total_flops(self) -> float:
        """All operations but the transcendental ones."""
        return self.flops + sum(part.flops for part in self.matrix)

    def __mul__(self, times: float) -> Work:
        """Returns the work of doing this `times` times."""
        return Work(
            self.flops * times,
            self.transcendentals * times,
            tuple(
                MatrixWork(part.dtype, part.precision, part.flops * times, part.contracted, part.rows, part.columns)
                for part in self.matrix
            )
            if times
            else (),
        )


def add_work(parts: Iterable[Work]) -> Work:
    """Returns the sum of some works."""
    flops = transcendentals = 0.0
    matrix: list[MatrixWork] = []
    for part in parts:
        flops += part.flops
        transcendentals += part.transcendentals
        matrix.extend(part.matrix)
    return Work(flops, transcendentals, tuple(matrix))


NOTHING = Work()


class WorkCounter:
    """Counts the work of a Graph's instructions; every called computation is counted once."""

    def __init__(self, graph: Graph):
        self._graph = graph
        self._bodies: dict[str, Work] = {}

    def of(self, computation: Computation, instruction: Instruction) -> Work:
        """Returns the work of an instruction of `computation`.

        Raises:
          GraphError: its attributes and shapes contradict each other.
        """
        opcode = instruction.opcode
        if opcode.endswith("-start") and (begun := opcode.removesuffix("-start")) in COUNTED:
            # An asynchronous operation gives its operands, its result, and what it needs meanwhile.
            opcode, instruction = begun, _begun(instruction, begun)
        elements = _elements(instruction.shape)
        if opcode in ELEMENTWISE:
            return Work(flops=elements)
        if opcode in TRANSCENDENTAL:
            return Work(transcendentals=elements)
        if opcode in FLATTENED or opcode.endswith(("-update", "-done")):
            return NOTHING
        operands = [computation.instructions[operand].shape for operand in instruction.operands]
        rule = _RULES.get(opcode)
        if rule is not None:
            try:
                return rule(self, instruction, operands)
            except (ValueError, LookupError, ArithmeticError) as error:
                where = f"{self._graph.file or self._graph.name}: {computation.name}"
                raise GraphError(
                    f"{where}: the attributes and shapes of {opcode} {instruction.name!r} do not fit: {error}"
                ) from None
        if instruction.called:
            return add_work(self.body(name) for name in instruction.called)
        return NOTHING

    def body(self, name: str) -> Work:
        """Returns the work of all instructions of a computation, each executed once."""
        known = self._bodies.get(name)
        if known is None:
            computation = self._graph.computations[name]
            known = add_work(self._within(computation, instruction) for instruction in computation.instructions)
            self._bodies[name] = known
        return known

    def _within(self, computation: Computation, instruction: Instruction) -> Work:
        """Returns the work of an instruction whose computation is not executed one by one, so that calls count."""
        if instruction.opcode == "while":
            times, _ = trip_count(self._graph, instruction, computation)
            return add_work(self.body(name) for name in instruction.called) * times
        if instruction.opcode == "conditional":
            return max(map(self.body, instruction.called), key=lambda work: work.total_flops, default=NOTHING)
        if instruction.opcode in FLATTENED:
            return add_work(self.body(name) for name in instruction.called)
        return self.of(computation, instruction)

    def applied(self, instruction: Instruction, key: str = "to_apply") -> Work:
        """Returns the work of one application of the computation that an attribute names; one operation if none."""
        name = instruction.attribute(key).lstrip("%")
        return self.body(name) if name in self._graph.computations else Work(flops=1.0)


def total_work(graph: Graph) -> Work:
    """Returns the work of a whole program, loop bodies counted once, as `HloCostAnalysis` does.

    All branches of a conditional count; XLA counts the largest only.
    """
    counter = WorkCounter(graph)

    def of(name: str) -> Work:
        computation = graph.computations[name]
        parts: list[Work] = []
        for instruction in computation.instructions:
            if instruction.opcode in FLATTENED:
                parts.extend(of(called) for called in instruction.called)
            else:
                parts.append(counter.of(computation, instruction))
        return add_work(parts)

    return of(graph.entry)


def _elements(shape: Shape) -> int:
    """Elements of an array, or of the first array of a tuple: several results of one operation have one size."""
    for _, leaf in shape.leaves():
        if leaf.is_array:
            return leaf.num_elements
    return 0


def _begun(instruction: Instruction, opcode: str) -> Instruction:
    """Returns what an asynchronous operation does, as an instruction of its own."""
    shape = instruction.shape
    is_wrapped = shape.is_tuple and len(shape.elements) > 1 and shape.elements[0].is_tuple
    return replace(instruction, opcode=opcode, shape=shape.elements[1] if is_wrapped else shape)


def _array(shape: Shape) -> Shape:
    """Returns an array, or the first one of a tuple: a sparse operand is a tuple of its values and their places."""
    return next((leaf for _, leaf in shape.leaves() if leaf.is_array), shape)


def _reduce(counter: WorkCounter, instruction: Instruction, operands: list[Shape]) -> Work:
    """One application for each element that is folded into another."""
    return counter.applied(instruction) * max(0, _elements(operands[0]) - _elements(instruction.shape))


def _reduce_window(counter: WorkCounter, instruction: Instruction, operands: list[Shape]) -> Work:
    """One application for each element of a window but one; windows that all see a whole dimension share its result."""
    window = Window.parse(instruction.attribute("window"))
    made = next((leaf.dims for _, leaf in instruction.shape.leaves()), ())
    whole = [
        size > 1 and window.covers(d, operands[0].dims[d], made[d])
        for d, size in enumerate(window.size)
    ]  # fmt: skip
    size = math.prod(size for size, is_whole in zip(window.size, whole, strict=True) if not is_whole)
    applications = _elements(instruction.shape) * max(0, size - 1) + any(whole) * _elements(operands[0])
    return counter.applied(instruction) * applications


def _select_and_scatter(counter: WorkCounter, instruction: Instruction, operands: list[Shape]) -> Work:
    size = math.prod(Window.parse(instruction.attribute("window")).size)
    chosen = counter.applied(instruction, "select") * max(0, size - 1)
    return add_work([chosen, counter.applied(instruction, "scatter")]) * _elements(operands[1])


def _scatter(counter: WorkCounter, instruction: Instruction, operands: list[Shape]) -> Work:
    return counter.applied(instruction) * _elements(operands[-1])


def _map(counter: WorkCounter, instruction: Instruction, operands: list[Shape]) -> Work:
    return counter.applied(instruction) * _elements(instruction.shape)


def _sort(counter: WorkCounter, instruction: Instruction, operands: list[Shape]) -> Work:
    dimension = re.search(r"\d+", instruction.attribute("dimensions"))
    length = operands[0].dims[int(dimension[0])] if dimension and operands[0].dims else _elements(operands[0])
    return counter.applied(instruction) * (_elements(operands[0]) * math.ceil(math.log2(max(1, length))))


def _top_k(counter: WorkCounter, instruction: Instruction, operands: list[Shape]) -> Work:
    length = operands[0].dims[-1] if operands[0].dims else 1
    return Work(flops=_elements(operands[0]) * math.ceil(math.log2(max(2, length))))


def _fft(counter: WorkCounter, instruction: Instruction, operands: list[Shape]) -> Work:
    lengths = [int(length) for length in re.findall(r"\d+", instruction.attribute("fft_length"))]
    kind = instruction.attribute("fft_type")
    real = instruction.shape if kind == "IRFFT" else operands[0]
    # A transform with one real side is half a complex one of the same length.
    share = 0.5 if kind in ("RFFT", "IRFFT") else 1.0
    return Work(flops=5.0 * share * _elements(real) * sum(math.log2(max(1, length)) for length in lengths))


def _dot(counter: WorkCounter, instruction: Instruction, operands: list[Shape]) -> Work:
    return Work(matrix=(dot_work(instruction, _array(operands[0]), _array(operands[1])),))


def _ragged_dot(counter: WorkCounter, instruction: Instruction, operands: list[Shape]) -> Work:
    return Work(matrix=(ragged_dot_work(instruction, operands[0], operands[1]),))


def _convolution(counter: WorkCounter, instruction: Instruction, operands: list[Shape]) -> Work:
    return Work(matrix=(convolution_work(instruction, _array(operands[0])),))


def _scan(counter: WorkCounter, instruction: Instruction, operands: list[Shape]) -> Work:
    """One application for each step along the dimension that is scanned."""
    dimension = re.search(r"\d+", instruction.attribute("dimensions"))
    dims = operands[0].dims
    return counter.applied(instruction) * (dims[int(dimension[0])] if dimension and dims else 1)


def _cumulative(counter: WorkCounter, instruction: Instruction, operands: list[Shape]) -> Work:
    elements = float(_elements(operands[0]))
    return Work(elements, 2.0 * elements if instruction.opcode == "cumlogsumexp" else 0.0)


def _reduce_all(counter: WorkCounter, instruction: Instruction, operands: list[Shape]) -> Work:
    """One application for each element that is folded into that of another device."""
    return counter.applied(instruction) * sum(map(_elements, operands))


def _factorization(counter: WorkCounter, instruction: Instruction, operands: list[Shape]) -> Work:
    return Work(flops=factorization_flops(factorization(instruction.opcode), operands[0]))


def _tridiagonal_solve(counter: WorkCounter, instruction: Instruction, operands: list[Shape]) -> Work:
    """The Thomas algorithm: eight operations for each row and right side (Golub and Van Loan, section 4.3)."""
    return Work(flops=8.0 * _elements(instruction.shape))


def _triangular_solve(counter: WorkCounter, instruction: Instruction, operands: list[Shape]) -> Work:
    """A multiply-add for each element of the solution and each row before it, half of them on average."""
    return Work(flops=float(operands[0].dims[-1] * _elements(instruction.shape)))


def _random(counter: WorkCounter, instruction: Instruction, operands: list[Shape]) -> Work:
    return Work(transcendentals=float(_elements(instruction.shape)))


def _random_bits(counter: WorkCounter, instruction: Instruction, operands: list[Shape]) -> Work:
    """Threefry-2x32: for two words 20 rounds of addition, rotation and exclusive or (Salmon et al., SC 2011)."""
    leaves = [leaf for _, leaf in instruction.shape.leaves()]
    return Work(flops=50.0 * leaves[-1].num_elements)


def _batch_norm(counter: WorkCounter, instruction: Instruction, operands: list[Shape]) -> Work:
    """Sums, products and differences of the input's elements: 5 for inference, 8 with statistics, 12 for gradients."""
    each = {"batch-norm-inference": 5, "batch-norm-training": 8, "batch-norm-grad": 12}[instruction.opcode]
    return Work(flops=float(each * _elements(operands[0])))


def _custom_call(counter: WorkCounter, instruction: Instruction, operands: list[Shape]) -> Work:
    """What a Pallas kernel says of itself (`pl.CostEstimate`), what the name says, or what it calls."""
    config = instruction.attribute("backend_config")
    if "cost_estimate" not in config:
        known = library_arithmetic(instruction, operands)
        return Work(*known) if known is not None else add_work(counter.body(name) for name in instruction.called)
    flops, transcendentals = (
        float(found[1]) if (found := re.search(rf'"{key}"\s*:\s*"?(\d+)', config)) else 0.0
        for key in ("flops", "transcendentals")
    )
    return Work(flops=flops, transcendentals=transcendentals)


_RULES = {
    "reduce": _reduce,
    "reduce-window": _reduce_window,
    "select-and-scatter": _select_and_scatter,
    "scatter": _scatter,
    "map": _map,
    "sort": _sort,
    "topk": _top_k,
    "fft": _fft,
    "all-reduce": _reduce_all,
    "collective-reduce": _reduce_all,
    "reduce-scatter": _reduce_all,
    "scan": _scan,
    "dot": _dot,
    "scaled-dot": _dot,
    "ragged-dot": _ragged_dot,
    "convolution": _convolution,
    "triangular-solve": _triangular_solve,
    **dict.fromkeys(
        ("cholesky", "lu", "qr", "householder_product", "eigh", "svd", "eig", "schur", "tridiagonal", "hessenberg"),
        _factorization,
    ),
    "tridiagonal_solve": _tridiagonal_solve,
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp", "argmax", "argmin"), _cumulative),
    "random_bits": _random_bits,
    "random_seed": _random_bits,
    "rng": _random,
    "rng-bit-generator": _random_bits,
    "batch-norm-inference": _batch_norm,
    "batch-norm-training": _batch_norm,
    "batch-norm-grad": _batch_norm,
    "custom-call": _custom_call,
}

# The opcodes whose arithmetic is counted.
COUNTED = ELEMENTWISE | TRANSCENDENTAL | _RULES.keys()
