"""The rules, on programs whose picture fits in the head, and what every finished game must be: a valid plan."""

from __future__ import annotations

import dataclasses

import pytest
from game_problems import play, seeded_game, small_game
from hypothesis import given, settings
from hypothesis import strategies as st
from random_problems import problems
from thorough import examples

from memplan.compiler.analysis.program import AccessKind, RegionKind
from memplan.compiler.emulator.timing import TimingEmulator
from memplan.compiler.errors import PlannerError
from memplan.compiler.mapping.plan import BEFORE
from memplan.compiler.mapping.problem import Access, Buffer, Link, MappingProblem, MemorySpace, Operation, Region
from memplan.compiler.mapping.verify import verify
from memplan.rl_agent.game.game import Game
from memplan.rl_agent.game.moves import COPY, DROP, NO_COPY, PASSED
from memplan.rl_agent.game.plan import make_plan, replay
from memplan.rl_agent.game.reference import Reference

READ, WRITE, UPDATE = AccessKind.READ, AccessKind.WRITE, AccessKind.UPDATE
FAST, CAPACITY = 1, 8


def literal(
    operations: list[tuple[float, list[tuple[int, AccessKind]]]],
    buffers: list[Buffer],
    regions: tuple[Region, ...] = (),
    region_of: dict[int, int] | None = None,
) -> MappingProblem:
    """Returns a problem of `(floor, accesses)`; a byte takes 1 s at home, 0 s in fast memory, and 1 s to be copied."""
    made = []
    for t, (floor, accesses) in enumerate(operations):
        sizes = [(b, kind, buffers[b].size) for b, kind in accesses]
        made.append(
            Operation(
                f"op.{t}",
                "op",
                floor,
                0.0,
                (0, 0),
                (region_of or {}).get(t, 0),
                tuple(Access(b, kind, size, (float(size), 0.0)) for b, kind, size in sizes),
            )
        )
    program = Region(RegionKind.PROGRAM, 0, len(made), -1, 1.0)
    return MappingProblem(
        "literal", "test",
        (MemorySpace("slow", 1000, 1, 1.0, 0), MemorySpace("fast", CAPACITY, 1, 1e9)),
        (Link(0, 1, 1.0, 0.0, 0, 0), Link(1, 0, 1.0, 0.0, 1, 0)),
        (program, *regions), tuple(made), tuple(buffers),
    )  # fmt: skip


def argument(size: int, n: int) -> Buffer:
    return Buffer("argument", size, 0, n + 1, (0, 1), initial_space=0, persistent=True)


def temporary(size: int, start: int, end: int, final: int | None = None) -> Buffer:
    return Buffer("temporary", size, start, end, (0, 1), final_space=final)


def actions(problem: MappingProblem, *wanted: int) -> Reference:
    """Plays all actions given, then what is legal first, DROP before the others."""
    reference = Reference(Game(problem, units=CAPACITY, reach=16))
    for action in wanted:
        reference.step(action)
    return reference


def check(reference: Reference) -> None:
    """The plan of a finished game is valid, complete, and as fast as the game says."""
    game = reference.game
    plan = make_plan(reference)
    assert verify(game.problem, plan) == []
    latency = TimingEmulator(game.problem).latency(plan)
    assert latency == pytest.approx(game.home_latency - reference.total, rel=1e-9, abs=1e-30)
    placed = [r for r in plan.residencies if r.space == game.space and r.buffer not in game.homes]
    assert len(placed) == len(reference.residencies)


def test_a_copy_needs_supply_before_the_use() -> None:
    # Operation 0 computes for 4.1 s and leaves the channel alone: enough for 4 bytes, not for 5.
    for size, is_late in ((4, False), (5, True)):
        problem = literal([(4.1, []), (0.0, [(0, READ)])], [argument(size, 2)])
        reference = Reference(Game(problem, CAPACITY))
        assert reference.legal == (True, False, True)
        assert reference.choices.prefetch is not None
        assert reference.choices.prefetch.is_late == is_late
    reference = actions(literal([(4.1, []), (0.0, [(0, READ)])], [argument(4, 2)]), COPY)
    assert reference.done
    assert reference.total == pytest.approx(4.0)
    (residency,) = reference.residencies.values()
    assert (residency.start, residency.end, residency.offset) == (0, 2, 0)
    check(reference)


