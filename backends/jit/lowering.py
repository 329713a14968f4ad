"""Lowering for a device that is not here, programs that call back to Python included.

JAX gives a callback to the client of the device, which would call it. Where the device is not here, JAX has the client
of another platform, and refuses. What is lowered here is compiled but never run, so a stand-in takes the callbacks.
The same program with arguments whose sharding is on a device of a topology has the same module.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_lock = threading.RLock()


class _Nobody:
    """A client that takes callbacks and calls none."""

    def make_python_callback_from_host_send_and_recv(self, *_: Any) -> object:
        return object()


def lower_for_tpu(traced: Any) -> Any:
    """Returns what `traced.lower` returns, lowered for TPUs, for what `jax.jit(…).trace(…)` returned."""
    return lower_for("tpu", traced)


def lower_for(platform: str, traced: Any) -> Any:
    """Returns what `traced.lower` returns, lowered for "tpu" or "cuda"."""
    with _callbacks_to_nobody(platform):
        return traced.lower(lowering_platforms=(platform,))


def devices_of(lowered: Any) -> tuple[Any, ...]:
    """Returns the devices that a program was lowered for, in the order of its partitions.

    There are none where the program's meshes are abstract. There is no public way; with a JAX of other insides there
    are none either.
    """
    return tuple(getattr(getattr(lowered, "_lowering", None), "_device_list", None) or ())


@contextmanager
def _callbacks_to_nobody(platform: str) -> Iterator[None]:
    """Within the block, this thread's callbacks are taken although JAX has a client of another platform.

    There is no public way. A JAX with other insides refuses such programs, as it does outside of the block.
    """
    from jax._src.interpreters import mlir

    kind: Any = getattr(mlir, "ModuleContext", None)
    theirs = getattr(kind, "get_backend", None)
    if theirs is None:
        yield
        return
    thread = threading.get_ident()

    def get_backend(context: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return theirs(context, *args, **kwargs)
        except ValueError:
            if threading.get_ident() != thread or tuple(context.platforms) != (platform,):
                raise
            return _Nobody()

    with _lock:
        kind.get_backend = get_backend
        try:
            yield
        finally:
            kind.get_backend = theirs
