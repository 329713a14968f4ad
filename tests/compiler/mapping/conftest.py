"""Problems and plans for these tests come from those of the planners."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "planners"))
