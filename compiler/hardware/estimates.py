"""What XLA's TPU compiler says of an instruction in its `backend_config`: cycles, and fast memory of its own.

    "window_config": {… "estimated_cycles":"44851" …},
    "used_scoped_memory_configs": [{"memory_space":"1","offset":"0","size":"4194304"}]

The text is searched, not parsed: a large module has a hundred thousand of them.
"""

from __future__ import annotations

import re

from memplan.compiler.ir import Instruction

_CYCLES = re.compile(r'"estimated_cycles"\s*:\s*"?(\d{1,18})\b')
_SCOPED = re.compile(r'"used_scoped_memory_configs"\s*:\s*\[([^\]]*)\]')
_ENTRY = re.compile(r"\{([^}]*)\}")
_FIELD = re.compile(r'"(memory_space|offset|size)"\s*:\s*"?(\d{1,18})\b')

# A compiler that could not estimate an instruction writes the largest integer.
_UNKNOWN_CYCLES = 10**17


def estimated_cycles(instruction: Instruction) -> int | None:
    """Returns the compiler's estimate of how long an instruction takes, for the memory spaces that it has in the dump.

    None if it states none: nothing is known then, which is not the same as nothing to do.

    >>> from memplan.compiler.ir import Shape
    >>> config = '{"window_config":{"estimated_cycles":"44851"}}'
    >>> estimated_cycles(Instruction("a", "fusion", Shape("f32"), attributes=(("backend_config", config),)))
    44851
    """
    config = instruction.attribute("backend_config")
    if "estimated_cycles" not in config:
        return None
    found = _CYCLES.search(config)
    if found is None:
        return None
    cycles = int(found[1])
    return cycles if 0 < cycles < _UNKNOWN_CYCLES else None


def states_reserved(instruction: Instruction) -> bool:
    """Tells whether the compiler states what an instruction needs for itself, be it nothing."""
    return "used_scoped_memory_configs" in instruction.attribute("backend_config")


def reserved_bytes(instruction: Instruction) -> dict[int, int]:
    """Returns the bytes at the bottom of each memory that an instruction needs for itself while it runs.

    Keys are XLA's numbers of memory spaces; a memory of which it needs nothing is left out.
    """
    config = instruction.attribute("backend_config")
    reserved: dict[int, int] = {}
    if "used_scoped_memory_configs" not in config:
        return reserved
    found = _SCOPED.search(config)
    if found is None:
        return reserved
    for entry in _ENTRY.findall(found[1]):
        fields = dict(_FIELD.findall(entry))
        end = int(fields.get("offset", 0)) + int(fields.get("size", 0))
        space = int(fields.get("memory_space", 0))
        if end > 0 and int(fields.get("size", 0)) > 0:
            reserved[space] = max(end, reserved.get(space, 0))
    return reserved
