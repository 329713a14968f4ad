"""The process that loads libtpu and compiles: `python -m memplan.compiler.backends.tpu.worker`.

libtpu is native code that can abort, hang or hold its lock; here it takes nobody down with it. Requests come on
standard input, answers go to the file descriptor given as the only argument, each as a frame:

    4 bytes, big endian: length of the header | header, JSON | `header["bytes"]` bytes of payload

A request's payload is a StableHLO module as bytecode; a successful answer's is the compiled module's text.
"""

from __future__ import annotations

import json
import struct
import sys
from typing import Any, BinaryIO


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


class _Compiler:
    """Compiles modules for topologies, which are created once each."""

    def __init__(self) -> None:
        self._devices: dict[str, Any] = {}

    def device(self, topology: str) -> Any:
        if topology not in self._devices:
            from jax.experimental import topologies

            description = topologies.get_topology_desc(platform="tpu", topology_name=topology)
            self._devices[topology] = description.devices[0]
        return self._devices[topology]

    def compile(self, module: bytes, topology: str, options: dict[str, str]) -> str:
        # JAX has no public way to compile a StableHLO module for a topology; these four names are all that is used.
        import numpy as np
        from jax._src import compiler
        from jax._src.interpreters import mlir
        from jax._src.lib import xla_client
        from jaxlib.mlir import ir

        device = self.device(topology)
        with mlir.make_ir_context():
            executable = device.client.compile(
                ir.Module.parse(module),
                executable_devices=xla_client.DeviceList((device,)),
                compile_options=compiler.get_compile_options(
                    1, 1, np.array([[device.id]]), env_options_overrides=dict(options)
                ),
            )
        return "\n".join(module.to_string() for module in executable.hlo_modules())


def main() -> None:
    """Serves requests until standard input ends."""
    answers = open(int(sys.argv[1]), "wb")  # noqa: SIM115  (open until the process ends)
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
        try:
            text = compiler.compile(payload, header["topology"], header["options"])
        except Exception as error:  # the compiler's own errors have many types
            write_frame(answers, {"ok": False, "error": f"{type(error).__name__}: {error}"})
        else:
            write_frame(answers, {"ok": True}, text.encode())


if __name__ == "__main__":
    main()
