"""Counts of loops beside those of running them."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from loop_modules import LOOP, UNKNOWN, count, loop_of
from thorough import examples

DIRECTIONS = {
    "LT": lambda a, b: a < b,
    "LE": lambda a, b: a <= b,
    "GT": lambda a, b: a > b,
    "GE": lambda a, b: a >= b,
    "EQ": lambda a, b: a == b,
    "NE": lambda a, b: a != b,
}


TYPES = {
    "s8": np.int8,
    "u8": np.uint8,
    "s16": np.int16,
    "u16": np.uint16,
    "s32": np.int32,
    "u32": np.uint32,
    "s64": np.int64,
    "u64": np.uint64,
}
OPERATIONS = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "maximum": max,
    "minimum": min,
    "xor": lambda a, b: a ^ b,
}  # fmt: skip
ENOUGH = 600


@st.composite
def random_loops(draw: st.DrawFn) -> tuple[str, int | None]:
    """Draws a loop over a counter, a limit and a step, and how often it runs; None where that is more than `ENOUGH`.

    NumPy's arithmetic is the reference: it wraps as HLO's does.
    """
    dtype = draw(st.sampled_from(sorted(TYPES)))
    kind = TYPES[dtype]
    low, high = int(np.iinfo(kind).min), int(np.iinfo(kind).max)
    numbers = st.one_of(
        st.integers(max(low, -9), 30), st.integers(low, low + 9), st.integers(high - 9, high), st.integers(low, high)
    )
    start, limit, step, offset = (draw(numbers) for _ in range(4))
    updates = draw(st.lists(st.sampled_from(sorted(OPERATIONS)), min_size=1, max_size=2))
    direction = draw(st.sampled_from(sorted(DIRECTIONS)))
    moves = draw(st.sampled_from(["nothing", "limit", "step"]))
    flag = draw(st.booleans())  # the condition asks for what the body compared
    shifted = draw(st.booleans())  # what is compared is the counter plus an offset

    lines, last = [], "x0"
    for i, opcode in enumerate(updates):
        lines.append(f"u{i} = {dtype}[] {opcode}({last}, x2)")
        last = f"u{i}"
    limit_after = "x1" if moves != "limit" else "moved"
    step_after = "x2" if moves != "step" else "moved"
    lines.append(f"moved = {dtype}[] add({'x1' if moves == 'limit' else 'x2'}, x2)")

    def compared(counter: str, limit_name: str) -> str:
        if not shifted:
            return f"g = pred[] compare({counter}, {limit_name}), direction={direction}"
        sum_ = f"o = {dtype}[] constant({offset}) sum = {dtype}[] add({counter}, o)"
        return f"{sum_} g = pred[] compare(sum, {limit_name}), direction={direction}"

    types = f"{dtype}[];{dtype}[];{dtype}[];pred[]"
    whole = f"({dtype}[], {dtype}[], {dtype}[], pred[])"
    lines.append(compared(last, limit_after))
    lines.append(f"ROOT root = {whole} tuple({last}, {limit_after}, {step_after}, g)")
    condition = "ROOT root = pred[] copy(x3)" if flag else f"{compared('x0', 'x1')} ROOT root = pred[] copy(g)"
    before = f"a = {dtype}[] constant({start}) b = {dtype}[] constant({limit}) c = {dtype}[] constant({step}) d = pred[] constant(true)"
    text = loop_of(types, " ".join(lines), condition, before, "a, b, c, d")

    i, n, s, o = kind(start), kind(limit), kind(step), kind(offset)
    go, count = True, 0
    with np.errstate(over="ignore"):
        while count <= ENOUGH:
            if not (go if flag else DIRECTIONS[direction](i + o if shifted else i, n)):
                return text, count
            for opcode in updates:
                i = kind(OPERATIONS[opcode](i, s))
            n, s = (n + s if moves == "limit" else n), (s + s if moves == "step" else s)
            go = bool(DIRECTIONS[direction](i + o if shifted else i, n))
            count += 1
    return text, None


@settings(max_examples=examples(100, 3_000))
@given(random_loops())
def test_no_count_is_wrong_and_no_short_loop_is_missed(loop: tuple[str, int | None]) -> None:
    text, expected = loop
    found, is_known = count(text)
    if expected is not None:
        assert (found, is_known) == (float(expected), True)
    elif is_known:
        assert found > ENOUGH


def test_counters_that_overflow_do_not_count_to_the_end_of_their_type() -> None:
    for dtype, limit in (("u64", 2**64 - 1), ("s64", 2**63 - 1)):
        text = LOOP.replace("s32", dtype).replace("constant(12)", f"constant({limit})")
        assert count(text) == UNKNOWN
        assert count(text.replace("direction=LT", "direction=LE")) == UNKNOWN
    # 127 is the greatest s8: the counter goes from 126 to -127, and meets 127 when it has gone around three times.
    text = LOOP.replace("s32", "s8").replace("constant(12)", "constant(127)").replace("constant(1)", "constant(3)")
    assert count(text) == (213.0, True)
    assert count(text.replace("direction=LT", "direction=LE")) == UNKNOWN


@given(
    st.integers(-20, 20), st.integers(-5, 5), st.integers(-20, 20), st.integers(-5, 5), st.sampled_from(sorted(DIRECTIONS))
)  # fmt: skip
def test_count_is_that_of_running_the_loop(start: int, step: int, limit: int, limit_step: int, direction: str) -> None:
    text = LOOP.replace("compare(ci, limit), direction=LT", f"compare(ci, cn), direction={direction}")
    text = text.replace("zero = s32[] constant(0)", f"zero = s32[] constant({start})")
    text = text.replace("n = s32[] constant(40)", f"n = s32[] constant({limit})")
    text = text.replace(
        "step = s32[] constant(1)", f"step = s32[] constant({step}) lstep = s32[] constant({limit_step})"
    )
    text = text.replace("tuple(next, y, bn)", "tuple(next, y, moved) moved = s32[] add(bn, lstep)")
    i, n, iterations = start, limit, 0
    while DIRECTIONS[direction](i, n) and iterations < 1000:
        i, n, iterations = i + step, n + limit_step, iterations + 1
    assert count(text) == (UNKNOWN if iterations == 1000 else (float(iterations), True))
