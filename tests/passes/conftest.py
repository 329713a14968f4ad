"""What a program computes is told by the interpreter of the emulator's tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "compiler" / "emulator"))
