"""Offsets as a C header: real compilers take it in every standard, and its assertion holds what it says."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from memplan.planners.offsets.c_header import c_header, identifiers
from memplan.planners.offsets.instance import Instance, InstanceError
from memplan.planners.offsets.pack import pack

COMPILERS = [
    *(("gcc", standard) for standard in ("c89", "c99", "c11", "c17")),
    *(("g++", standard) for standard in ("c++98", "c++11", "c++17")),
]

HOSTILE = [
    "fusion.1",
    "fusion_1",
    "FUSION-1",
    "",
    "9",
    "a*/b",
    "/* x",
    "a//\\",
    "??/",
    "é",
    "a\nb",
    "x" * 300,
    "_",
    "int",
]

compiles = pytest.mark.parametrize(("compiler", "standard"), COMPILERS, ids=lambda name: name)


def instance_of(ids: list[str]) -> Instance:
    count = len(ids)
    return Instance.of([0] * count, [2] * count, [8 * (i + 1) for i in range(count)], [8] * count, ids=ids)


def compile_(compiler: str, standard: str, folder: Path, body: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Compiles and links a program that includes the header twice."""
    if shutil.which(compiler) is None:
        pytest.skip(f"there is no {compiler}")
    source = folder / ("main.c" if compiler == "gcc" else "main.cc")
    source.write_text(
        f'#include "model.h"\n#include "model.h"\n#include <stdio.h>\nint main(void) {{ {body} return 0; }}\n'
    )
    strict = [f"-std={standard}", "-pedantic", "-Wall", "-Wextra", "-Werror", *options]
    return subprocess.run(
        [compiler, *strict, "-o", str(folder / "main"), str(source)], capture_output=True, text=True, check=False
    )


@compiles
def test_compilers_take_it_and_read_the_offsets(compiler: str, standard: str, tmp_path: Path) -> None:
    instance = instance_of(HOSTILE)
    packing = pack(instance)
    (tmp_path / "model.h").write_text(c_header(instance, packing.offsets, packing.height, "model.h"))
    values = ["MODEL_SIZE", "MODEL_ALIGNMENT", "MODEL_CAPACITY"]
    values += [f"MODEL_{what}_{name}" for name in identifiers(HOSTILE) for what in ("OFFSET", "SIZE")]
    done = compile_(compiler, standard, tmp_path, " ".join(f'printf("%lu\\n", {value});' for value in values))
    assert done.returncode == 0, done.stderr
    printed = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True).stdout.split()
    expected = [packing.height, 8, packing.height]
    for offset, size in zip(packing.offsets.tolist(), instance.size.tolist(), strict=True):
        expected += [offset, size]
    assert [int(value) for value in printed] == expected


@compiles
@pytest.mark.parametrize("in_header", [True, False])
def test_the_assertion_fails_where_the_arena_is_over_the_capacity(
    compiler: str, standard: str, in_header: bool, tmp_path: Path
) -> None:
    instance = instance_of(["a", "b"])
    packing = pack(instance)
    assert packing.height == 24
    header = c_header(instance, packing.offsets, 24 if in_header else None, "model.h")
    (tmp_path / "model.h").write_text(header)
    assert compile_(compiler, standard, tmp_path, "", "-DMODEL_CAPACITY=24").returncode == 0
    done = compile_(compiler, standard, tmp_path, "", "-DMODEL_CAPACITY=23")
    assert done.returncode != 0
    if standard in ("c89", "c99", "c++98"):
        assert "MODEL_SIZE_is_within_MODEL_CAPACITY" in done.stderr
    else:
        assert "MODEL_SIZE is over MODEL_CAPACITY" in done.stderr


def test_large_numbers_are_constants_of_a_type_that_holds_them(tmp_path: Path) -> None:
    instance = Instance.of([0, 0], [2, 2], [2**40, 2**31], ids=["a", "b"])
    (tmp_path / "model.h").write_text(c_header(instance, np.array([2**31, 0]), None, "model.h"))
    done = compile_("gcc", "c89", tmp_path, 'printf("%lu", MODEL_OFFSET_A + MODEL_SIZE_A);')
    assert done.returncode == 0, done.stderr


def test_identifiers_are_different_and_none_is_reserved() -> None:
    names = identifiers([*HOSTILE, "a_2", "A", "a", "a_2", *["ü"] * 1000])
    assert len(set(names)) == len(names)
    for name in names:
        assert re.fullmatch(r"[0-9A-Z]+(_[0-9A-Z]+)*", name)


def test_ids_stand_beside_names_that_differ_from_them_and_end_no_comment() -> None:
    header = c_header(instance_of(["fusion.1", "plain", "a*/b"]), np.zeros(3, np.int64))
    assert "#define ARENA_OFFSET_FUSION_1 0UL /* fusion.1 */\n" in header
    assert "#define ARENA_OFFSET_PLAIN 0UL\n" in header
    assert "#define ARENA_OFFSET_A_B 0UL\n" in header


@pytest.mark.parametrize(
    ("file", "guard"),
    [("", "ARENA_H"), ("-", "ARENA_H"), ("model.h", "MODEL_H"), ("my-net.v2.h", "MY_NET_H"), ("9.h", "ARENA_9_H")],
)
def test_the_prefix_is_made_of_the_name_of_the_file(file: str, guard: str) -> None:
    header = c_header(instance_of(["a"]), np.zeros(1, np.int64), file=file)
    assert f"#ifndef {guard}\n#define {guard}\n" in header


def test_an_empty_arena() -> None:
    header = c_header(Instance.of([], [], []), np.zeros(0, np.int64), 0)
    assert "#define ARENA_SIZE 0UL\n#define ARENA_ALIGNMENT 1UL\n" in header


def test_the_address_is_a_multiple_of_all_alignments() -> None:
    header = c_header(Instance.of([0, 1], [1, 2], [6, 8], [6, 8]), np.array([0, 0]))
    assert "#define ARENA_ALIGNMENT 24UL\n" in header
    prime = [2**31 - 1, 2**19 - 1, 2**17 - 1]
    with pytest.raises(InstanceError, match="no common multiple"):
        c_header(Instance.of([0, 1, 2], [1, 2, 3], [1, 1, 1], prime), np.array([0, 0, 0]))
