"""What the tests of planners share: made-up problems, importable from every folder below this one."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