def test_a_copy_starts_as_late_as_it_can() -> None:
    problem = literal([(9.0, []), (3.1, []), (3.1, []), (0.0, [(0, READ)])], [argument(4, 4)])
    reference = actions(problem, COPY)
    assert reference.residencies[0].start == 1
    check(reference)


def test_a_second_copy_takes_what_the_first_one_left() -> None:
    buffers = [argument(2, 2), argument(2, 2), argument(2, 2)]
    problem = literal([(4.1, []), (0.0, [(0, READ), (1, READ), (2, READ)])], buffers)
    reference = actions(problem, COPY, COPY)
    assert reference.legal == (False, False, True)
    reference.step(DROP)
    check(reference)


def test_copies_that_are_issued_together_have_one_latency() -> None:
    # 3.6 s are left before the reads: for three copies of 1 byte each and one latency of 0.5 s, not for three.
    buffers = [argument(1, 3), argument(1, 3), argument(1, 3)]
    problem = literal([(3.6, []), (0.0, [(0, READ), (1, READ), (2, READ)])], buffers)
    slow_start = [dataclasses.replace(link, latency=0.5) for link in problem.links]
    reference = actions(dataclasses.replace(problem, links=tuple(slow_start)), COPY, COPY, COPY)
    assert all(r.prefetch is not None and not r.prefetch.is_late for r in reference.residencies.values())
    assert reference.total == pytest.approx(3.0)
    check(reference)


def test_a_use_waits_for_a_late_copy() -> None:
    # Operation 0 leaves 4.1 s to a copy of 5 bytes: the read gains 5 s and waits for 0.9.
    problem = literal([(4.1, []), (0.0, [(0, READ)])], [argument(5, 2)])
    reference = actions(problem, COPY)
    assert reference.total == pytest.approx(4.1)
    (residency,) = reference.residencies.values()
    assert residency.prefetch is not None
    assert residency.prefetch.wait == pytest.approx(0.9)
    check(reference)


def test_a_late_copy_is_followed_by_others_for_the_same_use() -> None:
    # 6 s are offered to a latency of 0.5 s and 6 bytes: 0.5 s late. The second copy has no latency left to wait for.
    buffers = [argument(6, 2), argument(2, 2)]
    problem = literal([(6.0, []), (0.0, [(0, READ), (1, READ)])], buffers)
    slow = dataclasses.replace(problem.links[0], latency=0.5)
    reference = actions(dataclasses.replace(problem, links=(slow, problem.links[1])), COPY, DROP)
    assert reference.total == pytest.approx(6.0 - 0.5)
    both = actions(reference.game.problem, COPY)
    assert both.legal == (False, False, True)  # 2 s of waiting for 2 s
    # A read that is worth more than its bytes.
    first, last = reference.game.problem.operations
    dear = dataclasses.replace(last.accesses[1], cost=(3.0, 0.0))
    dearer = dataclasses.replace(last, accesses=(last.accesses[0], dear))
    both = actions(dataclasses.replace(reference.game.problem, operations=(first, dearer)), COPY)
    assert both.choices.prefetch is not None
    assert (both.choices.prefetch.first, both.choices.prefetch.wait, both.choices.prefetch.leads) == (
        0,
        pytest.approx(2.0),
        True,
    )
    both.step(COPY)
    assert both.total == pytest.approx(6.0 - 0.5 + 3.0 - 2.0)
    check(both)


def test_a_link_begins_late() -> None:
    # The first 1.5 s of 4.1 move nothing.
    problem = literal([(1.0, []), (3.1, []), (0.0, [(0, READ)])], [argument(5, 3)])
    slow = dataclasses.replace(problem.links[0], latency=1.5)
    reference = actions(dataclasses.replace(problem, links=(slow, problem.links[1])), COPY)
    assert reference.total == pytest.approx(5.0 - 2.4)
    check(reference)


def test_what_does_not_pay_is_not_waited_for() -> None:
    # A copy that overlaps with nothing takes as long as the read that it saves.
    problem = literal([(0.0, []), (0.0, [(0, READ)])], [argument(5, 2)])
    assert Reference(Game(problem, CAPACITY)).legal == (False, False, True)


def test_a_late_copy_has_its_time_to_itself() -> None:
    # The second argument could be copied in operation 0 beside the first one, if that were not late.
    buffers = [argument(5, 3), argument(1, 3)]
    reads: list[tuple[float, list[tuple[int, AccessKind]]]] = [(0.0, [(0, READ)]), (0.0, [(1, READ)])]
    for spare, is_late, is_legal in ((4.1, True, False), (6.1, False, True)):
        reference = actions(literal([(spare, []), *reads], buffers), COPY)
        assert reference.residencies[0].prefetch is not None
        assert reference.residencies[0].prefetch.is_late == is_late
        assert reference.legal[COPY] == is_legal
        reference.step(COPY if is_legal else DROP)
        check(reference)


