"""The arithmetic of custom calls that are known by their names: what XLA hands to the libraries of a platform.

    __cublas$gemm, __cublas$lt$matmul…   matrix products; dimensions in the `backend_config`
    __onednn$matmul, __op$block_scaled…  matrix products; dimensions by position
    __cudnn$conv…, __onednn$convolution  convolutions; windows and labels as the opcode has them
    __cudnn$fmha…                        attention: two products forward, five backward
    TopK, …cub_sort…, …cub_scan…         as the opcodes
    lapack_…, cusolver_…, Qr, …          factorizations

Of the rest nothing is known but what is listed as an annotation, which computes nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from memplan.compiler.hardware.linear_algebra import factorization, factorization_flops
from memplan.compiler.hardware.matrix_work import MatrixWork, convolution_work, dot_work, product_work
from memplan.compiler.ir import Instruction, Shape

# What a call does: elementwise operations, transcendental ones, and matrix products.
Arithmetic = tuple[float, float, tuple[MatrixWork, ...]]

# They say something about their operands, or move them, and compute nothing.
_ANNOTATIONS = frozenset(
    {
        "AllocateBuffer", "AssumeGatherIndicesInBound", "ConcatBitcast", "ConsumeToken", "CreateBuffer", "GetRngSeed",
        "LayoutConstraint", "MoveToDevice", "MoveToHost", "NopReturnToken", "PadToStatic", "Pin",
        "SPMDFullToShardShape", "SPMDShardToFullShape", "ShardBarrierFrom", "ShardBarrierTo", "Sharding",
        "SliceToDynamic", "Unpin", "X64Combine", "X64SplitHigh", "X64SplitLow", "annotate_device_placement",
    }
)  # fmt: skip
_NAMED = re.compile(r'"?((?:[^"\\]|\\.)*)"?', re.DOTALL)
# Elementwise functions that StableHLO has no operation for.
_ELEMENTWISE = re.compile(
    r"(?:mhlo|chlo)\.(?:a?(?:sin|cos|tan)h?|erf(?:c|_inv)?|lgamma|digamma|bessel_i1e|zeta|polygamma)"
)


def call_target(instruction: Instruction) -> str:
    """Returns the name of what a custom call calls.

    >>> call_target(Instruction("a", "custom-call", Shape("f32"), attributes=(("custom_call_target", '"Qr"'),)))
    'Qr'
    """
    found = _NAMED.fullmatch(instruction.attribute("custom_call_target"))
    return found[1] if found else instruction.attribute("custom_call_target")


def is_annotation(target: str) -> bool:
    """Tells whether a custom call computes nothing."""
    return target in _ANNOTATIONS or target.startswith("xla.sdy.")


def library_arithmetic(instruction: Instruction, operands: Sequence[Shape]) -> Arithmetic | None:
    """Returns what a custom call computes; None if its name says nothing.

    Raises:
      ValueError, LookupError: its attributes and shapes contradict each other.
    """
    target = call_target(instruction)
    rule = _rule(target)
    if rule is None:
        return None
    arrays = [leaf for operand in operands for _, leaf in operand.leaves() if leaf.is_array]
    results = [leaf for _, leaf in instruction.shape.leaves() if leaf.is_array]
    if not arrays or not results:
        return None
    return rule(replace(instruction, shape=results[0]), arrays)


Rule = Callable[[Instruction, Sequence[Shape]], Arithmetic | None]


def _rule(target: str) -> Rule | None:
    for prefix, rule in _BY_PREFIX:
        if target.startswith(prefix):
            return rule
    if factorization(target):
        return _factorization
    if "trsm" in target or target.endswith("triangularSolve"):
        return _triangular_solve
    return _transcendental if _ELEMENTWISE.fullmatch(target) else None


def _gemm(instruction: Instruction, arrays: Sequence[Shape]) -> Arithmetic:
    """A product whose dimensions the config states; without them, of the last dimension of the first operand."""
    config = instruction.attribute("backend_config").replace('\\"', '"')
    names = {
        "lhs_contracting_dims": "lhs_contracting_dimensions", "rhs_contracting_dims": "rhs_contracting_dimensions",
        "lhs_batch_dims": "lhs_batch_dimensions", "rhs_batch_dims": "rhs_batch_dimensions",
    }  # fmt: skip
    stated = {ours: re.search(rf'"{theirs}"\s*:\s*\[([^\]]*)\]', config) for ours, theirs in names.items()}
    if stated["lhs_contracting_dims"] is None:
        return _last_dimension(instruction, arrays)
    dimensions = [(ours, found[1]) for ours, found in stated.items() if found is not None]
    precisions = ("operand_precision", config.lower())
    return 0.0, 0.0, (dot_work(replace(instruction, attributes=(*dimensions, precisions)), arrays[0], arrays[1]),)


def _last_dimension(instruction: Instruction, arrays: Sequence[Shape]) -> Arithmetic:
    """A product over the last dimension of the first operand, or the one before it where the config transposes it."""
    left = arrays[0]
    is_transposed = re.search(r'transpose_a\\*"\s*:\s*true', instruction.attribute("backend_config")) is not None
    contracted = left.dims[-2 if is_transposed else -1]
    columns = instruction.shape.dims[-1] if instruction.shape.dims else 1
    rows = instruction.shape.dims[-2] if len(instruction.shape.dims) > 1 else 1
    return 0.0, 0.0, (product_work(instruction, left.dtype, contracted, rows, columns),)


def _convolution_forward(instruction: Instruction, arrays: Sequence[Shape]) -> Arithmetic:
    return 0.0, 0.0, (convolution_work(instruction, arrays[0]),)


def _convolution_backward_input(instruction: Instruction, arrays: Sequence[Shape]) -> Arithmetic:
    """The labels are those of the forward convolution, whose input is the result here, and its result operand 0."""
    forward = replace(instruction, shape=arrays[0])
    return 0.0, 0.0, (convolution_work(forward, instruction.shape),)


def _convolution_backward_filter(instruction: Instruction, arrays: Sequence[Shape]) -> Arithmetic:
    """The labels are those of the forward convolution, whose kernel is the result here, and its result operand 1."""
    forward = replace(instruction, shape=arrays[1])
    return 0.0, 0.0, (convolution_work(forward, arrays[0]),)


def _convolution_onednn(instruction: Instruction, arrays: Sequence[Shape]) -> Arithmetic | None:
    """Each element of the result sums over a kernel; the config says which dimension of the kernel counts kernels."""
    found = re.search(r'output_feature_dim\\*"\s*:\s*\\*"?(\d+)', instruction.attribute("backend_config"))
    if found is None:
        return None
    # Their numbers begin at 1.
    kernels = arrays[1].dims[int(found[1]) - 1]
    contracted = arrays[1].num_elements // max(1, kernels)
    rows = instruction.shape.num_elements // max(1, kernels)
    return 0.0, 0.0, (product_work(instruction, arrays[0].dtype, contracted, rows, kernels),)


def _attention(instruction: Instruction, arrays: Sequence[Shape]) -> Arithmetic:
    """Queries `[…, s, d]` with keys `[…, t, d]`, a softmax of `[…, s, t]`, and that with values; gradients are five."""
    config = instruction.attribute("backend_config").replace('\\"', '"')
    shape = re.search(r'"intermediate_tensor_shape"\s*:\s*\{[^{}]*?"dimensions"\s*:\s*\[([^\]]*)\]', config)
    scores = [int(size) for size in re.findall(r"\d+", shape[1])] if shape else []
    depth = arrays[0].dims[-1]
    weights = math.prod(scores) if scores else arrays[0].num_elements // max(1, depth) * arrays[1].dims[-2]
    rows, columns = (scores[-2], scores[-1]) if len(scores) > 1 else (arrays[0].dims[-2], arrays[1].dims[-2])
    products = 5 if "Backward" in call_target(instruction) else 2
    part = MatrixWork(arrays[0].dtype, "default", 2.0 * products * weights * depth, depth, rows, columns)
    return 4.0 * weights, float(weights), (part,)


def _softmax(instruction: Instruction, arrays: Sequence[Shape]) -> Arithmetic:
    elements = float(arrays[0].num_elements)
    return 4.0 * elements, elements, ()


def _normalization(instruction: Instruction, arrays: Sequence[Shape]) -> Arithmetic:
    return 8.0 * arrays[0].num_elements, 0.0, ()


def _elementwise(instruction: Instruction, arrays: Sequence[Shape]) -> Arithmetic:
    return float(arrays[0].num_elements), 0.0, ()


def _transcendental(instruction: Instruction, arrays: Sequence[Shape]) -> Arithmetic:
    return 0.0, float(instruction.shape.num_elements), ()


def _sorted(instruction: Instruction, arrays: Sequence[Shape]) -> Arithmetic:
    length = arrays[0].dims[-1] if arrays[0].dims else 1
    return float(arrays[0].num_elements * math.ceil(math.log2(max(2, length)))), 0.0, ()


def _matrix(arrays: Sequence[Shape]) -> Shape:
    for array in arrays:
        if len(array.dims) > 1:
            return array
    raise ValueError("no operand is a matrix")


def _factorization(instruction: Instruction, arrays: Sequence[Shape]) -> Arithmetic:
    matrix = _matrix(arrays)
    return factorization_flops(factorization(call_target(instruction)), matrix), 0.0, ()


def _triangular_solve(instruction: Instruction, arrays: Sequence[Shape]) -> Arithmetic:
    matrix = _matrix(arrays)
    return float(matrix.dims[-1] * instruction.shape.num_elements), 0.0, ()


# A longer prefix stands before a shorter one that it begins with.
_BY_PREFIX: tuple[tuple[str, Rule], ...] = (
    ("__cublas$triangularSolve", _triangular_solve),
    ("__cublas$", _gemm),
    ("__onednn$matmul", _last_dimension),
    ("__onednn$convolution", _convolution_onednn),
    ("__onednn$softmax", _softmax),
    ("__onednn$layernorm", _normalization),
    ("__op$block_scaled_dot", _last_dimension),
    ("__cudnn$blockScaledDot", _last_dimension),
    ("__op$quantize", _elementwise),
    ("__op$dequantize", _elementwise),
    ("__cudnn$convBackwardInput", _convolution_backward_input),
    ("__cudnn$convBackwardFilter", _convolution_backward_filter),
    ("__cudnn$conv", _convolution_forward),
    ("DynamicConvolutionForward", _convolution_forward),
    ("DynamicConvolutionInputGrad", _convolution_backward_input),
    ("DynamicConvolutionKernelGrad", _convolution_backward_filter),
    ("__cudnn$fmha", _attention),
    ("__cudnn$norm", _normalization),
    ("__cudnn$batchNormalization", _normalization),
    ("TopK", _sorted),
    ("__gpu$TopK", _sorted),
    ("mhlo.topk", _sorted),
    ("PartialReduce", _sorted),
    ("ApproxTopK", _sorted),
    ("xla.gpu.ext.cub_sort", _sorted),
    ("__cub$DeviceRadixSort", _sorted),
    ("xla.gpu.ext.cub_scan", _elementwise),
)
