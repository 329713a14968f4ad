"""The garbage collector is paused for a block, and goes on after it whatever happens."""

from __future__ import annotations

import gc

import pytest

from memplan.compiler.collection import collection_paused


def test_it_goes_on_after_the_block_and_after_an_error() -> None:
    assert gc.isenabled()
    with collection_paused():
        assert not gc.isenabled()
        with collection_paused():
            pass
        assert not gc.isenabled(), "the outer block still wants it paused"
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError), collection_paused():
        raise ZeroDivisionError
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with collection_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