def test_a_late_copy_starts_when_its_place_is_free() -> None:
    # 8 bytes are taken until operation 1 has read them. Operation 2 offers 3 s, the copy needs 4.
    operations = [(0.0, [(0, WRITE)]), (0.0, [(0, READ)]), (3.0, []), (0.0, [(1, READ)])]
    problem = literal(operations, [temporary(8, 0, 2), argument(4, 4)])
    alone = Reference(Game(problem, CAPACITY, 16, None))
    for action in (NO_COPY, NO_COPY):
        alone.step(action)
    assert not alone.legal[COPY]  # no room from the first free slot on, and nothing to gain at the use itself
    reference = actions(problem, NO_COPY, NO_COPY, COPY)
    _, residency = reference.residencies.values()
    assert residency.start == 2
    assert residency.prefetch is not None
    assert residency.prefetch.wait == pytest.approx(1.0)
    check(reference)


def test_an_argument_stays_from_run_to_run() -> None:
    operations = [(0.0, [(0, READ)]), (0.0, [(1, READ)]), (0.0, [(1, READ)])]
    problem = literal(operations, [argument(3, 3), argument(2, 3)])
    problem = dataclasses.replace(problem, cross_program_prefetches=1)
    reference = Reference(Game(problem, CAPACITY))
    first, second = reference.game.moves[:2]
    assert (first.buffer, second.buffer) == (1, 0)  # the one that saves more comes first
    assert reference.legal == (False, True, True)
    reference.step(NO_COPY)
    assert reference.legal == (False, False, True)  # one may stay, no more
    reference.step(DROP)
    while not reference.done:
        reference.step(reference.legal.index(True))
    assert reference.total == pytest.approx(4.0)
    (residency,) = reference.residencies.values()
    assert (residency.start, residency.end) == (0, 4)
    assert any(copy.start == BEFORE for copy in make_plan(reference).copies)
    check(reference)


def test_an_argument_that_is_changed_does_not_stay() -> None:
    changed = dataclasses.replace(argument(3, 2), final_space=0)
    problem = literal([(0.0, [(0, READ)]), (0.0, [(0, UPDATE)])], [changed])
    game = Game(dataclasses.replace(problem, cross_program_prefetches=1), CAPACITY)
    assert not any(move.is_stay for move in game.moves)


def test_what_is_produced_in_fast_memory_stays_as_long_as_there_is_room() -> None:
    operations = [(0.0, [(0, WRITE)]), (0.0, [(1, WRITE)]), (0.0, [(0, READ), (1, READ)])]
    reference = actions(literal(operations, [temporary(5, 0, 3), temporary(4, 1, 3)]), NO_COPY)
    # 4 bytes find room only where the first value lies, which is idle but wanted.
    assert reference.legal == (False, True, True)
    reference = actions(literal(operations, [temporary(5, 0, 3), temporary(3, 1, 3)]), NO_COPY, NO_COPY)
    assert reference.legal == (False, True, False)  # no time to bring it home
    reference.step(NO_COPY)
    reference.step(NO_COPY)
    assert reference.total == pytest.approx(16.0)
    assert [r.offset for r in reference.residencies.values()] == [0, 5]
    check(reference)


def test_a_dropped_value_is_brought_home() -> None:
    operations = [(0.0, [(0, WRITE)]), (3.1, []), (0.0, [(0, READ)])]
    reference = actions(literal(operations, [temporary(3, 0, 3)]), NO_COPY, DROP)
    (residency,) = reference.residencies.values()
    assert residency.eviction is not None
    assert (residency.start, residency.end) == (0, 2)
    assert reference.total == pytest.approx(3.0)
    check(reference)


def test_what_is_home_a_little_late_is_waited_for() -> None:
    # 3 bytes take 3 s on their way home, of which operation 1 leaves 2.1.
    operations = [(0.0, [(0, WRITE)]), (2.1, []), (0.0, [(0, READ)])]
    reference = actions(literal(operations, [temporary(3, 0, 3)]), NO_COPY, DROP)
    (residency,) = reference.residencies.values()
    assert residency.eviction is not None
    assert residency.eviction.wait == pytest.approx(0.9)
    assert reference.total == pytest.approx(2.1)
    assert (residency.start, residency.end) == (0, 2)
    check(reference)


