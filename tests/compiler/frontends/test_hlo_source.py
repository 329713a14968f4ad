import pytest

from memplan.compiler.frontends.hlo_lexical import MalformedText
from memplan.compiler.frontends.hlo_source import SourceTables, read_tables, source_of
from memplan.compiler.ir import Source

TABLES = """
FileNames
1 "a.py"
2 "dir/\\"b\\".py"

FunctionNames
1 "f"

FileLocations
1 {file_name_id=1 function_name_id=1 line=3 end_line=3 column=1 end_column=9}
2 {file_name_id=2 function_name_id=1 line=14}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}
3 {file_location_id=9 parent_frame_id=1}

%next"""


def test_tables() -> None:
    tables, end = read_tables(TABLES, 0)
    assert tables.places == {1: ("a.py", 3), 2: ('dir/"b".py', 14), 3: ("", 0)}
    assert TABLES[end:].strip() == "%next"
    assert tables.text == TABLES.removesuffix("%next").strip()


@pytest.mark.parametrize("text", ["", "\n\n%f {", "FileNamesX\n1", "%FileNames (a: f32[]) -> f32[] {"])
def test_no_tables(text: str) -> None:
    assert read_tables(text, 0) == (SourceTables(), 0)


def test_malformed_row() -> None:
    with pytest.raises(MalformedText, match="malformed row of FileNames: '2 nameless'") as caught:
        read_tables('FileNames\n1 "a"\n2 nameless\n', 0)
    assert caught.value.offset == 16


def test_source() -> None:
    tables, _ = read_tables(TABLES, 0)
    assert source_of('{op_name="jit(f)/mul" stack_frame_id=2}', tables) == Source("jit(f)/mul", 'dir/"b".py', 14)
    assert source_of('{op_type="mul" op_name="p[\\\'w\\\']"}', tables) == Source("p['w']")
    assert source_of('{source_file="c.py" source_line=5 source_end_line=6}', tables) == Source("", "c.py", 5)
    assert source_of('{op_name="x" source_file="c.py" stack_frame_id=3}', tables) == Source("x", "c.py")
    assert source_of("{stack_frame_id=77}", tables) == Source()
