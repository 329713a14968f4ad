"""What XLA:TPU makes of a program ahead of time, and the memory that it assigns to it, whether it fits or not."""

from __future__ import annotations

import tempfile
from pathlib import Path

from memplan.backends.dumped import DumpedModule, dump_options, read_dumped
from memplan.backends.tpu.compile import CompileError, TpuCompiler, no_compiler
from memplan.backends.tpu.devices import TOPOLOGY_OF_TARGET
from memplan.compiler.errors import MemplanError
from memplan.compiler.hardware.target import Target


def compile_for_tpu(module: bytes, target: Target, with_proto: bool = False) -> DumpedModule:
    """Compiles StableHLO bytecode by XLA:TPU. A program that is refused for lack of memory is an answer as well.

    Args:
      module: the bytecode.
      target: a TPU.
      with_proto: whether the HloProto of the module is wanted.

    Raises:
      MemplanError: no compiler is for this target, libtpu is missing, or the compiler refused the program before it had
        assigned memory.
    """
    if target.name not in TOPOLOGY_OF_TARGET:
        raise MemplanError(no_compiler(target.name))
    refused = ""
    with tempfile.TemporaryDirectory() as folder:
        # What is wanted are the files, and those are not in the cache.
        with TpuCompiler(use_cache=False) as compiler:
            options = {name: str(value) for name, value in dump_options(folder, with_proto).items()}
            try:
                compiler.compile(module, TOPOLOGY_OF_TARGET[target.name], options)
            except CompileError as error:
                if error.reason != "refused" or not any(Path(folder).iterdir()):
                    raise
                refused = str(error)
        try:
            return read_dumped(Path(folder), refused)
        except MemplanError as error:
            raise MemplanError(refused or str(error)) from None
