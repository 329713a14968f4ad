"""Programs that load libtpu, each in a process of its own, where it can take nobody down with it."""

from __future__ import annotations

import os
import subprocess
import sys


def run_with_libtpu(program: str, *arguments: str, **variables: str) -> None:
    """Runs a Python program for TPUs that are elsewhere, and demands that it ends well.

    Args:
      program: its text.
      arguments: of the program.
      variables: of its environment, besides those of this process.
    """
    ahead_of_time = {"TPU_SKIP_MDS_QUERY": "1", "JAX_PLATFORMS": "cpu", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | ahead_of_time | variables)
    assert done.returncode == 0, done.stderr
