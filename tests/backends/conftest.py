"""Fixtures of the tests of `memplan.jit`."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forgets which messages were logged already."""
    from memplan.backends.jit import messages

    monkeypatch.setattr(messages, "_said", set())


@pytest.fixture(params=["native", "python"])
def dispatcher(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to dispatch: the second is for a jaxlib that does not know the first."""
    from memplan.backends.jit import dispatch

    if request.param == "python":

        def missing(*_: Any) -> Any:
            raise AttributeError("_cache_miss")

        monkeypatch.setattr(dispatch, "_native_dispatcher", missing)
    return str(request.param)
