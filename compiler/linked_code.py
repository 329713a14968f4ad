"""How functions are compiled that only compiled functions call: as far as their callers need.

By itself, numba compiles each function to the end: it optimizes the function with all that it calls, translates it to
machine code, and then links its intermediate code into each caller, where it is optimized and translated again. With
`LinkedCompiler` a function is lowered to intermediate code and no further. All the rest is done once, in the function
that Python calls:

    numba        inner: optimized, translated    outer + inner: optimized, translated
    with this    inner                           outer + inner: optimized, translated
"""

from __future__ import annotations

from typing import Any

from numba import _dynfunc
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import PassManager, register_pass
from numba.core.typed_passes import NativeLowering


class _LinkedLibrary(JITCodeLibrary):
    """The intermediate code of a function and of all that it calls. The execution engine never sees it."""

    def _optimize_final_module(self) -> None:
        """Leaves the code as it is."""

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        self._finalized = True


@register_pass(mutates_CFG=True, analysis_only=False)
class _LinkedLowering(NativeLowering):
    """Numba's last pass, without machine code."""

    _name = "memplan_linked_lowering"

    def run_pass(self, state: Any) -> bool:
        name = state.func_id.func_qualname
        state.library = _LinkedLibrary(state.targetctx.codegen(), name)
        state.flags.no_compile = True
        super().run_pass(state)
        state.library.finalize()
        lowered = state["cr"]
        # Callers find the library by this function, which has no address and cannot be called.
        function = _dynfunc.make_function(lowered.fndesc.lookup_module(), name, name, 0, lowered.env, (state.library,))
        state.targetctx.insert_user_function(function, lowered.fndesc, [state.library])
        state["cr"] = lowered._replace(cfunc=function)
        return True


class LinkedCompiler(CompilerBase):
    """A compiler for numba's option `pipeline_class`; see the text of this file."""

    def define_pipelines(self) -> list[Any]:
        """Returns numba's passes, with the last one replaced."""
        passes = PassManager("memplan_linked")
        passes.passes = [
            (_LinkedLowering if step is NativeLowering else step, what)
            for step, what in DefaultPassBuilder.define_nopython_pipeline(self.state).passes
        ]
        passes.finalize()
        return [passes]
