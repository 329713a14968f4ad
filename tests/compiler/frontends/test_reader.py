import gc
import gzip
from pathlib import Path

import pytest
from sample_modules import CPU_PROTOS, CPU_TEXTS, DATA, TPU_TEXTS, name_of, text_of

from memplan.compiler import limits
from memplan.compiler.errors import ParseError
from memplan.compiler.frontends import parse_hlo, read
from memplan.compiler.ir.memory_order import peak_bytes

WHOLE_PROTO = next(file for file in CPU_PROTOS if file.suffix == ".pb")
TEXT = """HloModule m
ENTRY e {
  a = f32[1000] custom-call()
  b = f32[1000] custom-call()
  c = f32[10] custom-call(a)
  d = f32[10] custom-call(b)
  ROOT r = f32[10] add(c, d)
}
"""


def written(folder: Path, content: bytes, name: str = "dump") -> Path:
    file = folder / name
    file.write_bytes(content)
    return file


def test_a_module_without_schedule_gets_an_order_that_saves_memory(tmp_path: Path) -> None:
    graph = read(written(tmp_path, TEXT.encode()))
    assert [i.name for i in graph.entry_computation.instructions] == ["a", "c", "b", "d", "r"]
    assert peak_bytes(graph.entry_computation) < peak_bytes(parse_hlo(TEXT).entry_computation)
    assert not graph.is_scheduled


def test_a_scheduled_module_keeps_its_order(tmp_path: Path) -> None:
    text = TEXT.replace("HloModule m", "HloModule m, is_scheduled=true")
    graph = read(str(written(tmp_path, text.encode())))
    assert graph == parse_hlo(text)
    assert graph.file == str(tmp_path / "dump")


@pytest.mark.parametrize("name", ["dump", "dump.pb", "dump.mlir", "dump.gz", "dump.txt.gz"])
def test_names_do_not_matter(tmp_path: Path, name: str) -> None:
    expected = read(written(tmp_path, TEXT.encode()))
    assert read(written(tmp_path, TEXT.encode(), name)) == expected
    assert read(written(tmp_path, gzip.compress(TEXT.encode()), name)) == expected
    assert read(written(tmp_path, b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode(), name)) == expected


@pytest.mark.parametrize("file", CPU_PROTOS + CPU_TEXTS, ids=name_of)
def test_every_kind_of_dump(file: Path) -> None:
    graph = read(file)
    assert graph.is_scheduled == ("after" in file.name)
    assert graph.file == str(file)
    assert graph.warnings == ()


def test_stablehlo_is_told_by_its_content(tmp_path: Path) -> None:
    for name in ("scan.mlir.bc", "scan.export"):
        content = (DATA / name).read_bytes()
        assert read(written(tmp_path, gzip.compress(content), "x.txt")).name == "jit_scan"


def test_gzip_of_several_members_and_padding(tmp_path: Path) -> None:
    half = len(TEXT) // 2
    content = gzip.compress(TEXT[:half].encode()) + gzip.compress(TEXT[half:].encode()) + b"\0" * 100
    assert read(written(tmp_path, content)) == read(written(tmp_path, TEXT.encode(), "plain"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b" \n\t\n", "the file is empty"),
        (gzip.compress(b"", mtime=0), "the file is empty"),
        (gzip.compress(TEXT.encode(), mtime=0)[:-30], "gzip ends before its content does: is the file truncated?"),
        (gzip.compress(TEXT.encode(), mtime=0)[:5], "gzip ends before its content does"),
        (b"\x1f\x8b\x08\0" + b"\xff" * 60, "broken gzip: "),
        (gzip.compress(TEXT.encode(), mtime=0) + b"tail", "something follows the gzip's content"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is no HLO text, HLO proto, StableHLO, jax.export artifact or .tflite file: it looks like a PNG picture"),
        (b"PK\x03\x04\x14\0\0\0", "it looks like a zip archive"),
        (bytes(range(256)) * 4, "is no HLO text, HLO proto, StableHLO, jax.export artifact or .tflite file"),
        (b"\0" * 1000, "is no HLO text"),
        (TEXT.encode().replace(b"b = ", b"\xff = "), ":4:3: byte 0xff is not UTF-8 text"),
        (TEXT.encode().replace(b"b = ", b"\0 = "), ":4:3: a NUL byte stands in the text: is the file damaged?"),
        (b"Just a letter.\nNothing else.\n", ":1:1: expected HLO text (HloModule …), found 'Just a letter.'"),
        (b'{"schema": "memplan.plan/1"}', ":1:1: expected HLO text"),
        (TEXT[:-20].encode(), ":7:12: expected a shape such as f32[8,128]{1,0}, found the end of the file"),
        (WHOLE_PROTO.read_bytes()[:-50], "damaged HLO proto: "),
        (gzip.compress(WHOLE_PROTO.read_bytes()[:700], mtime=0), "damaged HLO proto: "),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_clear_message(tmp_path: Path, content: bytes, message: str) -> None:
    file = written(tmp_path, content)
    with pytest.raises(ParseError) as caught:
        read(file)
    assert str(caught.value).startswith(str(file))
    assert message in str(caught.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ParseError, match="missing: cannot be read: No such file or directory"):
        read(tmp_path / "missing")
    with pytest.raises(ParseError, match="is a directory"):
        read(tmp_path)
    with pytest.raises(ParseError, match="cannot be read"):
        read("a\0b")


def test_limits_of_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small gzip can hold a huge text: what is unpacked is limited as what is read."""
    monkeypatch.setattr(limits, "PROGRAM", 1000)
    with pytest.raises(ParseError, match="holds more than"):
        read(written(tmp_path, b" " * 2000))
    bomb = gzip.compress(b" " * 1_000_000)
    assert len(bomb) < 2000
    monkeypatch.setattr(limits, "PROGRAM", len(bomb))
    with pytest.raises(ParseError, match="unpacks to more than"):
        read(written(tmp_path, bomb))
    with pytest.raises(ParseError, match="unpacks to more than"):
        read(written(tmp_path, gzip.compress(b" " * 600) * 2 + gzip.compress(b" " * (len(bomb) - 1000))))


def test_garbage_collection_is_as_it_was(tmp_path: Path) -> None:
    file = written(tmp_path, TEXT.encode())
    assert gc.isenabled()
    read(file)
    assert gc.isenabled()
    with pytest.raises(ParseError):
        read(written(tmp_path, b"x", "broken"))
    assert gc.isenabled()
    gc.disable()
    try:
        read(file)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_text_and_gzip_of_a_tpu_module_are_the_same(tmp_path: Path) -> None:
    file = next(file for file in TPU_TEXTS if file.name.startswith("lstm."))
    assert read(file) == read(written(tmp_path, text_of(file).encode()))
