"""A compiler that answers at once: a small program whose placement and cycles follow from the options."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from memplan.backends.tpu.compile import CompiledModule, CompileError, TpuCompiler

FAST = "{1,0:S(1)}"
SLOW_CYCLES, FAST_CYCLES = 60_000, 25_000


def program(fast: str = "", cycles: int = 0, cross_program: bool = False) -> str:
    """Returns a chain of four instructions on arrays of 4 MiB; those named by a letter of `fast` are in fast memory."""
    place = {name: FAST if name in fast else "{1,0}" for name in "abc"}

    def step(name: str, operation: str, reads: str) -> str:
        gained = sum(part in fast for part in (name, *reads))
        estimate = (cycles or SLOW_CYCLES) - (SLOW_CYCLES - FAST_CYCLES) * gained // 3
        shape = f"f32[1024,1024]{place.get(name, '{1,0}')}"
        config = f'backend_config={{"window_config":{{"estimated_cycles":"{estimate}"}}}}'
        return f"{'ROOT ' if name == 'd' else ''}{name} = {shape} {operation}({', '.join(reads)}), {config}"

    prefetch = [
        "k = (f32[8,128]{1,0:S(1)}, f32[8,128]{1,0}, u32[]) copy-start(w), cross_program_prefetch_index=0",
        "l = f32[8,128]{1,0:S(1)} copy-done(k)",
    ] * cross_program
    lines = [
        "x = f32[1024,1024]{1,0} parameter(0)",
        "w = f32[8,128]{1,0} parameter(1)",
        step("a", "negate", "x"),
        step("b", "exponential", "a"),
        step("c", "add", "ab"),
        step("d", "abs", "c"),
    ]
    body = "\n".join([*lines[:2], *prefetch, *lines[2:]])
    return f"HloModule m, is_scheduled=true\nENTRY e {{\n{body}\n}}"


class FakeCompiler(TpuCompiler):
    """Answers with what a function makes of the options, and remembers the options of every request."""

    def __init__(self, answer: Callable[[Mapping[str, str]], str]):
        super().__init__(Path("/nonexistent"), use_cache=False)
        self.answer = answer
        self.scheduled: str | None = None
        self.places: list[tuple[str, tuple[int, ...]]] = []
        self.requests: list[dict[str, str]] = []
        self.orders: list[Mapping[str, Sequence[str]] | None] = []

    def compile(  # type: ignore[override]
        self,
        module: bytes,
        topology: str,
        options: Mapping[str, str] | None = None,
        order: Mapping[str, Sequence[str]] | None = None,
        devices: Sequence[int] = (),
    ) -> CompiledModule:
        self.places.append((topology, tuple(devices)))
        self.requests.append(dict(options or {}))
        self.orders.append(order)
        return CompiledModule(self.answer(dict(options or {})), seconds=0.5, cached=False)

    def before_assignment(
        self, module: bytes, topology: str, options: Mapping[str, str] | None = None, devices: Sequence[int] = ()
    ) -> CompiledModule:
        """What the compiler schedules: the program with everything in one memory."""
        return CompiledModule(program() if self.scheduled is None else self.scheduled, seconds=0.1, cached=False)


def refusal(text: str) -> CompileError:
    """The error of a strict override."""
    return CompileError(f"the TPU compiler refused: FAILED_PRECONDITION: {text}", "refused")
