"""What JAX runs the game on: set up before JAX is imported."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from memplan.planners.planner import num_cores

_HOST_DEVICES = "--xla_force_host_platform_device_count"


def use_all_devices() -> None:
    """Makes each of the CPU's cores a device, and keeps JAX from looking for a TPU where there is none.

    What the user decided by XLA_FLAGS or JAX_PLATFORMS stays. It does nothing once JAX has looked.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if _HOST_DEVICES not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {_HOST_DEVICES}={num_cores()}".strip()
    # With libtpu but no TPU, JAX would ask the cloud for one, and keep the lock of those who compile with libtpu.
    if "JAX_PLATFORMS" not in os.environ and find_spec("libtpu") is not None and not _has_tpu():
        is_gpu = any(find_spec(f"jax_cuda{version}_plugin") is not None for version in (12, 13))
        os.environ["JAX_PLATFORMS"] = "cuda,cpu" if is_gpu else "cpu"


def _has_tpu() -> bool:
    return any(Path("/dev").glob("accel*")) or any(Path("/dev/vfio").glob("[0-9]*"))
