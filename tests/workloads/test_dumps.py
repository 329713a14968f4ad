"""The stored dumps: readable, compact, of known workloads, and free of the machine that made them."""

import gzip
import re
from pathlib import Path

import pytest
from jaxlib import _hlo

from memplan.workloads import dumped_names, dumps_folder, names

DUMPS = sorted(dumps_folder().glob("*"))
SMALL = sorted(path for path in (Path(__file__).parents[1] / "data" / "hlo").iterdir() if path.is_file())
FAST_SPACE = {"tpu-v4": 3, "tpu-v5e": 1, "tpu-v5p": 1, "tpu-v6e": 1, "tpu-7x": 1}


def read(path: Path) -> str:
    return gzip.decompress(path.read_bytes()).decode()


def test_the_folder_is_small_and_complete() -> None:
    assert sum(path.stat().st_size for path in DUMPS) <= 5 * 2**20
    present = {path.name for path in DUMPS}
    assert present >= {
        f"{name}.tpu-v5e.{variant}.hlo.txt.gz" for name in dumped_names() for variant in ("default", "slow")
    }
    for target in FAST_SPACE:
        assert sum(f".{target}.default." in name for name in present) >= 2


@pytest.mark.parametrize("path", DUMPS, ids=lambda path: path.name)
def test_dump(path: Path) -> None:
    workload, target, variant, *suffix = path.name.split(".")
    assert suffix == ["hlo", "txt", "gz"]
    assert workload in names()
    assert variant in ("default", "slow")
    assert path.read_bytes()[:8] == b"\x1f\x8b\x08\x00\0\0\0\0", "no name and no time in the header"

    text = read(path)
    header = text.partition("\n")[0]
    assert header.startswith(f"HloModule jit_{workload}, is_scheduled=true")
    assert f'memplan.target="{target}",memplan.variant="{variant}"' in header
    module = _hlo.hlo_module_from_text(text)
    assert module.name == f"jit_{workload}"
    module.schedule().verify()

    entry = text[text.index("\nENTRY ") :]
    # A program that is a loop has most of its instructions in the loop's body.
    assert text.count('"estimated_cycles":') > 10
    fast = {int(space) for space in re.findall(r"S\((\d+)\)", entry)} - {2}
    if variant == "default":
        assert FAST_SPACE[target] in fast
    else:
        assert "copy-start(" not in text
        assert FAST_SPACE[target] not in fast


@pytest.mark.parametrize("path", DUMPS, ids=lambda path: path.name)
def test_source_lines(path: Path) -> None:
    text = read(path)
    files = re.search(r"\nFileNames\n(.*?)\n\n", text, re.DOTALL)
    assert files
    for row in files[1].splitlines():
        source = re.fullmatch(r'\d+ "memplan/workloads/(\w+\.py)"', row)
        assert source, row
        assert (dumps_folder().parent / source[1]).is_file()
    assert not re.search(r'"/|site-packages|python3\.\d|/(?:home|root|tmp|usr|work|Users)/', text)
    frames = re.search(r"\nStackFrames\n(.*?)\n\n", text, re.DOTALL)
    assert frames
    count = len(frames[1].splitlines())
    used = {int(number) for number in re.findall(r"stack_frame_id=(\d+)", text)}
    assert used
    assert max(used) <= count
    # A frame's parent is given as its number plus one; frames come after their parents.
    for row in frames[1].splitlines():
        number, parent = re.fullmatch(r"(\d+) \{file_location_id=\d+ parent_frame_id=(\d+)\}", row).groups()  # type: ignore[union-attr]
        assert 1 <= int(parent) <= int(number)


@pytest.mark.parametrize("workload", dumped_names())
def test_the_variants_differ_in_copies_and_spaces_alone(workload: str) -> None:
    def computing(variant: str) -> set[str]:
        text = read(dumps_folder() / f"{workload}.tpu-v5e.{variant}.hlo.txt.gz")
        return set(re.findall(r"^  (?:ROOT )?(%\S*fusion\S*) = ", text, re.MULTILINE))

    default, slow = computing("default"), computing("slow")
    assert default
    assert default == slow


@pytest.mark.parametrize("path", SMALL, ids=lambda path: path.name)
def test_the_small_modules_of_other_tests_are_small_and_of_no_machine(path: Path) -> None:
    data = path.read_bytes()
    assert len(data) < 100_000
    data = gzip.decompress(data) if path.suffix == ".gz" else data
    assert not re.search(rb"site-packages|/(?:home|root|tmp|usr|work|Users)/", data)
