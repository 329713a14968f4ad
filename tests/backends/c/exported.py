"""Exported programs, compiled and run here."""

import re
from pathlib import Path

import pytest

from memplan.backends.c import toolchain
from memplan.backends.c.export import CExport

SANITIZERS = ("-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = [program for program in programs if not toolchain.is_installed(program)]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def run(made: CExport, folder: Path, compiler: str = "gcc", options: tuple[str, ...] = SANITIZERS) -> dict[str, int]:
    """Returns how many elements of each state and result differ from JAX's; raises MemplanError if too much."""
    made.write(folder / "c")
    program = toolchain.compiled_test(folder / "c", folder, compiler, options)
    return differences(toolchain.run_tool(str(program)))


def differences(output: str) -> dict[str, int]:
    assert re.search("^ok$", output, re.MULTILINE), output
    return {match[1]: int(match[2]) for match in re.finditer(r"^(\w+): (\d+) of \d+ differ", output, re.MULTILINE)}
