"""Interrupts that are heard between iterations."""

from __future__ import annotations

import signal
import threading

import pytest

from memplan.rl_agent.learning.interrupts import Interrupts


def test_the_first_is_noted_and_the_second_acts_at_once() -> None:
    heard: list[str] = []
    with Interrupts(lambda: heard.append("first")) as interrupts:
        assert not interrupts.is_asked
        signal.raise_signal(signal.SIGINT)
        assert interrupts.is_asked
        assert heard == ["first"]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_handler_of_the_command_waits_too(number: signal.Signals) -> None:
    calls: list[int] = []
    before = signal.signal(number, lambda number, _: calls.append(number))
    try:
        with Interrupts() as interrupts:
            signal.raise_signal(number)
            assert (interrupts.is_asked, calls) == (True, [])
            signal.raise_signal(number)
            assert calls == [number]
    finally:
        signal.signal(number, before)


def test_outside_of_the_main_thread_signals_are_left_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    inside = []

    def run() -> None:
        with Interrupts():
            inside.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert inside == [before]
    assert signal.getsignal(signal.SIGINT) is before
