"""What is asked of jaxlib in a process of its own."""

from __future__ import annotations

import pytest

from memplan.compiler.errors import ParseError
from memplan.compiler.frontends import jaxlib_process


def test_the_reason_is_the_line_with_the_error_or_the_last_one() -> None:
    assert jaxlib_process.reason("loading\n\n  Error: no such op \nabort\n", "none") == "Error: no such op"
    assert jaxlib_process.reason("loading\nabort\n\n", "none") == "abort"
    assert jaxlib_process.reason(" \n", "none") == "none"
    assert len(jaxlib_process.reason("error " + 1000 * "x", "none")) == 300


def test_a_worker_that_takes_too_long_is_an_error_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxlib_process, "_TIME_LIMIT", 0)
    with pytest.raises(ParseError, match=r"x\.mlir: jaxlib did not translate it in 0 s"):
        jaxlib_process.ask("stablehlo_worker", content=b"", purpose="translate it", file="x.mlir")
