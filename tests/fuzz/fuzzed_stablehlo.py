"""StableHLO for the fuzzer: its inputs, and jaxlib's translation of many in one process.

`memplan` starts a process for each program, whose crash is a refusal. Here a process serves until it crashes, and is
then forked again from one that has loaded jaxlib.
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import signal
import struct
from functools import cache
from pathlib import Path

from mutations import mutated_bytes, mutated_text

from memplan.compiler.errors import ParseError

FRONTENDS = Path(__file__).parents[1] / "compiler/frontends/data"
CORPUS = Path(__file__).parent / "corpus"

# CPU seconds that jaxlib may take for an input of a few kilobytes; more are a refusal, as they would be in `memplan`.
_SECONDS = 5
_HEADER = struct.Struct("<?q")


@cache
def _texts() -> list[str]:
    return [file.read_text() for file in sorted(CORPUS.glob("*.mlir"))]


@cache
def _binaries() -> list[bytes]:
    return [(FRONTENDS / name).read_bytes() for name in ("scan.mlir.bc", "scan.export")]


def make(chance: random.Random) -> bytes:
    """Returns a changed text, bytecode or exported artifact."""
    if chance.random() < 0.5:
        return mutated_text(chance, chance.choice(_texts()), _texts()).encode()
    return mutated_bytes(chance, chance.choice(_binaries()), _binaries())


class _Translator:
    """A child that translates one program after the other."""

    def __init__(self) -> None:
        requests, answers = os.pipe(), os.pipe()
        self.process = os.fork()
        if self.process == 0:
            os.close(requests[1])
            os.close(answers[0])
            _serve(requests[0], answers[1])
        os.close(requests[0])
        os.close(answers[1])
        self.requests = os.fdopen(requests[1], "wb")
        self.answers = os.fdopen(answers[0], "rb")

    def translated(self, content: bytes) -> tuple[bool, bytes] | None:
        """Returns whether a program was translated, and to what, or why not; None if the child crashed."""
        try:
            self.requests.write(struct.pack("<q", len(content)) + content)
            self.requests.flush()
        except BrokenPipeError:
            return None
        header = self.answers.read(_HEADER.size)
        if len(header) < _HEADER.size:
            return None
        done, length = _HEADER.unpack(header)
        answer = self.answers.read(length)
        return (done, answer) if len(answer) == length else None

    def close(self) -> None:
        self.answers.close()
        with contextlib.suppress(BrokenPipeError):
            self.requests.close()
        os.waitpid(self.process, 0)


def _serve(requests: int, answers: int) -> None:
    """Answers requests until there are no more, and ends the process."""
    from jaxlib import _jax

    gc.disable()
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 2)
    with os.fdopen(requests, "rb") as reads, os.fdopen(answers, "wb") as writes:
        while header := reads.read(8):
            content = reads.read(*struct.unpack("<q", header))
            signal.setitimer(signal.ITIMER_PROF, _SECONDS)
            try:
                made = _jax.mlir.mlir_module_to_xla_computation(content, use_tuple_args=False, return_tuple=False)
                done, answer = True, made.as_serialized_hlo_module_proto()
            except Exception as error:
                done, answer = False, str(error).encode(errors="replace")
            signal.setitimer(signal.ITIMER_PROF, 0)
            writes.write(_HEADER.pack(done, len(answer)) + answer)
            writes.flush()
    os._exit(0)


_translator: _Translator | None = None


def translated(content: bytes) -> bytes:
    """Returns the HLO proto of a StableHLO program in any of its forms; raises ParseError if jaxlib refuses it."""
    global _translator
    from memplan.compiler.frontends.stablehlo import mlir_of

    if _translator is None:
        from jaxlib import _jax  # noqa: F401  (before the fork, so that it is loaded once)

        _translator = _Translator()
    found = _translator.translated(mlir_of(content))
    if found is None:
        _translator.close()
        _translator = None
        raise ParseError("damaged StableHLO: jaxlib crashed reading it")
    done, answer = found
    if not done:
        raise ParseError(answer.decode(errors="replace"))
    return answer
