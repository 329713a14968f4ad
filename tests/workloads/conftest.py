"""The models run on the CPU here; libtpu, where it is installed, must not be asked for a TPU."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
