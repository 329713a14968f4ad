"""Which runtime a program is for: XLA and TensorFlow Lite treat the memory of arguments and operands differently.

- Arguments: in XLA the caller's, unless it donates them. In TensorFlow Lite buffers that the application fills before
  each run, free for other values after their last use; weights are constants.
- The result of an operation: in XLA it may lie where an operand ends, in TensorFlow Lite it lies beside all operands.
"""

from __future__ import annotations

from memplan.compiler.ir.graph import Graph

# Among the frontend attributes of a module.
TFLITE = 'memplan.runtime="tflite"'


def is_for_tflite(graph: Graph) -> bool:
    """Tells whether a program is for TensorFlow Lite's runtime."""
    return TFLITE in dict(graph.attributes).get("frontend_attributes", "")