def test_what_is_home_much_too_late_cannot_be_dropped() -> None:
    operations = [(0.0, [(0, WRITE)]), (1.5, []), (0.0, [(0, READ)])]
    assert actions(literal(operations, [temporary(3, 0, 3)]), NO_COPY).legal == (False, True, False)


def test_a_value_may_be_evicted_and_fetched_again() -> None:
    operations = [(0.0, [(0, WRITE)]), (3.1, []), (3.1, []), (0.0, [(0, READ)])]
    reference = actions(literal(operations, [temporary(3, 0, 4)]), NO_COPY, COPY)
    first, second = reference.residencies.values()
    assert first.eviction is not None
    assert second.prefetch is not None
    assert (first.end, second.start) == (2, 2)
    check(reference)


def test_a_dead_end_drops_the_value_that_cannot_get_home() -> None:
    # A result that is written last has no time to be brought home: producing it in fast memory is a dead end.
    problem = literal([(0.0, [(0, WRITE)])], [temporary(3, 0, 2, final=0)])
    reference = Reference(Game(problem, CAPACITY))
    reference.step(NO_COPY)
    assert reference.is_dead
    assert reference.legal == (False, False, True)
    reference.step(DROP)
    assert (reference.move, reference.backups, reference.total) == (0, 1, 0.0)
    assert reference.reward == pytest.approx(-3.0)
    assert reference.legal == (False, False, True)
    reference.step(DROP)
    reference.step(DROP)
    assert reference.done
    check(reference)


def test_a_loop_is_taken_as_a_whole_or_decided_inside() -> None:
    # enter, a loop of 5 iterations that reads an argument in one of its two operations, and what follows.
    loop = Region(RegionKind.LOOP, 2, 4, 0, 5.0)
    operations = [(4.1, []), (0.0, []), (1.0, [(0, READ)]), (1.0, []), (0.0, [])]
    problem = literal(operations, [argument(4, 5)], (loop,), {2: 1, 3: 1})
    whole = actions(problem, COPY)
    assert whole.legal == (False, True, False)
    whole.step(NO_COPY)
    assert whole.total == pytest.approx(15.0)
    check(whole)
    inside = actions(problem, DROP)
    assert inside.legal == (False, False, True)  # no supply comes before the use within an iteration
    inside.step(DROP)
    assert inside.total == 0.0
    check(inside)


def over_a_loop(size: int, inside: list[tuple[int, AccessKind]], *more: Buffer) -> MappingProblem:
    """Returns a problem of an operation of no time, a loop of 5 iterations of 1.1 s, and a read of an argument."""
    loop = Region(RegionKind.LOOP, 1, 3, 0, 5.0)
    operations = [(0.0, []), (0.6, []), (0.5, inside), (0.0, [(0, READ)])]
    return literal(operations, [argument(size, 4), *more], (loop,), {1: 1, 2: 1})


def test_a_copy_passes_a_loop_that_has_none_of_its_own() -> None:
    # The second operation ends its region, but all iterations leave its time to what passes: 5 bytes in 5.5 s.
    for size, is_late in ((5, False), (6, True)):
        reference = Reference(Game(over_a_loop(size, []), CAPACITY))
        assert reference.choices.prefetch is None or reference.choices.prefetch.is_late == is_late
        assert reference.legal[COPY] != is_late  # a late one cannot pass, and alone at the use it gains nothing
    reference = actions(over_a_loop(5, []), COPY)
    (residency,) = reference.residencies.values()
    assert (residency.start, residency.end) == (0, 4)
    assert reference.total == pytest.approx(5.0)
    check(reference)


def test_what_passes_a_loop_has_what_is_decided_inside() -> None:
    # The read at home takes the channel for as long as it lasts; from fast memory it leaves 0.5 s each time.
    problem = over_a_loop(4, [(1, READ)], argument(1, 4))
    for first, offered in ((DROP, 3.0), (COPY, 5.5)):
        reference = actions(problem, first, NO_COPY if first == COPY else DROP)
        game = reference.game
        assert reference.slot_supply.left[int(game.slots.of_time[0])] * game.supply.tick == pytest.approx(
            offered, rel=1e-6
        )
        assert reference.legal[COPY] == (first == COPY)


