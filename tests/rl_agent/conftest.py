"""Tests in the folders below find the problems of the planners' tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "planners"))
