"""Which memory of a target holds what, where a program's layouts cannot say it: some memories can only be read.

- What is written, or is an argument of TensorFlow Lite, is in the first memory that can be written if its own cannot.
- Constants are in the memory that can only be read, if the target has one.
- All else is where its layout says.
"""

from __future__ import annotations

from dataclasses import replace

from memplan.compiler.analysis.program import AccessKind, FlatProgram
from memplan.compiler.hardware.target import Target
from memplan.compiler.ir.runtime import is_for_tflite


def written_storages(program: FlatProgram) -> set[int]:
    """Returns the storages that the program writes, or that are written for each of its runs."""
    written = {access.storage for access in program.accesses if access.kind is not AccessKind.READ}
    if is_for_tflite(program.graph):
        written |= {number for number, storage in enumerate(program.storages) if storage.parameters}
    return written


def in_memories_of(target: Target, program: FlatProgram) -> FlatProgram:
    """Returns a program whose storages are in memories of a target that can hold them.

    Memories have the numbers of `Target.number_of`. On a target whose memories can all be written, this is the program
    itself.
    """
    if target.read_only < 0:
        return program
    written = written_storages(program)
    home, constants = target.number_of(target.home), target.number_of(target.read_only)
    storages = []
    for number, storage in enumerate(program.storages):
        space = target.space_of_xla(storage.memory_space)
        if number in written and space >= 0 and not target.spaces[space].writable:
            storage = replace(storage, memory_space=home)
        elif number not in written and storage.is_constant and space >= 0:
            storage = replace(storage, memory_space=constants)
        storages.append(storage)
    return replace(program, storages=tuple(storages))
