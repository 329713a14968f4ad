"""CSV files: what is read is what was written, and each mistake has its row."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_instances import instances

from memplan.compiler.errors import MemplanError
from memplan.planners.offsets.csv_file import parse_instance, read_instance
from memplan.planners.offsets.instance import FREE, Instance

TEXT = "id,lower,upper,size\nb1,0,3,4\nb2,3,9,4\n"


def test_a_file() -> None:
    instance = parse_instance(TEXT).instance
    assert instance.ids == ("b1", "b2")
    assert instance.lower.tolist() == [0, 3]
    assert instance.upper.tolist() == [3, 9]
    assert instance.size.tolist() == [4, 4]
    assert instance.alignment.tolist() == [1, 1]
    assert instance.fixed.tolist() == [FREE, FREE]


def test_columns_in_any_order_and_those_that_may_be_empty() -> None:
    text = "\ufeffgaps,size,hint,upper,offset,alignment,lower,id\r\n2-3 5-6,4,7,9,8,4,0,x y\r\n,1,,2,,,0,z\r\n\r\n"
    instance = parse_instance(text).instance
    assert instance.ids == ("x y", "z")
    assert instance.fixed.tolist() == [8, FREE]
    assert instance.alignment.tolist() == [4, 1]
    assert instance.gap_lower.tolist() == [2, 5]
    assert instance.gap_upper.tolist() == [3, 6]


def test_the_last_time_is_inclusive_where_it_is_called_end() -> None:
    instance = parse_instance("buffer,start,end,size,gaps\nb,0,8,1,2-3\n").instance
    assert (instance.upper.tolist(), instance.gap_upper.tolist()) == ([9], [4])


def to_csv(instance: Instance, newline: str, columns: list[str]) -> str:
    rows = []
    for block, name in enumerate(instance.ids):
        gaps = [
            f"{lower}-{upper}"
            for gap, lower, upper in zip(instance.gap_block, instance.gap_lower, instance.gap_upper, strict=True)
            if gap == block
        ]
        fields = {
            "id": f'"{name},"', "lower": instance.lower[block], "upper": instance.upper[block],
            "size": instance.size[block], "alignment": instance.alignment[block], "gaps": " ".join(gaps),
            "offset": instance.fixed[block] if instance.fixed[block] >= 0 else "", "hint": "5",
        }  # fmt: skip
        rows.append(",".join(str(fields[column]) for column in columns))
    return newline.join([",".join(columns), *rows, ""])


@given(
    instances(),
    st.sampled_from(["\n", "\r\n"]),
    st.permutations(["id", "lower", "upper", "size", "alignment", "offset", "gaps", "hint"]),
)
@settings(max_examples=60)
def test_round_trip(instance: Instance, newline: str, columns: list[str]) -> None:
    read = parse_instance(to_csv(instance, newline, columns))
    for name in ("lower", "upper", "size", "alignment", "fixed", "gap_block", "gap_lower", "gap_upper"):
        assert getattr(read.instance, name).tolist() == getattr(instance, name).tolist()
    assert read.instance.ids == tuple(f"{name}," for name in instance.ids)
    # With offsets, every block is fixed, and all else is as it was.
    offsets = [100 * 6 * block for block in range(len(instance))]
    again = parse_instance(read.with_offsets(offsets))
    assert again.instance.fixed.tolist() == offsets
    assert again.instance.ids == read.instance.ids
    assert again.instance.gap_upper.tolist() == instance.gap_upper.tolist()
    assert again.header == read.header


def test_offsets_are_a_column_at_the_end() -> None:
    assert parse_instance(TEXT).with_offsets([0, 4]) == "id,lower,upper,size,offset\nb1,0,3,4,0\nb2,3,9,4,4\n"


WRONG = {
    "empty": ("", "x.csv: the file is empty"),
    "blank": ("\n \n", "x.csv: the file is empty"),
    "missing column": ("id,lower,upper\na,0,1\n", "x.csv: row 1: no column 'size'"),
    "unknown column": ("id,lower,upper,size,colour\na,0,1,1,red\n", "x.csv: row 1: no column is called 'colour'"),
    "a column twice": ("id,lower,start,upper,size\na,0,0,1,1\n", "x.csv: row 1: two columns for lower"),
    "too few fields": (TEXT + "b3,3\n", "x.csv: row 4: 2 fields, but the header names 4 columns"),
    "too many fields": (TEXT + "b3,3,4,1,1\n", "x.csv: row 4: 5 fields"),
    "not a number": (TEXT + "b3,3,x,1\n", "x.csv: row 4: upper 'x' is not a whole number"),
    "a fraction": (TEXT + "b3,3,4,1.5\n", "x.csv: row 4: size '1.5' is not a whole number"),
    "no number": (TEXT + "b3,,4,1\n", "x.csv: row 4: lower '' is not a whole number"),
    "beyond 64 bits": (TEXT + "b3,3,4,9223372036854775808\n", "x.csv: row 4: size 9223372036854775808 does not fit"),
    "thousands of digits": (TEXT + f"b3,3,4,{'9' * 5000}\n", "x.csv: row 4: size 9999"),
    "a sum beyond 64 bits": (TEXT + f"b3,3,4,{2**62}\n", "x.csv: row 4: the sum of the sizes up to here overflows"),
    "reversed": (TEXT + "b3,5,4,1\n", "x.csv: row 4: upper 4 must be greater than lower 5"),
    "negative time": (TEXT + "b3,-5,4,1\n", "x.csv: row 4: lower -5 is negative"),
    "negative size": (TEXT + "b3,3,4,-1\n", "x.csv: row 4: size -1 is negative"),
    "an id twice": (TEXT + "b1,3,4,1\n", "x.csv: row 4: id 'b1' is taken by x.csv: row 2"),
    "alignment": ("id,lower,upper,size,alignment\na,0,1,1,0\n", "x.csv: row 2: alignment 0 is not positive"),
    "negative offset": ("id,lower,upper,size,offset\na,0,1,1,-1\n", "x.csv: row 2: offset -1 is negative"),
    "fixed offsets that overlap": (
        "id,lower,upper,size,offset\na,0,2,4,0\nb,5,6,1,0\nc,1,3,4,3\n",
        "x.csv: row 4: its fixed offset overlaps that of x.csv: row 2",
    ),
    "not a gap": ("id,lower,upper,size,gaps\na,0,9,1,3\n", "x.csv: row 2: gap '3' is not of the form lower-upper"),
    "half a window": ("id,lower,upper,size,gaps\na,0,9,1,3-4@0\n", "x.csv: row 2: gap '3-4@0' is not of the form"),
    "a gap outside": ("id,lower,upper,size,gaps\na,0,9,1,3-10\n", "x.csv: row 2: gap 3-10 is not within 0-9"),
    "gaps that overlap": ("id,lower,upper,size,gaps\na,0,9,1,3-5 4-6\n", "x.csv: row 2: gap 4-6 overlaps"),
    "an open quote": (TEXT + '"b3,3,4,1\n', "x.csv: row 4: unexpected end of data"),
}


@pytest.mark.parametrize("what", WRONG)
def test_mistakes(what: str) -> None:
    text, message = WRONG[what]
    with pytest.raises(MemplanError) as error:
        parse_instance(text, "x.csv")
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(MemplanError, match="cannot read"):
        read_instance(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"id,lower\xff\n")
    with pytest.raises(MemplanError, match="UTF-8"):
        read_instance(tmp_path / "binary.csv")


def test_a_capacity_that_a_block_is_over_names_its_row() -> None:
    table = parse_instance(TEXT, "x.csv")
    table.check_capacity(4)
    with pytest.raises(MemplanError, match=r"x\.csv: row 2: size 4 is over the capacity of 3"):
        table.check_capacity(3)
