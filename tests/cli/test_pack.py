"""`memplan pack`: what it prints and writes, and how it ends."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memplan import workloads
from memplan.cli import pack as pack_command
from memplan.planners.offsets.check import check
from memplan.planners.offsets.csv_file import read_instance
from memplan.planners.offsets.pack import Packing, pack

Run = Callable[..., Any]

# 12 bytes are needed at one time, and are enough.
EXAMPLE = "id,lower,upper,size\nb1,0,3,4\nb2,3,9,4\nb3,0,9,4\nb4,9,21,4\nb5,0,21,4\n"


@pytest.fixture
def example(tmp_path: Path) -> Path:
    file = tmp_path / "example.csv"
    file.write_text(EXAMPLE)
    return file


def line(out: str, label: str) -> str:
    """Returns what stands beside a label."""
    (found,) = [text for text in out.splitlines() if text.startswith(label + " ")]
    return found.removeprefix(label).strip()


def test_a_capacity_that_is_enough(run: Run, example: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    done = run("pack", example, "--capacity", 12, "--out", out)
    assert (done.status, done.err) == (0, "")
    assert line(done.out, "blocks") == "5"
    assert line(done.out, "height") == line(done.out, "maximum load") == line(done.out, "lower bound") == "12"
    assert line(done.out, "result") == "fits the capacity"
    assert line(done.out, "method")
    float(line(done.out, "seconds"))
    written = read_instance(out)
    assert written.header == ("id", "lower", "upper", "size", "offset")
    assert check(read_instance(example).instance, written.instance.fixed, 12) == []


def test_without_a_capacity_the_height_is_minimized(run: Run, example: Path) -> None:
    done = run("pack", example)
    assert done.status == 0
    assert line(done.out, "height") == "12"
    assert line(done.out, "result") == "proven: no packing is lower"
    assert "capacity" not in done.out


def test_a_capacity_that_is_not_enough(run: Run, example: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    done = run("pack", example, "--capacity", 11, "--out", out)
    assert done.status == 1
    assert line(done.out, "result") == "does not fit the capacity: proven"
    # One of two sets of blocks that need 12 bytes at one time.
    last = done.out.splitlines()[-1]
    assert last.startswith("These 3 blocks do not fit, and would without any one of them: ")
    assert set(last.rpartition(": ")[2].split(", ")) in ({"b1", "b3", "b5"}, {"b2", "b3", "b5"})
    assert not out.exists()


def hard(tmp_path: Path) -> Path:
    """Writes a shipped instance with odd sizes: too hard for a moment."""
    shipped = read_instance(Path(workloads.dumps_folder()).parent / "packing" / "K.1048576.csv").instance
    rows = [
        f"{name},{lower},{upper},{size - number % 89}"
        for number, (name, lower, upper, size) in enumerate(
            zip(shipped.ids, shipped.lower, shipped.upper, shipped.size, strict=True)
        )
    ]
    file = tmp_path / "hard.csv"
    file.write_text("\n".join(["id,lower,upper,size", *rows, ""]))
    return file


def test_when_the_time_runs_out(run: Run, tmp_path: Path) -> None:
    file, out = hard(tmp_path), tmp_path / "out.csv"
    load = int(line(run("pack", file, "--time-limit", 0.2).out, "maximum load").replace(",", ""))
    done = run("pack", file, "--capacity", load, "--time-limit", 0.2, "--out", out)
    assert done.status == 3
    assert line(done.out, "result").startswith("not decided: the time ran out")
    assert line(done.out, "lower bound") == f"{load:,}"
    assert not out.exists()
    done = run("pack", file, "--time-limit", 0.2, "--out", out)
    assert done.status == 0
    assert "not proven to be the lowest: the time ran out" in line(done.out, "result")
    height = int(line(done.out, "height").replace(",", ""))
    assert check(read_instance(file).instance, read_instance(out).instance.fixed, height) == []


def test_an_interrupt_writes_the_best_packing(
    run: Run, example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    def interrupted(*given: Any) -> Packing:
        return dataclasses.replace(pack(*given), interrupted=True)

    monkeypatch.setattr(pack_command, "pack", interrupted)
    out = tmp_path / "out.csv"
    done = run("pack", example, "--out", out)
    assert done.status == 130
    assert "memplan: interrupted" in done.err
    assert check(read_instance(example).instance, read_instance(out).instance.fixed, 12) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--capacity", 3], "example.csv: row 2: size 4 is over the capacity of 3"),
        (["--capacity", -1], "a capacity of -1"),
        (["--time-limit", 0], "a time limit must be a positive number of seconds"),
        (["--time-limit", "nan"], "a time limit must be a positive number of seconds"),
        (["--out", "no/folder/out.csv"], "there is no folder"),
        (["--capacity", "many"], "--capacity"),
    ],
)
def test_mistakes_in_options(run: Run, example: Path, options: list[object], message: str) -> None:
    done = run("pack", example, *options)
    assert done.status == 2
    assert len(done.errors) == 1
    assert message in done.errors[0]


def test_a_c_header(run: Run, example: Path, tmp_path: Path) -> None:
    header, out = tmp_path / "model.h", tmp_path / "out.csv"
    assert run("pack", example, "--capacity", 12, "--c-header", header, "--out", out).status == 0
    offsets = read_instance(out).instance.fixed.tolist()
    for number, offset in enumerate(offsets, 1):
        assert f"#define MODEL_OFFSET_B{number} {offset}UL\n" in header.read_text()
    assert "#define MODEL_SIZE 12UL\n" in header.read_text()
    assert "#define MODEL_CAPACITY 12UL\n" in header.read_text()
    # Standard output holds the header alone.
    done = run("pack", example, "--c-header", "-")
    assert done.out.startswith("/* Offsets of 5 buffers")
    assert done.out.endswith("#endif\n")
    assert "#define ARENA_SIZE 12UL\n" in done.out
    assert "proven: no packing is lower" in done.err


def test_no_header_is_written_where_the_blocks_do_not_fit(run: Run, example: Path, tmp_path: Path) -> None:
    header = tmp_path / "model.h"
    assert run("pack", example, "--capacity", 11, "--c-header", header).status == 1
    assert not header.exists()


@pytest.mark.parametrize("two", [("x", "x"), ("x", "./x"), ("-", "-")])
def test_two_outputs_in_one_file_are_refused(
    run: Run, example: Path, tmp_path: Path, two: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("pack", example, "--out", two[0], "--c-header", two[1])
    assert done.status == 2
    assert "is to hold another output as well" in done.errors[0]
    assert not (tmp_path / "x").exists()


def test_neither_output_is_written_if_one_cannot_be(run: Run, example: Path, tmp_path: Path) -> None:
    done = run("pack", example, "--out", tmp_path / "out.csv", "--c-header", tmp_path / "none" / "model.h")
    assert done.status == 2
    assert "there is no folder" in done.errors[0]
    assert not (tmp_path / "out.csv").exists()


def test_mistakes_in_the_file(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "wrong.csv"
    file.write_text(EXAMPLE + "b6,4,3,1\n")
    done = run("pack", file, "--out", tmp_path / "out.csv")
    assert done.status == 2
    assert done.errors == [f"memplan: error: {file}: row 7: upper 3 must be greater than lower 4"]
    assert not (tmp_path / "out.csv").exists()
    assert run("pack", tmp_path / "none.csv").status == 2
