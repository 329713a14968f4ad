"""Bytes of each memory over time, and what changes do to them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memplan.compiler.analysis.flatten import flatten
from memplan.compiler.analysis.liveness import live_bytes
from memplan.compiler.analysis.occupancy import Change, Occupancy
from memplan.compiler.analysis.takeover import takeovers_of_xla
from memplan.compiler.frontends import parse_hlo
from memplan.compiler.frontends.synthetic import synthetic_hlo

#   t     0    1    2    3    4    5
#         x    a    b    c    d    out
#   x 40  ├─────────────────────────────   argument
#   a 40       ├──────────────┤            read by b and d
#   b 80            ├────┤                 read by c
#   c 40                 ├─────────┤       read by out
#   d 40                      ├────┤       may take a's place: both have one element a place
MODULE = parse_hlo("""HloModule m, is_scheduled=true
ENTRY e {
  x = f32[10] parameter(0)
  a = f32[10] exponential(x)
  b = f32[20] custom-call(a), custom_call_target="f"
  c = f32[10] custom-call(b), custom_call_target="g"
  d = f32[10] negate(a)
  ROOT out = f32[10] add(c, d)
}
""")


@pytest.fixture(scope="module")
def occupancy() -> Occupancy:
    return Occupancy(flatten(MODULE))


def number(occupancy: Occupancy, name: str) -> int:
    return next(i for i, storage in enumerate(occupancy.program.storages) if storage.name == name)


def test_bytes_over_time(occupancy: Occupancy) -> None:
    assert occupancy.live(0).tolist() == [40, 80, 160, 200, 120, 120, 80]
    assert occupancy.peak(0) == 200
    names = [occupancy.program.storages[storage].name for storage, _ in occupancy.standing(0, 3)]
    assert names == ["x", "a", "b", "c"]
    # d lies where a ends.
    assert {occupancy.program.storages[s].name: size for s, size in occupancy.standing(0, 4)}["d"] == 0


def test_what_is_not_there_takes_nothing_and_is_taken_over_by_nobody(occupancy: Occupancy) -> None:
    without = Change({number(occupancy, "a"): ()})
    assert occupancy.live(0, without).tolist() == [40, 40, 120, 160, 120, 120, 80]


def test_what_is_away_in_a_gap_is_taken_over_where_it_ends(occupancy: Occupancy) -> None:
    away = Change({number(occupancy, "a"): ((1, 3), (4, 5))})
    assert occupancy.live(0, away).tolist() == [40, 80, 160, 160, 120, 120, 80]


def test_extra_bytes_are_added(occupancy: Occupancy) -> None:
    assert occupancy.live(0, Change(extra=((3, 5, 7),))).tolist() == [40, 80, 160, 207, 127, 120, 80]


def test_what_steps_reserve_counts() -> None:
    reserved = np.array([0, 500, 0, 0, 0, 0, 0])
    occupancy = Occupancy(flatten(MODULE), {0: reserved})
    assert occupancy.peak(0) == 580
    assert sum(size for _, size in occupancy.standing(0, 1)) == 80


SLICED = """HloModule m, is_scheduled=true
ENTRY e {
  w = f32[16] parameter(0)
  s0 = ((f32[16]), f32[8]{0:S(1)}, s32[]) slice-start(w), slice={[0:8]}
  a = f32[16] exponential(w)
  s1 = ((f32[16]), f32[8]{0:S(1)}, s32[]) slice-start(w), slice={[8:16]}
  d0 = f32[8]{0:S(1)} slice-done(s0)
  d1 = f32[8]{0:S(1)} slice-done(s1)
  all = f32[16]{0:S(1)} custom-call(d0, d1), custom_call_target="ConcatBitcast"
  ROOT out = f32[16] add(all, a)
}
"""


def test_slices_of_one_copy_take_memory_one_after_another() -> None:
    occupancy = Occupancy(flatten(parse_hlo(SLICED)))
    #                                     w  s0  a   s1  d0  d1 all out
    assert occupancy.live(1).tolist() == [0, 32, 32, 64, 64, 64, 64, 64, 0]


@settings(max_examples=20)
@given(st.integers(0, 30), st.data())
def test_what_stands_adds_up_and_changes_count_as_in_a_program_without(seed: int, data: st.DataObject) -> None:
    program = flatten(parse_hlo(synthetic_hlo(400, seed)))
    occupancy = Occupancy(program)
    live = occupancy.live(0)
    assert (live == live_bytes(program, 0, use_holes=True, takeovers=takeovers_of_xla(program))).all()
    for time in range(0, len(live), 7):
        assert sum(size for _, size in occupancy.standing(0, time)) == live[time]
    numbers = st.integers(0, len(program.storages) - 1)
    gone = data.draw(st.sets(numbers, max_size=4))
    # The oracle: the same sum over what is left.
    taken = [t for t in takeovers_of_xla(program) if not {t.operand, t.result} & gone]
    expected = np.zeros(len(live), np.int64)
    for n, storage in enumerate(program.storages):
        if n in gone or storage.memory_space:
            continue
        for start, end in occupancy.intervals(n):
            expected[start:end] += storage.size
    for t in taken:
        if program.storages[t.result].memory_space == 0:
            expected[t.time] -= program.storages[t.result].size
    assert (occupancy.live(0, Change(dict.fromkeys(gone, ()))) == expected).all()
