"""Each obstacle once, in a problem where it is the only one."""

import dataclasses

from memplan.compiler.emulator.timing import emulate
from memplan.compiler.mapping.plan import Plan
from memplan.compiler.mapping.problem import Link, MappingProblem
from memplan.compiler.report.costs import buffer_costs
from memplan.compiler.report.reasons import BufferStory, StoryTeller
from memplan.compiler.report.usage import usage

X, W, A, S, R = range(5)  # buffers of the problem, see conftest.py


def story(problem: MappingProblem, plan: Plan, buffer: int) -> BufferStory:
    timeline = emulate(problem, plan)
    costs = buffer_costs(problem, plan, timeline)
    return StoryTeller(problem, plan, timeline, usage(problem, plan), costs).tell(buffer)


def with_size(problem: MappingProblem, buffer: int, size: int) -> MappingProblem:
    buffers = list(problem.buffers)
    buffers[buffer] = dataclasses.replace(buffers[buffer], size=size)
    return dataclasses.replace(problem, buffers=tuple(buffers))


def with_spaces(problem: MappingProblem, buffer: int, spaces: tuple[int, ...]) -> MappingProblem:
    buffers = list(problem.buffers)
    buffers[buffer] = dataclasses.replace(buffers[buffer], spaces=spaces)
    return dataclasses.replace(problem, buffers=tuple(buffers))


def test_larger_than_the_memory(problem: MappingProblem, plan: Plan) -> None:
    told = story(problem, plan, R)
    assert told.reasons == ("its 200 B do not fit vmem, which has 100 B",)
    assert (told.name, told.size, told.kind, told.places) == ("r", 200, "result", ("hbm",))


def test_larger_than_what_an_operation_leaves(problem: MappingProblem, slow_plan: Plan) -> None:
    reasons = story(problem, slow_plan, W).reasons
    assert "its 80 B do not fit vmem beside the 30 B that add (t=1) keeps for itself" in reasons


def test_served_from_fast_memory_and_waited_for(problem: MappingProblem, plan: Plan) -> None:
    reasons = story(problem, plan, W).reasons
    assert reasons[0] == "1 of 2 accesses served from vmem, at t=4"
    assert reasons[-1] == "operations wait 800 ms for its copies"


def test_all_served_from_fast_memory(problem: MappingProblem, plan: Plan) -> None:
    assert story(problem, plan, A).reasons == ("all 3 accesses served from vmem, from t=0 to t=2",)


def test_a_copy_does_not_pay(problem: MappingProblem, plan: Plan) -> None:
    assert story(problem, plan, X).reasons == (
        "a copy to vmem for mul (t=0) takes 400 ms, and its use would save 360 ms",
    )


def test_no_room_names_who_takes_it(problem: MappingProblem, plan: Plan) -> None:
    reasons = story(problem, plan, S).reasons
    text = "no room in vmem at t=4: it needs 20 B, and 10 B are free (taken by w 80 B, body itself 10 B)"
    assert any(reason.startswith(text) for reason in reasons), reasons


def test_room_only_in_pieces(problem: MappingProblem, plan: Plan) -> None:
    # With w 62 bytes from 20, and 10 reserved: 28 bytes are free, [10, 20) and [82, 100).
    problem = with_size(problem, W, 62)
    reasons = story(problem, plan, S).reasons
    text = "room in vmem only in pieces at t=4: it needs 20 B, and of 28 B free the largest piece has 18 B"
    assert any(reason.startswith(text) for reason in reasons), reasons


def test_not_allowed(problem: MappingProblem, slow_plan: Plan) -> None:
    assert story(with_spaces(problem, A, (0,)), slow_plan, A).reasons[0].startswith("it may not lie in vmem")


def test_no_link(problem: MappingProblem, slow_plan: Plan) -> None:
    reasons = story(dataclasses.replace(problem, links=()), slow_plan, X).reasons
    assert reasons == ("nothing copies from hbm to vmem",)


def test_no_time_for_a_copy(problem: MappingProblem, slow_plan: Plan) -> None:
    # x is read by the very first operation: nothing passes before. A fast link, so that the copy would pay.
    problem = dataclasses.replace(problem, links=(Link(0, 1, 200.0, 0.0, 0, 0),))
    assert story(problem, slow_plan, X).reasons == (
        "a copy to vmem for mul (t=0) takes 200 ms, and 0 s pass since the start",
    )


def test_the_bus_is_taken(problem: MappingProblem, slow_plan: Plan) -> None:
    # Between exp and body pass no operations; between add (w's first read) and body only exp, all of it on the bus.
    problem = dataclasses.replace(problem, links=(Link(0, 1, 100.0, 0.0, 0, 0),))
    reasons = story(problem, slow_plan, W).reasons
    assert (
        "a copy to vmem for body (t=4) takes 800 ms, and of the 800 ms since add (t=1) the operations and other copies "
        "leave the bus 0 s"
    ) in reasons, reasons


def test_nothing_in_the_way(problem: MappingProblem, slow_plan: Plan) -> None:
    reasons = story(problem, slow_plan, A).reasons
    assert reasons[0].startswith("vmem had room from t=0 to t=1; slow did not use it"), reasons
