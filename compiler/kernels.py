"""The decorators of functions that numba compiles: one set of options for the whole project.

    @entry      called from Python and from compiled functions; runs without Python's global lock
    @internal   called from compiled functions only: an entry from Python would be most of what compiling takes
    @inlined    as `internal`, and copied into each caller: for what inner loops call at every step

What is compiled is kept in numba's cache and compiled again when its own file changes.
"""

from __future__ import annotations

from numba import njit

_ALL: dict[str, bool] = {"cache": True}
_INTERNAL = {**_ALL, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}

entry = njit(**_ALL, nogil=True)
internal = njit(**_INTERNAL)
inlined = njit(**_INTERNAL, forceinline=True)
