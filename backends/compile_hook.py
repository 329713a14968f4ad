"""The one place where JAX's compile function is replaced: what a thread compiles within a block passes through it.

    with intercepting(block):
        step(x)                     # what JAX compiles here, on this thread, is compiled by block.compile

Every compile of `jax.jit` passes through one function of JAX, in all versions; there is no public name for it. It is
replaced when the first block of any thread begins and restored after the last one. A thread's innermost block counts;
other threads are not affected.
"""

from __future__ import annotations

import functools
import io
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

# The arguments of JAX's compile_or_get_cached, the same in all versions.
_ARGUMENTS = ("backend", "computation", "devices", "compile_options", "host_callbacks", "executable_devices")


def bytecode_of(module: Any) -> bytes:
    """Returns an MLIR module as bytecode."""
    stream = io.BytesIO()
    module.operation.write_bytecode(stream)
    return stream.getvalue()


@dataclass(frozen=True)
class CompileRequest:
    """What JAX asks to be compiled.

    Attributes:
      given: JAX's arguments by name: `computation` is an MLIR module, `compile_options` are jaxlib's.
      proceed: compiles it as JAX would outside of the block, from JAX's persistent cache if it is there. What was
        changed in `compile_options` counts.
    """

    given: Mapping[str, Any]
    proceed: Callable[[], Any]

    @property
    def name(self) -> str:
        """The name of the module, such as `jit_step`."""
        from jaxlib.mlir import ir

        return str(ir.StringAttr(self.given["computation"].operation.attributes["sym_name"]).value)

    @property
    def platform(self) -> str:
        """The platform that it is compiled for, such as `cpu`."""
        return str(self.given["backend"].platform)

    def bytecode(self) -> bytes:
        """Returns the module as MLIR bytecode."""
        return bytecode_of(self.given["computation"])

    def again(self) -> Any:
        """Compiles it as a request of its own: a block that began since then is asked."""
        from jax._src import compiler

        return compiler.compile_or_get_cached(**self.given)


class CompileBlock(Protocol):
    """What is done with the compiles of a block."""

    def compile(self, request: CompileRequest) -> Any:
        """Returns JAX's executable of a request."""


class _Thread(threading.local):
    """The blocks that a thread is in, outermost first; None where compiles are JAX's affair."""

    def __init__(self) -> None:
        self.blocks: list[CompileBlock | None] = []


_thread = _Thread()
_lock = threading.Lock()
_number_of_blocks = 0  # of all threads
_installed: Any = None  # our function, in the place of JAX's


@contextmanager
def intercepting(block: CompileBlock) -> Iterator[None]:
    """Within the `with`, what this thread compiles is compiled by `block`."""
    _count_blocks(1)
    try:
        with _within(block):
            yield
    finally:
        _count_blocks(-1)


@contextmanager
def untouched() -> Iterator[None]:
    """Within the block, this thread compiles as if it were in no block."""
    with _within(None):
        yield


@contextmanager
def _within(block: CompileBlock | None) -> Iterator[None]:
    _thread.blocks.append(block)
    try:
        yield
    finally:
        _thread.blocks.remove(block)


def _count_blocks(change: int) -> None:
    """Replaces JAX's function by ours when the first block begins, and restores it after the last one."""
    global _number_of_blocks, _installed
    from jax._src import compiler

    with _lock:
        _number_of_blocks += change
        found = compiler.compile_or_get_cached
        if change > 0 and found is not _installed:
            _installed = compiler.compile_or_get_cached = _intercepted(found)
        elif _number_of_blocks == 0 and found is _installed:
            # Otherwise another function wraps ours, which intercepts nothing now.
            compiler.compile_or_get_cached = found.__wrapped__
            _installed = None


def _intercepted(theirs: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(theirs)
    def compile_or_get_cached(*args: Any, **kwargs: Any) -> Any:
        block = _thread.blocks[-1] if _thread.blocks else None
        if block is None:
            return theirs(*args, **kwargs)
        given = dict(zip(_ARGUMENTS, args, strict=False)) | kwargs
        return block.compile(CompileRequest(given, lambda: theirs(*args, **kwargs)))

    return compile_or_get_cached
