"""Types of arrays: those of numpy and ml_dtypes by XLA's names."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from memplan.compiler.errors import GraphError
from memplan.compiler.frontends import jaxpr_arrays


def test_types_that_xla_does_not_know_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new ml_dtypes has types that this memplan has not heard of; nothing else fails for that."""
    monkeypatch.setattr(ml_dtypes, "float8_e5m3fnu", np.dtype("V1"), raising=False)
    found = jaxpr_arrays._numpy_dtypes()
    assert "f8e4m3fn" in found
    assert "f8e5m3fnu" not in found
    assert not any(dtype.kind == "V" and dtype.name.startswith("void") for dtype in found.values())
    with pytest.raises(GraphError, match="numpy has no type 'f8e5m3fnu'"):
        jaxpr_arrays.numpy_dtype("f8e5m3fnu")