def test_nothing_passes_a_loop_with_copies_of_its_own() -> None:
    # Within an iteration the argument of 1 byte is copied in the first operation, which leaves 0.6 s, and waited for.
    problem = over_a_loop(3, [(1, READ)], argument(1, 4))
    reference = Reference(Game(problem, CAPACITY))
    reference.step(DROP)
    assert reference.legal[COPY]
    inside = Reference(Game(problem, CAPACITY))
    inside.step(DROP)
    inside.step(COPY)
    assert inside.legal == (False, False, True)
    for game in (reference, inside):
        while not game.done:
            game.step(game.legal.index(True))
        check(game)


def test_an_action_that_is_not_legal_is_refused() -> None:
    reference = Reference(Game(literal([(0.0, [(0, WRITE)])], [temporary(3, 0, 1)]), CAPACITY))
    with pytest.raises(ValueError, match="action 0 is not legal at move 0"):
        reference.step(COPY)


def test_what_is_no_game() -> None:
    problem = literal([(0.0, [(0, WRITE)])], [temporary(3, 0, 1)])
    slow_only = dataclasses.replace(problem, spaces=problem.spaces[:1], links=())
    with pytest.raises(PlannerError, match="no fast memory"):
        Game(slow_only)
    with pytest.raises(PlannerError, match="units=0"):
        Game(problem, units=0)


def test_a_history_that_does_not_fit_the_game_is_no_plan() -> None:
    game = Game(literal([(0.0, [(0, WRITE)])], [temporary(3, 0, 1)]), CAPACITY)
    with pytest.raises(PlannerError, match="action 0 at move 0, of temporary, is not legal"):
        replay(game, [COPY])
    with pytest.raises(PlannerError, match="0 actions are given"):
        replay(game, [])
    with pytest.raises(PlannerError, match="it must be over"):
        make_plan(Reference(game))


def test_a_buffer_at_home_in_fast_memory_is_left_alone() -> None:
    home = Buffer("resident", 5, 0, 3, (1,), initial_space=1, final_space=1, persistent=True)
    problem = literal([(0.0, [(1, WRITE), (0, READ)]), (0.0, [(1, READ)])], [home, temporary(4, 0, 2)])
    reference = Reference(Game(problem, CAPACITY))
    assert reference.legal == (False, False, True)  # 4 bytes beside 5 do not fit 8
    small = literal([(0.0, [(1, WRITE), (0, READ)]), (0.0, [(1, READ)])], [home, temporary(3, 0, 2)])
    reference = actions(small, NO_COPY, NO_COPY)
    assert reference.residencies[0].offset == 5
    check(reference)


@settings(max_examples=examples(20, 60))
@given(problems(max_length=18), st.integers(0, 10**6))
def test_every_finished_game_is_a_valid_plan(problem: MappingProblem, seed: int) -> None:
    check(play(small_game(problem), seed))


@pytest.mark.slow
def test_larger_games_are_backed_up_and_end() -> None:
    backups, late, late_home, stays, passing, used = 0, 0, 0, 0, 0, {COPY: 0, NO_COPY: 0, DROP: 0}
    for seed in range(40):
        reference = play(seeded_game(seed), seed)
        check(reference)
        assert reference.backups <= len(reference.game.moves)
        assert sum(reference.forced) == reference.backups
        backups += reference.backups
        prefetches = [
            residency.prefetch for residency in reference.residencies.values() if residency.prefetch is not None
        ]
        late += sum(prefetch.is_late for prefetch in prefetches)
        late_home += sum(r.eviction is not None and r.eviction.wait > 0.0 for r in reference.residencies.values())
        stays += reference.stays
        copies = [copy for r in reference.residencies.values() for copy in (r.prefetch, r.eviction) if copy is not None]
        passing += sum((reference.game.supply.idle[copy.first : copy.last + 1] == PASSED).any() for copy in copies)
        passing += sum(reference.game.supply.carried[copy.last] > 0 for copy in copies)
        for action in reference.history:
            used[action] += 1
    assert backups > 10
    assert late > 10
    assert late_home > 5
    assert stays > 5
    assert passing > 0
    assert min(used.values()) > 40


def test_a_history_repeats_the_game() -> None:
    for seed in range(10):
        reference = play(seeded_game(seed), seed)
        again = replay(reference.game, reference.history)
        assert again.backups == 0
        assert again.total == reference.total
        assert again.residencies == reference.residencies
