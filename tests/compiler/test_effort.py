"""Effort and its guard."""

from __future__ import annotations

import pytest

from memplan.compiler.effort import Effort, Guard, check_time_limit, effort_of
from memplan.compiler.errors import PlannerError


def test_more_effort_is_more_work() -> None:
    assert [effort.of(1, 2, 3) for effort in (Effort.FAST, Effort.NORMAL, Effort.HIGH)] == [1, 2, 3]


def test_efforts_have_names() -> None:
    assert effort_of("high") is effort_of(Effort.HIGH) is Effort.HIGH
    with pytest.raises(PlannerError, match="no effort is called 'extreme'; there are: fast, normal, high"):
        effort_of("extreme")


def test_a_guard_without_a_limit_is_never_reached() -> None:
    guard = Guard()
    assert guard.left() == float("inf")
    assert not guard.reached()
    assert not guard.met


def test_a_guard_is_met_when_work_stops_because_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    guard = Guard(5.0)
    assert guard.left() == 5.0
    assert not guard.reached()
    now[0] = 105.0
    assert not guard.met, "nobody asked"
    assert guard.reached()
    assert guard.met


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan")])
def test_a_time_limit_is_a_positive_number(seconds: float) -> None:
    with pytest.raises(PlannerError, match="time limit"):
        check_time_limit(seconds)
    check_time_limit(None)
    check_time_limit(0.1)


def test_what_is_kept_back_counts_as_gone_within_the_block() -> None:
    guard = Guard(100.0)
    with guard.keeping(60.0), guard.keeping(30.0):
        assert 0.0 < guard.left() <= 10.0
    assert guard.left() > 90.0
    with guard.keeping(200.0):
        assert guard.reached()
    assert guard.met, "work has stopped because of it"


def test_a_step_that_follows_is_measured_and_its_time_kept_back(monkeypatch: pytest.MonkeyPatch) -> None:
    now, done = [100.0], list[float]()

    def finish() -> None:
        now[0] += 3.0
        done.append(now[0])

    monkeypatch.setattr("time.monotonic", lambda: now[0])
    guard = Guard(20.0)
    with guard.keeping_for(finish) as seconds:
        assert seconds == 3.0
        assert guard.left() == 20.0 - 3.0 - 6.0
    assert guard.left() == 17.0
    with Guard().keeping_for(finish), Guard(0.0).keeping_for(finish):
        pass
    assert done == [103.0], "without a limit nothing needs to be known, and when it is met there is no time for it"


def test_seconds_that_do_not_count_move_the_limit() -> None:
    guard = Guard(1.0)
    guard.extend(100.0)
    assert guard.left() > 90.0
    assert guard.is_limited
    unlimited = Guard()
    unlimited.extend(1.0)
    with unlimited.keeping(1e9):
        assert not unlimited.reached()
    assert not unlimited.is_limited
