"""Slots and chains of programs that fit in the head, and what must hold for any program."""

from __future__ import annotations

from hypothesis import given, settings
from literal_problems import branch, loop, problem
from random_problems import problems

from memplan.compiler.mapping.problem import MappingProblem
from memplan.planners.stays.chains import Chains, Slots, make_chains, make_slots


def laid_out(mapped: MappingProblem) -> tuple[Slots, Chains]:
    slots = make_slots(mapped)
    return slots, make_chains(mapped, slots, list(range(len(mapped.buffers))))


def items(slots: Slots, chains: Chains, chain: int) -> list[tuple[int, int, str]]:
    """Half-open times of the items of a chain, and what they do."""
    return [
        (int(chains.start[i]), int(chains.end[i]), "r" * bool(chains.reads[i]) + "w" * bool(chains.writes[i]))
        for i in range(chains.first[chain], chains.last[chain])
    ]


def chains_of(mapped: MappingProblem, name: str) -> dict[int, tuple[list[tuple[int, int, str]], bool]]:
    """Region to the items of a buffer's chain there, and whether it needs the value at home at its end."""
    slots, chains = laid_out(mapped)
    buffer = next(i for i, described in enumerate(mapped.buffers) if described.name == name)
    return {
        int(chains.region[c]): (items(slots, chains, c), bool(chains.needs_home[c]))
        for c in range(len(chains.buffer))
        if chains.buffer[c] == buffer
    }


#   t                 0      1      2 ┊ 3      4      5 ┊ 6      7
LOOPED = problem("w a", "r a", "", "r a, w b", "r b", "u c", "r c", "r a", donated="c", regions=[loop(3, 6)])


def test_a_loop_is_one_slot_of_its_parent() -> None:
    slots = make_slots(LOOPED)
    outer = range(slots.first[0], slots.last[0])
    assert [(int(slots.time[s]), int(slots.end[s])) for s in outer] == [
        (0, 1), (1, 2), (2, 3), (3, 6), (6, 7), (7, 8), (8, 9),
    ]  # fmt: skip
    assert [bool(slots.is_operation[s]) for s in outer] == [True, True, True, False, True, True, True]
    assert int(slots.of_region[1]) == slots.first[0] + 3
    assert slots.last[1] - slots.first[1] == 3


def test_a_chain_in_a_loop_and_around_it() -> None:
    assert chains_of(LOOPED, "a") == {
        0: ([(0, 1, "w"), (1, 2, "r"), (3, 6, "r"), (7, 8, "r")], False),
        1: ([(3, 4, "r")], True),
    }


def test_a_buffer_of_one_iteration_has_a_chain_only_in_the_loop() -> None:
    assert chains_of(LOOPED, "b") == {1: ([(3, 4, "w"), (4, 5, "r")], False)}


def test_an_update_in_a_loop_reads_and_writes_around_it() -> None:
    assert chains_of(LOOPED, "c") == {0: ([(3, 6, "rw"), (6, 7, "r")], False), 1: ([(5, 6, "rw")], True)}


def test_the_branches_of_a_conditional_are_one_slot_and_a_chain_each() -> None:
    #   t                   0      1 ┊ 2 ┊ 3 ┊ 4
    branched = problem("r a", "", "w b", "w b, r a", "r b", arguments="a", regions=[branch(2, 3), branch(3, 4)])
    assert chains_of(branched, "b") == {
        0: ([(2, 4, "w"), (4, 5, "r")], False),
        1: ([(2, 3, "w")], True),
        2: ([(3, 4, "w")], True),
    }
    assert chains_of(branched, "a") == {0: ([(0, 1, "r"), (2, 4, "r")], False), 2: ([(3, 4, "r")], False)}
    dead = problem("w a", "", "u a", "u a", "w a", "r a", regions=[branch(2, 3), branch(3, 4)])
    assert [needs for _, needs in chains_of(dead, "a").values()] == [False, False, False]


def test_results_are_needed_at_home() -> None:
    assert chains_of(problem("w a", "", results="a"), "a") == {0: ([(0, 1, "w")], True)}


@settings(max_examples=100)
@given(problems(max_length=30, depth=3))
def test_chains_hold_every_access_once_at_each_depth(mapped: MappingProblem) -> None:
    slots, chains = laid_out(mapped)
    for buffer in range(len(mapped.buffers)):
        mine = [c for c in range(len(chains.buffer)) if chains.buffer[c] == buffer]
        outermost = [c for c in mine if chains.parent[c] < 0]
        covered = [
            int(access)
            for c in outermost
            for i in range(chains.first[c], chains.last[c])
            for access in chains.accesses[chains.first_access[i] : chains.last_access[i]]
        ]
        assert covered == list(mapped.accesses_of[buffer])
    for item in range(len(chains.chain)):
        slot = chains.slot[item]
        for access in chains.accesses[chains.first_access[item] : chains.last_access[item]]:
            assert slots.time[slot] <= mapped.accesses[access][0] < slots.end[slot]
        inside = chains.children[chains.first_child[item] : chains.last_child[item]]
        assert (len(inside) == 0) == bool(slots.is_operation[slot])
        if len(inside):
            first, last = chains.first[inside], chains.last[inside]
            total = sum(
                int(chains.last_access[e - 1] - chains.first_access[s]) for s, e in zip(first, last, strict=True)
            )
            assert total == chains.last_access[item] - chains.first_access[item]
