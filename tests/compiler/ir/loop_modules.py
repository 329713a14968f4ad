"""Modules with one loop, and how often it runs."""

from __future__ import annotations

from memplan.compiler.frontends import parse_hlo
from memplan.compiler.ir import Graph
from memplan.compiler.ir.trip_count import ASSUMED_TRIP_COUNT, trip_count


def count(text: str) -> tuple[float, bool]:
    """Returns the trip count of the first `while` of a module."""
    return count_of(parse_hlo(text))


def count_of(graph: Graph, name: str = "") -> tuple[float, bool]:
    for computation, instruction in graph.instructions():
        if instruction.opcode == "while" and name in ("", instruction.name):
            return trip_count(graph, instruction, computation)
    raise AssertionError("no while")


UNKNOWN = (ASSUMED_TRIP_COUNT, False)

LOOP = """
condition {
  c = (s32[], f32[8], s32[]) parameter(0)
  ci = s32[] get-tuple-element(c), index=0
  cn = s32[] get-tuple-element(c), index=2
  limit = s32[] constant(12)
  ROOT go = pred[] compare(ci, limit), direction=LT
}
body {
  b = (s32[], f32[8], s32[]) parameter(0)
  bi = s32[] get-tuple-element(b), index=0
  bx = f32[8] get-tuple-element(b), index=1
  bn = s32[] get-tuple-element(b), index=2
  step = s32[] constant(1)
  next = s32[] add(bi, step)
  y = f32[8] negate(bx)
  ROOT all = (s32[], f32[8], s32[]) tuple(next, y, bn)
}
ENTRY e {
  x = f32[8] parameter(0)
  n = s32[] constant(40)
  zero = s32[] constant(0)
  start = (s32[], f32[8], s32[]) tuple(zero, x, n)
  ROOT w = (s32[], f32[8], s32[]) while(start), condition=condition, body=body
}
"""


def loop_of(carried: str, update: str, condition: str, before: str, start: str) -> str:
    """Returns a module with a loop: the types that it carries, and the instructions of its parts, each of which ends with
    one called `root`; elements are called `x0`, `x1`, …
    """
    types = [part.strip() for part in carried.split(";")]
    parts = "".join(f" x{i} = {part} get-tuple-element(p), index={i}" for i, part in enumerate(types))
    whole = f"({', '.join(types)})"
    return f"""
    condition {{ p = {whole} parameter(0) {parts} {condition} }}
    body {{ p = {whole} parameter(0) {parts} {update} }}
    ENTRY e {{ {before} start = {whole} tuple({start}) ROOT w = {whole} while(start), condition=condition, body=body }}"""
