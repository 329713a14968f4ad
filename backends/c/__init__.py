"""Planned programs as C99: `kernels.py` writes loop nests, `source.py` the files, `toolchain.py` compiles and runs."""
