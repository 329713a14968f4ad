"""The page of the seed papers and the registry say the same."""

import re
from pathlib import Path

from memplan.workloads import get, names

ROOT = Path(__file__).parents[2]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "seeds.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| paper |")
]


def test_each_seed_workload_is_in_the_table_once() -> None:
    listed = [name for row in ROWS for name in re.findall(r"`(\w+)`", row[2])]
    assert sorted(listed) == sorted(
        name for name in names() if get(name).build.__module__.startswith("memplan.workloads.seed_")
    )
    assert len({row[0] for row in ROWS}) == len(ROWS)


def test_each_row_has_a_test_of_that_name() -> None:
    for row in ROWS:
        file, name = re.findall(r"`(\S+)`", row[4])
        assert f"def {name}(" in (Path(__file__).parent / file).read_text(), row[0]
