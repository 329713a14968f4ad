"""The opcodes of HLO (xla/hlo/ir/hlo_opcode.h), and how many operands each takes."""

from __future__ import annotations

_ANY = (0, None)

_UNARY = [
    "abs", "acos", "acosh", "asin", "asinh", "atanh", "bitcast", "bitcast-convert", "broadcast", "cbrt", "ceil",
    "cholesky", "convert", "copy", "copy-done", "collective-permute-done", "all-gather-done", "all-reduce-done",
    "cosh", "cosine", "count-leading-zeros", "domain", "erf", "exp2", "exponential", "exponential-minus-one", "fft",
    "floor",
    "get-dimension-size", "get-tuple-element", "imag", "infeed", "is-finite", "log", "log2", "log-plus-one", "logistic",
    "negate", "not", "opt-barrier", "optimization-barrier", "popcnt", "real", "recv", "recv-done",
    "reduce-precision", "reshape", "reverse", "rng-bit-generator", "round-nearest-afz", "round-nearest-even",
    "rsqrt", "send-done", "sign", "sine", "sinh", "slice", "sqrt", "tan", "tanh", "topk", "transpose", "while",
]  # fmt: skip

_BINARY = [
    "add", "add-dependency", "and", "atan2", "compare", "complex", "convolution", "divide", "dot", "gather",
    "maximum", "minimum", "mulhi", "multiply", "or", "outfeed", "pad", "power", "remainder", "send",
    "set-dimension-size", "shift-left", "shift-right-arithmetic", "shift-right-logical", "stochastic-convert",
    "subtract", "triangular-solve", "xor",
]  # fmt: skip

_OTHER: dict[str, tuple[int, int | None]] = {
    "constant": (0, 0), "iota": (0, 0), "parameter": (0, 0), "partition-id": (0, 0), "replica-id": (0, 0),
    "rng-get-and-update-state": (0, 0),
    "copy-start": (1, 1), "collective-permute": (1, None), "collective-permute-start": (1, None),
    "batch-norm-grad": (5, 5), "batch-norm-inference": (5, 5), "batch-norm-training": (3, 3),
    "clamp": (3, 3), "select": (3, 3), "select-and-scatter": (3, 3),
    "conditional": (2, None), "dot": (2, None), "ragged-dot": (3, 3), "scaled-dot": (4, 4),
    "dynamic-slice": (1, None), "dynamic-update-slice": (2, None), "dynamic-reshape": (1, None),
    "concatenate": (1, None), "reduce": (2, None), "reduce-window": (2, None), "scatter": (3, None),
    "sort": (1, None), "map": (1, None),
    "after-all": _ANY, "all-gather": _ANY, "all-gather-start": _ANY, "all-reduce": _ANY, "all-reduce-start": _ANY,
    "all-to-all": _ANY, "async-done": (1, 1), "async-start": _ANY, "async-update": (1, None), "call": _ANY,
    "collective-broadcast": _ANY, "collective-reduce": _ANY, "custom-call": _ANY, "fusion": _ANY,
    "ragged-all-to-all": _ANY, "shuffle": _ANY,
    "reduce-scatter": _ANY, "rng": _ANY, "scan": _ANY, "tuple": _ANY,
}  # fmt: skip

# Opcode to the least and the greatest number of operands (None: no limit).
OPERANDS: dict[str, tuple[int, int | None]] = {
    **dict.fromkeys(_UNARY, (1, 1)),
    **dict.fromkeys(_BINARY, (2, 2)),
    **_OTHER,
}

# What XLA turns into copies that go on beside instructions: `X-start` begins one, `X-done` awaits it.
ASYNCHRONOUS_COPIES = ("copy", "slice", "dynamic-slice")

_ASYNC_SUFFIXES = ("-start", "-update", "-done")


def is_known(opcode: str) -> bool:
    """Tells whether XLA has the opcode; `X-start`, `X-update` and `X-done` are asynchronous forms of any `X`.

    >>> is_known("fusion-start"), is_known("frobnicate")
    (True, False)
    """
    if opcode in OPERANDS:
        return True
    return any(opcode.endswith(s) and opcode.removesuffix(s) in OPERANDS for s in _ASYNC_SUFFIXES)


def operand_limits(opcode: str) -> tuple[int, int | None]:
    """Returns the least and the greatest number of operands; an unknown opcode takes any."""
    if opcode in OPERANDS:
        return OPERANDS[opcode]
    if is_known(opcode) and not opcode.endswith("-start"):
        # An update may be given the operands that its start was not.
        return (1, None) if opcode.endswith("-update") else (1, 1)
    return _ANY
