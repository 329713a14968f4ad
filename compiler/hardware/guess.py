"""What hardware a module was compiled for, as far as the module says so."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from memplan.compiler.errors import TargetError
from memplan.compiler.hardware.target import Target, known_target
from memplan.compiler.ir import Graph

# Memory spaces in the layouts of a module, and the oldest target that has them: a dump does not name its chip.
_TARGET_OF_SPACE = {3: "tpu-v4", 1: "tpu-v5e"}

# Whose costs count where nothing says what a program is for; its capacity says nothing of the real memory.
ANY_TARGET = "generic"

_NAMED = re.compile(r'memplan\.target="([^"]*+)"')


@dataclass(frozen=True)
class Guess:
    """The target that a program seems to be compiled for.

    Attributes:
      name: of the target.
      reason: how that is known, to be read after "because".
    """

    name: str
    reason: str


def guess_target(graph: Graph) -> Guess:
    """Returns what a program was compiled for, as far as it says so.

    The dumps that memplan ships name it. Others tell the generation of TPU by their memory spaces only.
    """
    for key, value in graph.attributes:
        if key == "frontend_attributes" and (named := _named_target(value)):
            return Guess(named, "the module names it")
    spaces = {leaf.memory_space for _, instruction in graph.instructions() for _, leaf in instruction.shape.leaves()}
    for space, name in _TARGET_OF_SPACE.items():
        if space in spaces:
            return Guess(name, f"the module has buffers in S({space})")
    return Guess(ANY_TARGET, "the module does not say what it was compiled for")


def guessed_target(graph: Graph) -> Target:
    """Returns what `guess_target` names.

    Raises:
      TargetError: the program names a target that is not known. It may name no file: that is for the user to do.
    """
    guess = guess_target(graph)
    try:
        return known_target(guess.name)
    except TargetError as error:
        raise TargetError(f"{graph.file or graph.name} names its target: {error}") from None


def _named_target(attributes: str) -> str:
    """Returns the value of `memplan.target` in the text of a module's frontend attributes; "" if it is not there."""
    match = _NAMED.search(attributes)
    return match[1] if match is not None else ""


def in_any_memory(target: Target) -> Target:
    """Returns a target that nobody named: if it stands for any hardware, its main memory is called `memory`."""
    if target.name != ANY_TARGET:
        return target
    return replace(target, spaces=(replace(target.spaces[0], name="memory"), *target.spaces[1:]))
