"""Attributes of collectives and of what is sent through channels, as XLA prints them."""

from __future__ import annotations

from collections.abc import Sequence

from memplan.compiler.frontends import protobuf
from memplan.compiler.frontends.proto_common import Attributes, number_list, true_attribute
from memplan.compiler.frontends.proto_sharding import device_list_text
from memplan.compiler.frontends.protobuf import Message, integer, integers
from memplan.compiler.ir.shape import Shape

COLLECTIVES = frozenset(
    {
        "all-gather", "all-gather-start", "all-reduce", "all-reduce-start", "all-to-all", "collective-broadcast",
        "collective-reduce", "collective-permute", "collective-permute-start", "ragged-all-to-all", "reduce-scatter",
    }
)  # fmt: skip


def channel(message: Message) -> Attributes:
    """Returns the `channel_id`. A channel of 0 is none: a proto cannot tell them apart, and XLA does not either."""
    return [("channel_id", str(integer(message, 26)))] if integer(message, 26) > 0 else []


def collective(message: Message, opcode: str, operand_shapes: Sequence[Shape]) -> Attributes:
    """Returns the attributes of an instruction whose opcode is one of `COLLECTIVES`."""
    found = channel(message)
    if opcode.startswith("collective-permute"):
        pairs = [f"{{{integer(p, 1)},{integer(p, 2)}}}" for p in protobuf.submessages(message, 52)]
        found.append(("source_target_pairs", "{" + ",".join(pairs) + "}"))
        return found + _slice_sizes(integers(message, 20), operand_shapes)
    found.append(("replica_groups", device_list_text(message)))
    found += true_attribute(message, 56, "constrain_layout")
    if opcode.startswith(("all-gather", "all-to-all")) and 14 in message:
        found.append(("dimensions", number_list(integers(message, 14))))
    found += true_attribute(message, 71, "use_global_device_ids")
    if opcode == "reduce-scatter":
        found.append(("dimensions", number_list(integers(message, 14))))
    return found


def _slice_sizes(sizes: Sequence[int], operand_shapes: Sequence[Shape]) -> Attributes:
    """Splits the sizes of the slices that an in-place permutation moves: the proto holds them one after another."""
    if not sizes:
        return []
    ranks = [len(shape.dims) for _, shape in operand_shapes[0].leaves()] if operand_shapes else []
    if len(set(ranks)) == 1:
        ranks = ranks[:1]  # slices of arrays of one rank stand in a row, however many there are of each array
    of_each = max(len(sizes) // max(sum(ranks), 1), 1)
    parts: list[str] = []
    start = 0
    for rank in ranks:
        for _ in range(of_each if rank else 0):
            parts.append(number_list(sizes[start : start + rank]))
            start += rank
    if start != len(sizes):  # XLA does not check them, so nothing is wrong with the message
        parts = [number_list(sizes)]
    return [("slice_sizes", "{" + ",".join(parts) + "}")]
