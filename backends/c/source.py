"""A planned program as C files: the model, its header, a program that tests it, and what builds them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from memplan.backends.c.board import BOARD_FILES
from memplan.backends.c.build_files import CMAKE_LISTS, MAIN
from memplan.backends.c.kernels import KernelCall, kernels
from memplan.backends.c.operators import TYPES, constant_text
from memplan.backends.c.operators_header import OPERATORS_HEADER
from memplan.backends.c.sum_functions import functions
from memplan.compiler.embedded.plan import EmbeddedPlan
from memplan.compiler.embedded.program import ALIGNMENT, EmbeddedBuffer, StorageKind

_LONGEST_NAME = 40

# The types in the interface, where nothing aliases.
_PUBLIC = {"bool": "uint8_t", "float32": "float", **{name: f"{name}_t" for name in TYPES if "int" in name}}


def c_files(plan: EmbeddedPlan, stored: Sequence[Any], expected: Sequence[Any]) -> dict[str, str]:
    """Returns the text of all files by their paths.

    Args:
      plan: what is written.
      stored: an array for each of the program's inputs.
      expected: the arrays of its states and of its results after one run on these.
    """
    return {
        "model.h": _header(plan),
        "model.c": _model(plan),
        "memplan_operators.h": OPERATORS_HEADER,
        "test_data.h": _test_data(plan, stored, expected),
        "main.c": MAIN,
        "CMakeLists.txt": CMAKE_LISTS,
        **BOARD_FILES,
    }


def identifier(text: str) -> str:
    """Returns a part of a C identifier for any text."""
    return re.sub(r"[^0-9a-z]+", "_", text.lower())[:_LONGEST_NAME].strip("_") or "unnamed"


def remark(text: str) -> str:
    """Returns a text as part of a comment: nothing in it can end the comment or continue the line."""
    return re.sub(r"[^\w .:,;%@#$=()\[\]/<>+-]|(?<=/)/|(?<=/)\*", "_", text, flags=re.ASCII)[:200]


def interface_names(plan: EmbeddedPlan) -> dict[int, str]:
    """Returns a C name, all different, for each input, state and result."""
    program = plan.program
    names: dict[int, str] = {}
    taken: set[str] = set()
    for kind, listed in (("input", program.inputs), ("state", program.states), ("result", program.results)):
        for b in listed:
            base = identifier(program.buffers[b].name)
            name = base if base.startswith(kind) else f"{kind}_{base}"
            number = 1
            while (full := name if number == 1 else f"{name}_{number}") in taken:
                number += 1
            taken.add(full)
            names[b] = full
    return names


def _header(plan: EmbeddedPlan) -> str:
    program = plan.program
    lines = [
        f"/* {remark(program.name)}, planned by memplan for one static arena.",
        "",
        "   Write the inputs, call model_run, read the results. Inputs are in the arena, where other values take their",
        "   place: write them again before each run. States are set by model_init and are kept from run to run. */",
        "#ifndef MODEL_H",
        "#define MODEL_H",
        "",
        "#include <stdint.h>",
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
        "/* Bytes of the arena, and a bound that no order of the steps is below. */",
        f"#define MODEL_ARENA_BYTES {max(plan.arena, ALIGNMENT)}u",
        f"#define MODEL_LEAST_BYTES {plan.bound}u",
        f"#define MODEL_STEPS {len(plan.order)}u",
        "",
    ]
    for b, name in interface_names(plan).items():
        buffer = program.buffers[b]
        upper = f"MODEL_{name.upper()}"
        lines += [
            f"/* {remark(buffer.name)}: {buffer.dtype}[{', '.join(map(str, buffer.shape))}] */",
            f"#define {upper}_OFFSET {plan.offset(b)}u",
            f"#define {upper}_ELEMENTS {buffer.num_elements}u",
            f"{_PUBLIC[buffer.dtype]} *model_{name}(void);",
            "",
        ]
    lines += [
        "/* Sets the states to their first values. */",
        "void model_init(void);",
        "",
        "/* Runs all steps. */",
        "void model_run(void);",
        "",
        "/* Runs one step; a run is the steps 0, 1, ... in this order. */",
        "void model_step(uint32_t step);",
        "",
        "/* The function and the source line of a step. */",
        "const char *model_step_name(uint32_t step);",
        "",
        "#ifdef __cplusplus",
        "}",
        "#endif",
        "",
        "#endif",
        "",
    ]
    return "\n".join(lines)


def _model(plan: EmbeddedPlan) -> str:
    program = plan.program
    steps, calls, library = kernels(plan)
    places = _places(plan)
    parts = [
        f"/* {remark(program.name)}: written by memplan. */\n",
        '#include "model.h"\n\n#include <string.h>\n\n#include "memplan_operators.h"\n',
        "static union {\n    int32_t aligned;\n    unsigned char bytes[MODEL_ARENA_BYTES];\n} arena;\n",
        *_constants(plan),
        *functions(library),
        *steps,
        *_accessors(plan),
        _init(plan),
        _steps(plan, calls, places),
    ]
    return "\n".join(parts)


def _places(plan: EmbeddedPlan) -> list[str]:
    """Returns where each buffer begins, as an expression of C."""
    return [
        f"constant_{b}" if buffer.kind is StorageKind.CONSTANT else f"arena.bytes + {plan.offset(b)}"
        for b, buffer in enumerate(plan.program.buffers)
    ]


def _constants(plan: EmbeddedPlan) -> Iterator[str]:
    for b, buffer in enumerate(plan.program.buffers):
        if buffer.kind in (StorageKind.CONSTANT, StorageKind.STATE):
            name = f"constant_{b}" if buffer.kind is StorageKind.CONSTANT else f"first_{b}"
            yield f"/* {remark(buffer.name)} */\n{array_text(f'static const {_PUBLIC[buffer.dtype]} {name}', buffer)}"


def array_text(declaration: str, buffer: EmbeddedBuffer, value: Any = None) -> str:
    """Returns the definition of an array with the value of a buffer, or with another one."""
    array = np.asarray(buffer.value if value is None else value).reshape(-1)
    lines, line = [], "   "
    if array.dtype == np.float32:
        texts = [constant_text(number, "float32") for number in array.tolist()]
    else:
        texts = ["INT32_MIN" if number == -(2**31) else str(number) for number in array.astype(np.int64).tolist()]
    for text in texts:
        if len(line) + len(text) > 116:
            lines.append(line)
            line = "   "
        line += f" {text},"
    body = "\n".join([*lines, line])
    return f"{declaration}[{array.size}] = {{\n{body}\n}};\n"


def _accessors(plan: EmbeddedPlan) -> Iterator[str]:
    for b, name in interface_names(plan).items():
        kind = _PUBLIC[plan.program.buffers[b].dtype]
        yield f"{kind} *model_{name}(void) {{ return ({kind} *)(void *)(arena.bytes + {plan.offset(b)}); }}"


def _init(plan: EmbeddedPlan) -> str:
    lines = [f"    memcpy(arena.bytes + {plan.offset(b)}, first_{b}, sizeof first_{b});" for b in plan.program.states]
    return "\nvoid model_init(void)\n{\n" + "".join(f"{line}\n" for line in lines) + "}\n"


def _steps(plan: EmbeddedPlan, calls: Sequence[KernelCall], places: Sequence[str]) -> str:
    program = plan.program
    cases, names = [], []
    for time, (k, call) in enumerate(zip(plan.order, calls, strict=True)):
        step = program.steps[k]
        arguments = []
        for buffer, kind in zip(call.buffers, call.types, strict=True):
            place = f"arena.bytes + {plan.workspace(k)}" if buffer is None else places[buffer]
            is_constant = buffer is not None and program.buffers[buffer].kind is StorageKind.CONSTANT
            arguments.append(place if is_constant else f"({kind.strip()})(void *)({place})")
        outputs = ", ".join(
            f"{program.buffers[b].dtype}[{', '.join(map(str, program.buffers[b].shape))}]" for b in step.writes
        )
        cases.append(f"    case {time}: /* {outputs} {remark(step.origin)} */")
        cases.append(f"        {call.function}({', '.join([*arguments, *call.numbers])});")
        cases.append("        break;")
        names.append(f'    "{call.function} {_string(step.origin)}",')
    return "\n".join(
        [
            "void model_step(uint32_t step)",
            "{",
            "    switch (step) {",
            *cases,
            "    default:",
            "        break;",
            "    }",
            "}",
            "",
            "void model_run(void)",
            "{",
            "    for (uint32_t step = 0; step < MODEL_STEPS; step++) {",
            "        model_step(step);",
            "    }",
            "}",
            "",
            "#ifdef MODEL_STEP_NAMES",
            "static const char *const step_names[] = {",
            *(names or ['    "",']),
            "};",
            "#endif",
            "",
            "const char *model_step_name(uint32_t step)",
            "{",
            "#ifdef MODEL_STEP_NAMES",
            '    return step < MODEL_STEPS ? step_names[step] : "";',
            "#else",
            "    (void)step;",
            '    return "";',
            "#endif",
            "}",
            "",
        ]
    )


def _string(text: str) -> str:
    return re.sub(r"[^\w .:/()-]", "_", text, flags=re.ASCII)


def _test_data(plan: EmbeddedPlan, stored: Sequence[Any], expected: Sequence[Any]) -> str:
    """Returns the stored input, and what JAX computes from it."""
    program, names = plan.program, interface_names(plan)
    parts = ["/* One input, and what JAX computes from it. */", '#include <stdint.h>\n\n#include "model.h"\n']
    for number, (b, value) in enumerate(zip(program.inputs, stored, strict=True)):
        kind = _PUBLIC[program.buffers[b].dtype]
        parts.append(array_text(f"static const {kind} input_{number}", program.buffers[b], value))
    rows = []
    outputs = [*program.states, *program.results]
    for number, (b, value) in enumerate(zip(outputs, expected, strict=True)):
        buffer = program.buffers[b]
        kind = _PUBLIC[buffer.dtype]
        parts.append(array_text(f"static const {kind} expected_{number}", buffer, value))
        is_float = buffer.dtype == "float32"
        tolerance = 1 if b in program.states else 0
        rows.append(
            f"    OUTPUT({names[b]}, expected_{number}, {'compare_float' if is_float else 'compare_' + buffer.dtype}, "
            f"{tolerance})"
        )
    copies = [
        f"    memcpy(model_{names[b]}(), input_{number}, sizeof input_{number});"
        for number, b in enumerate(program.inputs)
    ]
    kinds = {"float" if program.buffers[b].dtype == "float32" else program.buffers[b].dtype for b in outputs}
    parts += [f"#define COMPARES_{kind.upper()}" for kind in sorted(kinds)]
    parts.append("#define WRITE_INPUTS \\\n" + " \\\n".join(copies or ["    ;"]) + "\n")
    parts.append("#define EACH_OUTPUT(OUTPUT) \\\n" + " \\\n".join(rows or ["    "]) + "\n")
    return "\n".join(parts)
