"""Which device a function runs on, and which target that device is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax

# The target of each kind of TPU, by the name that the device states.
TARGET_OF_KIND: dict[str, str] = {
    "TPU v4": "tpu-v4",
    "TPU v5 lite": "tpu-v5e",
    "TPU v5e": "tpu-v5e",
    "TPU v5": "tpu-v5p",
    "TPU v5p": "tpu-v5p",
    "TPU v6 lite": "tpu-v6e",
    "TPU v6e": "tpu-v6e",
    "TPU7x": "tpu-7x",
}


def device_of(values: Iterable[Any]) -> Any:
    """Returns the device on which JAX runs a function, the first if there are several.

    This is the device of an argument that was put on one, otherwise the default device.

    Args:
      values: arguments (arrays, `ShapeDtypeStruct`s, anything else) and shardings.
    """
    for value in values:
        sharding = value if isinstance(value, jax.sharding.Sharding) else getattr(value, "sharding", None)
        # An array that was only computed on a device moves to the others.
        if isinstance(sharding, jax.sharding.Sharding) and getattr(value, "committed", True):
            devices = _devices(sharding)
            if devices:
                return min(devices, key=lambda device: device.id)
    default = jax.config.jax_default_device
    if default is None:
        return jax.local_devices()[0]
    return jax.local_devices(backend=default)[0] if isinstance(default, str) else default


def is_here(device: Any) -> bool:
    """Whether a device is one of this machine, and not one that only a topology describes."""
    try:
        return any(device is other for other in jax.devices(device.platform))
    except RuntimeError:  # this machine has no such platform
        return False


def target_of(device: Any) -> str:
    """Returns the name of the target that describes a device; "" if there is none."""
    return TARGET_OF_KIND.get(device.device_kind, "") if device.platform == "tpu" else ""


def _devices(sharding: jax.sharding.Sharding) -> frozenset[Any]:
    try:
        return frozenset(sharding.device_set)
    except ValueError:  # of an abstract mesh
        return frozenset()
