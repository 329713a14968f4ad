"""C compilers and an emulator, where they are installed: exported programs compiled, measured and run."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from memplan.compiler import child_process
from memplan.compiler.errors import MemplanError

CORTEX_M7 = ("-mcpu=cortex-m7", "-mthumb", "-mfpu=fpv5-sp-d16", "-mfloat-abi=hard")
WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-ffp-contract=off")
_BOARD_LINK = ("-nostartfiles", "--specs=nosys.specs")
_EMULATED = ("-M", "mps2-an500", "-nographic", "-semihosting", "-icount", "shift=0")

_SIZES = re.compile(r"^\s*(\d+)\s+(\d+)\s+(\d+)\s+\d+\s", re.MULTILINE)
_SECTION = re.compile(r"^(\.\S+)\s+(\d+)\s", re.MULTILINE)
_STEP_TIME = re.compile(r"^(\d+\.\d+) (.*)$", re.MULTILINE)
_STEP_COUNT = re.compile(r"^(\d+) instructions (.*)$", re.MULTILINE)
_SECONDS = 300.0


@dataclass(frozen=True)
class CodeSizes:
    """Bytes of an object file for a Cortex-M7, as arm-none-eabi-size states them.

    Attributes:
      text: code and constants, in flash.
      data: variables with a first value, in flash and in memory.
      bss: other variables, which are the arena.
      code: of `text`, the bytes of instructions; the rest are constants.
    """

    text: int
    data: int
    bss: int
    code: int


def is_installed(program: str) -> bool:
    """Whether a program is on the path."""
    return shutil.which(program) is not None


def run_tool(*command: str, timeout: float = _SECONDS) -> str:
    """Runs a program to its end and returns its output; the emulator's goes to standard error, which comes last.

    Raises:
      MemplanError: it is not there, fails, or takes too long.
    """
    done = child_process.run("memplan.compiler.external_program", *command, timeout=timeout)
    if done.returncode:
        said = (done.stdout + done.stderr).decode(errors="replace").strip().splitlines() or ["it said nothing"]
        line = next((line for line in said if "error" in line or "FAILED" in line), said[0])
        raise MemplanError(f"{command[0]} ended with {done.returncode}: {line}")
    return (done.stdout + done.stderr).decode(errors="replace")


def cortex_m7_sizes(folder: Path, scratch: Path, *, optimize: str = "-O2") -> CodeSizes:
    """Compiles an exported model for a Cortex-M7 and returns its sizes.

    Args:
      folder: of the exported files.
      scratch: a folder for the object file.
      optimize: an option of the compiler.
    """
    made = str(scratch / "model.o")
    run_tool("arm-none-eabi-gcc", *WARNINGS, *CORTEX_M7, optimize, "-c", str(folder / "model.c"), "-o", made)
    match = _SIZES.search(run_tool("arm-none-eabi-size", made))
    assert match is not None
    text, data, bss = (int(match[k]) for k in (1, 2, 3))
    sections = _SECTION.findall(run_tool("arm-none-eabi-size", "-A", made))
    return CodeSizes(text, data, bss, sum(int(size) for name, size in sections if name.startswith(".text")))


def compiled_test(folder: Path, scratch: Path, compiler: str = "gcc", options: Sequence[str] = ("-O2",)) -> Path:
    """Compiles an exported model with its test program for this machine, and returns the program."""
    made = scratch / "model_test"
    sources = [str(folder / name) for name in ("model.c", "main.c")]
    run_tool(compiler, *WARNINGS, "-DMODEL_TIMES", "-DMODEL_STEP_NAMES", *options, *sources, "-o", str(made), "-lm")
    return made


def step_seconds(program: Path) -> list[tuple[str, float]]:
    """Runs what `compiled_test` made, and returns the name and CPU seconds of each step on this machine.

    Raises:
      MemplanError: the results are not those of JAX.
    """
    return [(match[2], float(match[1])) for match in _STEP_TIME.finditer(run_tool(str(program), "--time"))]


def run_on_board(folder: Path, scratch: Path, optimize: str = "-O2") -> str:
    """Compiles the test program for the board mps2-an500, runs it in qemu and returns what it prints.

    Raises:
      MemplanError: it does not compile, or its results are not those of JAX.
    """
    made = str(scratch / "model_test.elf")
    sources = [str(folder / name) for name in ("model.c", "main.c", "board/mps2_an500.c")]
    options = (*WARNINGS, *CORTEX_M7, optimize, "-DMODEL_COUNTS", "-DMODEL_STEP_NAMES")
    link = (*_BOARD_LINK, "-T", str(folder / "board/mps2_an500.ld"))
    run_tool("arm-none-eabi-gcc", *options, *sources, *link, "-o", made, "-lm")
    return run_tool("qemu-system-arm", *_EMULATED, "-kernel", made)


def step_instructions(printed: str) -> list[tuple[str, int]]:
    """Returns the name and the instructions, to the next 40, of each step of what `run_on_board` returned."""
    return [(match[2], int(match[1])) for match in _STEP_COUNT.finditer(printed)]
