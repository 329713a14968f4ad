"""What runs in the process that loads libtpu, or XLA for GPUs, and compiles.

Both are native code that can abort, hang or hold a lock, which in this process harms no other. Requests come on
standard input, and answers go to the file descriptor that is the only argument, each as a frame:

    4 bytes, big endian: length of the header | header, JSON | `header["bytes"]` bytes of payload

The payload of a request is a StableHLO module as bytecode. That of a successful answer is the text of the compiled
module, or of the scheduled module if the request's `stage` is `before_assignment`. `order` names the instructions of
computations in the order in which they are to run, and `devices` those of the slice that run its partitions.
"""

from __future__ import annotations

import json
import math
import struct
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, BinaryIO

from memplan.backends import order_hook
from memplan.backends.gpu.chips import TARGET_CONFIGS
from memplan.backends.tpu.devices import meshes, partitions_of, unstated

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


@dataclass(frozen=True)
class _Request:
    """What is to be compiled.

    Attributes:
      module: StableHLO as bytecode.
      topology: name of the slice.
      options: of the compiler.
      order: names of computations to those of their instructions; None for the compiler's own order.
      devices: ids of the devices in the order of the partitions; () for those that fit the program's mesh.
    """

    module: bytes
    topology: str
    options: dict[str, str]
    order: dict[str, list[str]] | None = None
    devices: tuple[int, ...] = ()


class _Compiler:
    """Compiles modules for topologies, which are created once each."""

    def __init__(self) -> None:
        self._slices: dict[str, list[Any]] = {}

    def slice(self, topology: str) -> list[Any]:
        """Returns the devices of a topology."""
        if topology not in self._slices:
            from jax.experimental import topologies

            try:
                if topology in TARGET_CONFIGS:
                    config = TARGET_CONFIGS[topology]
                    description = topologies.get_topology_desc(platform="cuda", target_config=config, topology="1x1x1")
                else:
                    description = topologies.get_topology_desc(platform="tpu", topology_name=topology)
            except Exception as error:  # its type differs between versions
                raise Refusal(f"it knows no topology {topology!r}: {one_line(error)}") from None
            self._slices[topology] = list(description.devices)
        return self._slices[topology]

    def compile(self, request: _Request) -> tuple[str, dict[str, int] | None]:
        """Returns the compiled module's text, and its sizes."""
        executable = self._executable(request) if request.order is None else self._in_order(request, request.order)
        return _printed(executable.hlo_modules), _sizes(executable)

    def before_assignment(self, request: _Request) -> str:
        """Returns the scheduled module's text before memory spaces are assigned; the compile ends there."""
        from jaxlib import _hlo

        captured: list[bytes] = []

        def capture(content: bytes) -> bytes | None:
            captured.append(content)
            raise _Enough

        try:
            self._executable(request, capture)
        except Exception:  # our exception comes back as an error of the compile
            if not captured:
                raise
        if not captured:
            raise Refusal(_NOT_SHOWN)
        return _printed(lambda: [_hlo.HloModule.from_serialized_hlo_module_proto(captured[0])])

    def _in_order(self, request: _Request, order: dict[str, list[str]]) -> Any:
        outcomes: list[order_hook.ModuleOutcome] = []

        def transform(content: bytes) -> bytes | None:
            changed, outcome = order_hook.reorder(content, order_hook.fixed_order(order))
            outcomes.append(outcome)
            if outcome.refused:
                raise _Enough
            return changed

        try:
            executable = self._executable(request, transform)
        except Exception:
            if not (outcomes and outcomes[-1].refused):
                raise
            raise Refusal(outcomes[-1].refused, "order") from None
        if not outcomes:
            raise Refusal(_NOT_SHOWN)
        return executable

    def _executable(self, request: _Request, scheduled: Callable[[bytes], bytes | None] | None = None) -> Any:
        """Compiles; `scheduled` is shown the scheduled module, see `order_hook.hooked`."""
        # JAX has no public way to compile a StableHLO module for a topology; only these four names are used.
        import numpy as np
        from jax._src import compiler
        from jax._src.interpreters import mlir
        from jax._src.lib import xla_client
        from jaxlib.mlir import ir

        known = self.slice(request.topology)
        with mlir.make_ir_context():
            parsed = ir.Module.parse(request.module)
            devices = _devices(known, request, parsed)
            hook: AbstractContextManager[None] = nullcontext()
            if scheduled is not None:
                name = ir.StringAttr(parsed.operation.attributes["sym_name"]).value
                hook = order_hook.hooked(scheduled, "tpu", name)
            options = compiler.get_compile_options(
                1,
                len(devices),
                np.array([[device.id for device in devices]]),
                env_options_overrides=dict(request.options),
            )
            if len(devices) > 1:
                count = ir.IntegerAttr.get(ir.IntegerType.get_signless(32), len(devices))
                parsed.operation.attributes["mhlo.num_partitions"] = count
                build = options.executable_build_options
                arguments, results = unstated(parsed)
                build.use_shardy_partitioner = bool(meshes(parsed))
                build.allow_spmd_sharding_propagation_to_parameters = arguments
                build.allow_spmd_sharding_propagation_to_output = results
            with hook:
                return known[0].client.compile(
                    parsed, executable_devices=xla_client.DeviceList(tuple(devices)), compile_options=options
                )


def _devices(known: Sequence[Any], request: _Request, module: Any) -> list[Any]:
    """Returns the devices of a slice that run a program, in the order of its partitions."""
    partitions = partitions_of(module)
    if request.devices:
        by_id = {device.id: device for device in known}
        if len(request.devices) != partitions or not by_id.keys() >= set(request.devices):
            raise Refusal(f"{request.topology} has no devices {request.devices} for {partitions} partitions")
        return [by_id[number] for number in request.devices]
    if partitions > len(known):
        raise Refusal(f"{request.topology} has {len(known)} devices, and the program is for {partitions}")
    chosen = list(known[:partitions])
    shape = next((sizes for sizes in meshes(module) if math.prod(sizes) == partitions), ())
    if partitions == 1 or not shape:
        return chosen
    from jax.experimental import mesh_utils

    try:
        return list(mesh_utils.create_device_mesh(shape, chosen).flat)
    except (NotImplementedError, ValueError, AssertionError):  # no way to lay this mesh over these chips is known
        return chosen


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
        devices = tuple(header.get("devices", ()))
        request = _Request(payload, header["topology"], header["options"], header.get("order"), devices)
        try:
            if header.get("stage") == "before_assignment":
                text, memory = compiler.before_assignment(request), None
            else:
                text, memory = compiler.compile(request)
        except Refusal as refusal:
            write_frame(answers, {"ok": False, "reason": refusal.reason, "error": str(refusal)})
        except Exception as error:  # the compiler's own errors have many types
            write_frame(answers, {"ok": False, "reason": "refused", "error": f"{type(error).__name__}: {error}"})
        else:
            write_frame(answers, {"ok": True, "memory": memory}, text.encode())
