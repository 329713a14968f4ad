"""What runs in the process that loads libtpu and compiles.

libtpu is native code that can abort, hang or hold its lock, which in this process harms no other. Requests come on
standard input, and answers go to the file descriptor that is the only argument, each as a frame:

    4 bytes, big endian: length of the header | header, JSON | `header["bytes"]` bytes of payload

The payload of a request is a StableHLO module as bytecode. That of a successful answer is the text of the compiled
module, or of the scheduled module if the request's `stage` is `before_assignment`. `order` names the instructions of
computations in the order in which they are to run.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, BinaryIO

from memplan.backends import order_hook

_NOT_SHOWN = "it never showed its schedule of the module"


def write_frame(stream: BinaryIO, header: dict[str, Any], payload: bytes = b"") -> None:
    """Writes one frame and flushes."""
    encoded = json.dumps({**header, "bytes": len(payload)}).encode()
    stream.write(struct.pack(">I", len(encoded)) + encoded + payload)
    stream.flush()


def read_frame(stream: BinaryIO) -> tuple[dict[str, Any], bytes] | None:
    """Reads one frame; None at the end of the stream."""
    prefix = stream.read(4)
    if len(prefix) < 4:
        return None
    encoded = stream.read(struct.unpack(">I", prefix)[0])
    header = json.loads(encoded)
    payload = stream.read(header["bytes"])
    if len(payload) < header["bytes"]:
        return None
    return header, payload


class Refusal(Exception):
    """A request that cannot be answered.

    Attributes:
      reason: as in `CompileError`.
    """

    def __init__(self, message: str, reason: str = "refused"):
        super().__init__(message)
        self.reason = reason


class _Compiler:
    """Compiles modules for topologies, which are created once each."""

    def __init__(self) -> None:
        self._devices: dict[str, Any] = {}

    def device(self, topology: str) -> Any:
        if topology not in self._devices:
            from jax.experimental import topologies

            try:
                description = topologies.get_topology_desc(platform="tpu", topology_name=topology)
            except Exception as error:  # its type differs between versions
                raise Refusal(f"it knows no topology {topology!r}: {one_line(error)}") from None
            self._devices[topology] = description.devices[0]
        return self._devices[topology]

    def compile(
        self, module: bytes, topology: str, options: dict[str, str], order: dict[str, list[str]] | None = None
    ) -> tuple[str, dict[str, int] | None]:
        """Returns the compiled module's text, and its sizes."""
        if order is None:
            executable = self._executable(module, topology, options)
        else:
            executable = self._in_order(module, topology, options, order)
        return _printed(executable.hlo_modules), _sizes(executable)

    def before_assignment(self, module: bytes, topology: str, options: dict[str, str]) -> str:
        """Returns the scheduled module's text before memory spaces are assigned; the compile ends there."""
        from jaxlib import _hlo

        captured: list[bytes] = []

        def capture(content: bytes) -> bytes | None:
            captured.append(content)
            raise _Enough

        try:
            self._executable(module, topology, options, capture)
        except Exception:  # our exception comes back as an error of the compile
            if not captured:
                raise
        if not captured:
            raise Refusal(_NOT_SHOWN)
        return _printed(lambda: [_hlo.HloModule.from_serialized_hlo_module_proto(captured[0])])

    def _in_order(self, module: bytes, topology: str, options: dict[str, str], order: dict[str, list[str]]) -> Any:
        outcomes: list[order_hook.ModuleOutcome] = []

        def transform(content: bytes) -> bytes | None:
            changed, outcome = order_hook.reorder(content, order_hook.fixed_order(order))
            outcomes.append(outcome)
            if outcome.refused:
                raise _Enough
            return changed

        try:
            executable = self._executable(module, topology, options, transform)
        except Exception:
            if not (outcomes and outcomes[-1].refused):
                raise
            raise Refusal(outcomes[-1].refused, "order") from None
        if not outcomes:
            raise Refusal(_NOT_SHOWN)
        return executable

    def _executable(
        self,
        module: bytes,
        topology: str,
        options: dict[str, str],
        scheduled: Callable[[bytes], bytes | None] | None = None,
    ) -> Any:
        """Compiles; `scheduled` is shown the scheduled module, see `order_hook.hooked`."""
        # JAX has no public way to compile a StableHLO module for a topology; only these four names are used.
        import numpy as np
        from jax._src import compiler
        from jax._src.interpreters import mlir
        from jax._src.lib import xla_client
        from jaxlib.mlir import ir

        device = self.device(topology)
        with mlir.make_ir_context():
            parsed = ir.Module.parse(module)
            hook: AbstractContextManager[None] = nullcontext()
            if scheduled is not None:
                name = ir.StringAttr(parsed.operation.attributes["sym_name"]).value
                hook = order_hook.hooked(scheduled, "tpu", name)
            with hook:
                return device.client.compile(
                    parsed,
                    executable_devices=xla_client.DeviceList((device,)),
                    compile_options=compiler.get_compile_options(
                        1, 1, np.array([[device.id]]), env_options_overrides=dict(options)
                    ),
                )


class _Enough(Exception):
    """Ends a compile from within."""


def _printed(modules: Callable[[], Sequence[Any]]) -> str:
    try:
        return "\n".join(module.to_string() for module in modules())
    except Exception as error:  # its type differs between versions
        raise Refusal(f"{one_line(error)}: a newer jax may print it", "unprintable") from None


def _sizes(executable: Any) -> dict[str, int] | None:
    """Returns all sizes that the compiler states, in bytes; which it states differs between versions."""
    try:
        stats = executable.get_compiled_memory_stats()
    except Exception:
        return None
    fields = {name: getattr(stats, name) for name in dir(stats) if name.endswith("_in_bytes")}
    return {name: value for name, value in fields.items() if isinstance(value, int)}


def one_line(error: BaseException) -> str:
    """Returns the first line of an error's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def main(arguments: Sequence[str]) -> None:
    """Serves requests until standard input ends."""
    answers = open(int(arguments[0]), "wb")  # noqa: SIM115  (open until the process ends)
    requests = sys.stdin.buffer
    compiler = _Compiler()
    import jax
    import jaxlib

    try:
        import libtpu

        version = getattr(libtpu, "__version__", "")
    except ImportError:
        version = ""
    write_frame(answers, {"ready": True, "jax": jax.__version__, "jaxlib": jaxlib.__version__, "libtpu": version})
    while (frame := read_frame(requests)) is not None:
        header, payload = frame
        given = (payload, header["topology"], header["options"])
        try:
            if header.get("stage") == "before_assignment":
                text, memory = compiler.before_assignment(*given), None
            else:
                text, memory = compiler.compile(*given, header.get("order"))
        except Refusal as refusal:
            write_frame(answers, {"ok": False, "reason": refusal.reason, "error": str(refusal)})
        except Exception as error:  # the compiler's own errors have many types
            write_frame(answers, {"ok": False, "reason": "refused", "error": f"{type(error).__name__}: {error}"})
        else:
            write_frame(answers, {"ok": True, "memory": memory}, text.encode())
